"""What is in a stream of the server, as far as its configuration tells: under which subjects it keeps messages.

A stream keeps what is published to its subjects, and may rename it then; it may also copy from other streams.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xml_pipeline.mesh.errors import ConnectionDenied
from xml_pipeline.mesh.subject_patterns import common, holds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xml_pipeline.mesh.jetstream import JetStream

__all__ = ["Content", "content_of"]

_MOST_COPIES: Final = 8  # of copies of copies
_SHOWN: Final = 5
_ONE_TOKEN: Final = re.compile(r"\$\d+|\{\{\s*(wildcard|partition)\s*\([^()]*\)\s*\}\}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Messages of these subjects, but for those that are kept under another one."""

    subjects: tuple[str, ...]
    renamed: tuple[str, ...] = ()

    def within(self, pattern: str) -> _Kept:
        """Those of them that a pattern fits."""
        return _Kept(tuple(filter(None, (common(each, pattern) for each in self.subjects))), self.renamed)

    def __str__(self) -> str:
        text = _listed(self.subjects)
        return f"{text} without {_listed(self.renamed)}" if self.renamed else text


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a stream.

    Args:
        kept: for each of the ways by which messages come into it.
        is_all: whether there is no way that cannot be looked into from here.
    """

    kept: tuple[_Kept, ...]
    is_all: bool = True

    def holds(self, subject: str) -> bool:
        """Whether all that is published to the subject, which may have wildcards, is there under its own name."""
        return holds(
            [
                each
                for kept in self.kept
                if not any(common(renamed, subject) for renamed in kept.renamed)
                for each in kept.subjects
            ],
            subject,
        )

    def __str__(self) -> str:
        known = _listed([str(each) for each in self.kept if each.subjects])
        return known if self.is_all else f"{known or 'nothing of its own'}, and what it copies from elsewhere"


async def content_of(jetstream: JetStream, config: dict[str, Any], subject: str) -> Content:
    """What is in the stream of this configuration. Streams that it copies from are looked at only where they matter.

    Args:
        jetstream: where they are.
        config: of the stream.
        subject: that is asked about.

    Raises:
        MeshError: the server does not say what it copies from.
    """
    content = _own(config)
    return content if content.holds(subject) else await _all_of(jetstream, config, 0)


async def _all_of(jetstream: JetStream, config: dict[str, Any], depth: int) -> Content:
    content = _own(config)
    mirror = config.get("mirror")
    for source in [*([mirror] if mirror else []), *(config.get("sources") or [])]:
        copied = await _copied(jetstream, source, depth)
        content = Content(content.kept + copied.kept, content.is_all and copied.is_all)
    return content


def _own(config: dict[str, Any]) -> Content:
    subjects = tuple(config.get("subjects") or ())
    change = config.get("subject_transform")
    if not subjects or not change:
        return Content((_Kept(subjects),))
    return _renamed(_Kept(subjects), change.get("src") or ">", change.get("dest") or "")


def _renamed(kept: _Kept, source: str, target: str) -> Content:
    """What is kept where a part is renamed."""
    if target in ("", source) or not kept.within(source).subjects:
        return Content((kept,))
    rest = tuple(each for each in kept.subjects if not holds([source], each))
    left = (_Kept(rest, (*kept.renamed, source)),) if rest else ()
    made = _made(target)
    return Content((*left, _Kept((made,)))) if made else Content(left, is_all=False)


def _made(target: str) -> str:
    """The pattern of the names that a rule of renaming gives; empty where that cannot be told."""
    tokens = ["*" if _ONE_TOKEN.fullmatch(token) else token for token in target.split(".")]
    return "" if any("{" in token or "$" in token for token in tokens) else ".".join(tokens)


async def _copied(jetstream: JetStream, source: dict[str, Any], depth: int) -> Content:
    unknown = Content((), is_all=False)
    if source.get("external") or depth >= _MOST_COPIES:
        return unknown
    try:
        found = await jetstream.stream(str(source.get("name")))
    except ConnectionDenied:
        return unknown
    if found is None:
        return unknown
    origin = await _all_of(jetstream, found["config"], depth + 1)
    changes = source.get("subject_transforms") or [{"src": source.get("filter_subject") or ">"}]
    kept: list[_Kept] = []
    is_all = origin.is_all
    for change in changes:  # only what one of them fits is copied
        pattern, target = change.get("src") or ">", change.get("dest") or ""
        for each in origin.kept:
            part = each.within(pattern)
            content = _renamed(part, pattern, target) if part.subjects else Content(())
            kept += content.kept
            is_all = is_all and content.is_all
    return Content(tuple(kept), is_all)


def _listed(texts: Iterable[str]) -> str:
    texts = list(texts)
    return ", ".join(texts[:_SHOWN]) + (f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")
