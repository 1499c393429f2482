"""Plain text in, plain text out."""

from __future__ import annotations

from dataclasses import dataclass

from third_party.xmlable import xmlify

__all__ = ["TextInput", "TextOutput"]


@xmlify
@dataclass(frozen=True, slots=True)
class TextInput:
    """Something somebody said.

    Args:
        text: what.
        source: where it came in, e.g. ``console``.
        user: who said it.
    """

    text: str
    source: str = "console"
    user: str = ""


@xmlify
@dataclass(frozen=True, slots=True)
class TextOutput:
    """Something to show.

    Args:
        text: what.
        status: ``ok``, or a word for what went wrong.
    """

    text: str
    status: str = "ok"
