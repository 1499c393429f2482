"""How a conversation is shown while it grows: for people, as JSON for programs, or only its answers as XML."""

from __future__ import annotations

import dataclasses
import re
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from xml_pipeline.cli.console import complain, console, print_json, say, write

if TYPE_CHECKING:
    from rich.console import RenderableType

    from xml_pipeline.errors import PipelineError
    from xml_pipeline.message_bus.events import PumpEvent
    from xml_pipeline.message_bus.stream_pump import StreamPump
    from xml_pipeline.message_bus.transcript import MessageRecord

__all__ = ["JsonView", "TextView", "View", "XmlView", "error_line"]

_WIDEST_NAME = 24


class View(Protocol):
    """Shows one conversation."""

    def event(self, event: PumpEvent) -> None:
        """Something happened in it."""

    def answer(self, payload: Any) -> None:
        """An answer reached whoever asked."""

    def error(self, error: PipelineError) -> None:
        """It ended in an error."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def error_line(error: PipelineError) -> str:
    """An error in one line: its code, its public text, and what really happened."""
    from xml_pipeline.message_bus.transcript import printable

    detail = f" ({printable(error.detail)})" if error.detail else ""
    return f"error: {error.code}: {error.public_message}{detail}"


class _Silent:
    """What the views have in common: nothing is shown unless they say so."""

    def event(self, event: PumpEvent) -> None:
        pass

    def error(self, error: PipelineError) -> None:
        complain(error_line(error))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class XmlView(_Silent):
    """Prints each answer as XML, and nothing else."""

    def answer(self, payload: Any) -> None:
        from third_party.xmlable import codec_of

        write(codec_of(type(payload)).encode(payload))


class JsonView(_Silent):
    """Prints each event, each answer and the error as a JSON object on a line of its own."""

    def event(self, event: PumpEvent) -> None:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__.removesuffix("Event")).lower()
        data: dict[str, Any] = {"event": name}
        for field in dataclasses.fields(event):
            value = getattr(event, field.name)
            data[field.name] = _json_of(value) if field.name == "payload" else value
        print_json(data, indent=None)

    def answer(self, payload: Any) -> None:
        data = {"event": "answer", "payload_type": type(payload).__name__, "payload": _json_of(payload)}
        print_json(data, indent=None)

    def error(self, error: PipelineError) -> None:
        data = {"event": "error", "code": error.code, "message": error.public_message, "detail": error.detail}
        print_json(data, indent=None)
        complain(error_line(error))


def _json_of(payload: Any) -> Any:
    from third_party.xmlable import codec_of

    if payload is None or isinstance(payload, bytes):
        return None if payload is None else payload.decode(errors="replace")
    return codec_of(type(payload)).to_json(payload)


class TextView(_Silent):
    """Prints a line for each message that has ended; on a terminal, those being handled stand below, with a clock.

    Args:
        pump: its listeners' names say how wide the columns are.
        from_id: who asks.
    """

    def __init__(self, pump: StreamPump, from_id: str) -> None:
        from xml_pipeline.message_bus.transcript import Transcript

        names = [from_id, *(listener.name for listener in pump.listeners.values() if not listener.is_system)]
        self._transcript = Transcript()
        self._width = min(max(map(len, names)), _WIDEST_NAME)
        self._began: float | None = None
        self._running: dict[str, MessageRecord] = {}
        self._live: Any = None

    def __enter__(self) -> Self:
        if console().is_terminal:
            from rich.live import Live

            self._live = Live(
                console=console(),
                get_renderable=self._in_progress,
                refresh_per_second=10,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def event(self, event: PumpEvent) -> None:
        if self._began is None:
            self._began = event.time
        message = self._transcript(event)
        if message is None:
            return
        if not message.outcome:
            if message.is_running:
                self._running[message.id] = message
            return
        self._running.pop(message.id, None)
        console().print(self._line(message, message.result))

    def answer(self, payload: Any) -> None:
        from rich.pretty import pretty_repr

        say(f"answer: {pretty_repr(payload, max_width=100)}", style="bold green")

    def _line(self, message: MessageRecord, result: str) -> RenderableType:
        from rich.text import Text

        from xml_pipeline.message_bus.transcript import milliseconds, printable

        width, start = self._width, self._began or message.seen
        return Text.assemble(
            (f"{milliseconds(message.seen - start):>8}  ", "dim"),
            (f"{printable(message.from_id):>{width}} -> {printable(message.to_id):<{width}}", "cyan"),
            f"  {message.content}  ",
            (f"[{result}]", "red" if message.has_failed else "dim"),
        )

    def _in_progress(self) -> RenderableType:
        from rich.console import Group

        from xml_pipeline.message_bus.transcript import milliseconds

        now = time.time()
        ages = {message: milliseconds(now - (message.received or now)) for message in list(self._running.values())}
        return Group(*(self._line(message, f"at work for {age}") for message, age in ages.items()))
