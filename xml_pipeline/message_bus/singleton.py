"""The current pump: the one whose handler runs here, else the program's main one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xml_pipeline.runtime import current_runtime, default_runtime, set_default_runtime

if TYPE_CHECKING:
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["get_stream_pump", "has_stream_pump", "reset_stream_pump", "set_stream_pump"]


def get_stream_pump() -> StreamPump:
    """The pump that the running handler belongs to; outside of handlers, the one last started or set.

    Raises:
        RuntimeError: no pump was started.
    """
    runtime = current_runtime()
    cls = _pump_class()
    if cls not in runtime:
        raise RuntimeError("no pump was started: call bootstrap(), or start a StreamPump, first")
    return runtime.get(cls)


def has_stream_pump() -> bool:
    """Whether the program has a main pump."""
    return _pump_class() in default_runtime()


def set_stream_pump(pump: StreamPump) -> None:
    """Make ``pump`` the program's main pump."""
    set_default_runtime(pump.runtime)


def reset_stream_pump(pump: StreamPump | None = None) -> None:
    """Forget the program's main pump; with an argument, only if it is that one."""
    if pump is None or default_runtime() is pump.runtime:
        set_default_runtime(None)


def _pump_class() -> type[StreamPump]:
    from xml_pipeline.message_bus import stream_pump

    return stream_pump.StreamPump
