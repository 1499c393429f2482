"""What a model calls its tools by.

Listeners may have any name; a tool's has 1 to 64 of the characters ``A-Z a-z 0-9 _ -``. So what else is in a listener's
name becomes an underscore, and where this says too little, some digits of a hash are put behind:

=========================== =================== =======================================================================
listener                    tool
=========================== =================== =======================================================================
``calculator``              ``calculator``      a name that needs no change is left as it is
``tools.web search``        ``tools_web_search``
``café``                    ``cafe``            accents are left out
``журнал``                  ``peer_f31be1e8``   letters of other alphabets are lost: the hash stands for them
``a.b``, ``a b``            ``a_b_b3dcef57``,   two that would be the same
                            ``a_b_dfa58307``
``system.todo`` of several  ``system_todo_``    the class is part of the name of each
classes                     ``TodoUntil``
=========================== =================== =======================================================================
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["RESPOND", "ToolKey", "ToolNames", "tool_name_like"]

RESPOND: Final = "respond"
"""The tool by which a model gives an answer that is not plain text. No peer is called so."""

_LONGEST: Final = 64
_DIGITS: Final = 8
_WHOLE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OTHERS: Final = re.compile(r"[^A-Za-z0-9_-]+")
_NAMELESS: Final = "peer"


@dataclass(frozen=True, slots=True)
class ToolKey:
    """What one tool stands for.

    Args:
        listener: the listener's or group's name.
        element: the class of the payload, where the listener takes several; else empty.
    """

    listener: str
    element: str = ""

    @property
    def text(self) -> str:
        """Both, for people."""
        return f"{self.listener}_{self.element}" if self.element else self.listener


class ToolNames:
    """Names tools, and remembers: within one dialogue a name never changes its meaning, whatever becomes of peers."""

    def __init__(self) -> None:
        self._names: dict[ToolKey, str] = {}
        self._taken = {RESPOND}

    def of(self, keys: Iterable[ToolKey]) -> dict[ToolKey, str]:
        """The names of ``keys``, in their order; all different, also when case is ignored."""
        wanted = list(dict.fromkeys(keys))
        new = [key for key in wanted if key not in self._names]
        plain = {key: _plain(key.text) for key in new}
        often = Counter(name.lower() for name in plain.values())
        for key in sorted(new, key=lambda key: plain[key] != key.text):  # names that need no change come first
            name = plain[key]
            changed = name != key.text
            ambiguous = changed and (often[name.lower()] > 1 or _says_too_little(key.text))
            if ambiguous or name.lower() in self._taken or len(name) > _LONGEST:
                name = self._hashed(key, name)
            self._names[key] = name
            self._taken.add(name.lower())
        return {key: self._names[key] for key in wanted}

    def _hashed(self, key: ToolKey, name: str) -> str:
        # A lone surrogate cannot be in a name that XML carries, but this need not be where that is found out.
        digest = hashlib.sha256(f"{key.listener}\0{key.element}".encode("utf-8", "surrogatepass")).hexdigest()
        for digits in range(_DIGITS, len(digest) - 1):
            candidate = f"{name[: _LONGEST - digits - 1]}_{digest[:digits]}"
            if candidate.lower() not in self._taken:
                return candidate
        raise ValueError(f"no tool name is left for {key.text!r}")


def tool_name_like(name: str) -> str:
    """What a model called, in a form that can be told to a model again; providers refuse other names."""
    return name if _WHOLE.fullmatch(name) else _OTHERS.sub("_", name)[:_LONGEST] or "_"


def _plain(text: str) -> str:
    if _WHOLE.fullmatch(text):
        return text
    return _OTHERS.sub("_", _without_accents(text)).strip("_") or _NAMELESS


def _says_too_little(text: str) -> bool:
    """Whether letters or digits get lost, or nothing is left."""
    shown = _without_accents(text)
    return not _OTHERS.sub("", shown).strip("_") or any(char.isalnum() and not char.isascii() for char in shown)


def _without_accents(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
