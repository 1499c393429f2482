"""The listener, or broadcast group, that a command names, and the payload classes it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xml_pipeline.cli.exits import CommandFailed

if TYPE_CHECKING:
    from third_party.xmlable import Codec
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["codec_named", "codecs_of"]


def codecs_of(pump: StreamPump, target: str) -> dict[str, Codec[Any]]:
    """What a listener or a group takes, by class name.

    Raises:
        CommandFailed: there is no such listener or group.
    """
    listener = pump.listeners.get(target)
    if listener is None and target:  # those in no group have the group ""
        listener = next((each for each in pump.listeners.values() if each.group == target), None)
    if listener is None:
        raise CommandFailed(f"error: there is no listener {target!r}{_known(pump, target)}")
    return listener.codecs


def codec_named(codecs: dict[str, Codec[Any]], target: str, name: str) -> Codec[Any]:
    """The class that was asked for with ``--class``.

    Raises:
        CommandFailed: the target does not take it.
    """
    from xml_pipeline.config.problems import Hints

    if name not in codecs:
        near = Hints().did_you_mean(name, codecs, "class")
        raise CommandFailed(f"error: {target!r} takes {' or '.join(codecs)}, not {name!r}{near}")
    return codecs[name]


def _known(pump: StreamPump, target: str) -> str:
    from xml_pipeline.config.problems import Hints

    users = [listener for listener in pump.listeners.values() if not listener.is_system]
    names = list(dict.fromkeys([*(each.name for each in users), *(each.group for each in users if each.group)]))
    near = Hints().did_you_mean(target, names, "listener")
    return near or f"; there are: {', '.join(names) or 'none'}"
