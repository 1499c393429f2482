"""Sources: what calls an agent's handler without anybody asking it: a message on a subject, a change of a key.

They are said where the agent is registered, and are nobody else's business: no contract and no catalog has them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from xml_pipeline.mesh.kv_cursor import consumer_name
from xml_pipeline.mesh.kv_value import check_pattern
from xml_pipeline.mesh.shapes import Envelope
from xml_pipeline.mesh.subjects import check_filter

if TYPE_CHECKING:
    from xml_pipeline.mesh.shapes import Handler

__all__ = ["KVSource", "OnInit", "Source", "SubjectSource", "check_sources"]

OnInit = Literal["replay", "skip"]

_MOST_WAITING = 10_000


@dataclass(frozen=True)
class SubjectSource:
    """The messages of a subject. Made by `AgentMesh.subject_source`, which says what the arguments are."""

    subject: str
    queue_group: str | None = None
    max_waiting: int = _MOST_WAITING

    def __post_init__(self) -> None:
        check_filter(self.subject)
        if self.queue_group is not None:
            _check_group(self.queue_group)
        if self.max_waiting < 1:
            raise ValueError(f"max_waiting is at least 1, not {self.max_waiting}")

    def __str__(self) -> str:
        return f"subject {self.subject}"


@dataclass(frozen=True)
class KVSource:
    """The changes of keys. Made by `AgentMesh.kv_source`, which says what the arguments are."""

    pattern: str
    queue_group: str | None = None
    on_init: OnInit = "replay"
    resume: str | None = None

    def __post_init__(self) -> None:
        check_pattern(self.pattern)
        if self.on_init not in get_args(OnInit):
            raise ValueError(f"on_init is 'replay' or 'skip', not {self.on_init!r}")
        if self.resume is not None and self.queue_group is not None:
            raise ValueError(
                "resume= and queue_group= are two names for the same thing, a place in the changes that the server "
                "remembers and that its readers share: give one of them"
            )
        if self.cursor is not None:
            consumer_name(self.cursor, self.pattern)

    @property
    def cursor(self) -> str | None:
        """The name under which the server remembers what was handled; ``None`` where it does not."""
        return self.resume if self.resume is not None else self.queue_group

    def __str__(self) -> str:
        return f"keys {self.pattern}"


Source = SubjectSource | KVSource

# What gives an envelope, and what to use for the other kind.
_GIVES: dict[Envelope, tuple[type, str, str]] = {
    Envelope.KV_ENTRY: (KVSource, "kv_source", "MeshMessage"),
    Envelope.MESH_MESSAGE: (SubjectSource, "subject_source", "KVEntry"),
}


def check_sources(sources: Iterable[Source] | None, handler: Handler) -> tuple[Source, ...]:
    """The sources, if they can be those of this handler.

    Raises:
        TypeError: they are no sources, or do not go with the handler; the text says what to do.
    """
    if sources is not None and (isinstance(sources, KVSource | SubjectSource) or not isinstance(sources, Iterable)):
        raise TypeError(f"sources= of {handler.title} must be a list of sources, not {type(sources).__name__}")
    found = tuple(sources or ())
    for source in found:
        if not isinstance(source, KVSource | SubjectSource):
            raise TypeError(
                f"sources= of {handler.title} has {source!r:.100}, which is no source: use mesh.kv_source(...) or "
                "mesh.subject_source(...)"
            )
        _check_envelope(source, handler)
    if found and handler.shape.streaming:
        raise TypeError(
            f"{handler.title} yields and has sources: what it yields for them would go to nobody. Make it `async def` "
            "without `yield`, and publish from it, with mesh.publish(...) or mesh.kv.put(...)"
        )
    if not found and handler.envelope is not Envelope.VALUE:
        gives = _GIVES[handler.envelope][1]
        raise TypeError(
            f"{handler.title} takes a {handler.envelope.value}, which only a source gives it: register it with "
            f"sources=[mesh.{gives}(...)]"
        )
    return found


def _check_envelope(source: Source, handler: Handler) -> None:
    if handler.envelope is Envelope.VALUE:
        return
    kind, gives, instead = _GIVES[handler.envelope]
    if not isinstance(source, kind):
        raise TypeError(
            f"{handler.title} takes a {handler.envelope.value}, which mesh.{gives}(...) gives and the source of "
            f"{source} does not: take a {instead}, or the value itself"
        )


def _check_group(group: str) -> None:
    """A queue group is one token of a line of the protocol."""
    if not isinstance(group, str) or not group or any(char.isspace() or not char.isprintable() for char in group):
        raise ValueError(f"{group!r} cannot be a queue group: a text that is not empty, without white space")
