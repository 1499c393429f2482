"""Keys and subjects with holes: ``pipeline.{id}.raw``.

Outwards a hole is filled from a field of the payload; inwards the part of the key that stands there fills the field.
What fills a hole is one segment, so that nothing in a payload can reach another key than its author meant.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Final

from xml_pipeline.errors import ValidationError

__all__ = ["Template"]

_HOLE: Final = re.compile(r"\{([^\W\d]\w*)\}")
_SEGMENT: Final = re.compile(r"[a-zA-Z0-9_=-]+")


class Template:
    """A key or subject with holes.

    Args:
        text: segments joined by dots, with no hole of the same field twice; inwards ``*`` and ``>`` are wildcards.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.fields = _HOLE.findall(text)
        parts, last = [], 0
        for hole in _HOLE.finditer(text):
            parts += [_pattern(text[last : hole.start()]), rf"(?P<{hole[1]}>[^.]+)"]
            last = hole.end()
        self._match = re.compile("".join([*parts, _pattern(text[last:])]))

    @property
    def pattern(self) -> str:
        """What to follow: a segment with a hole is ``*``."""
        return ".".join("*" if _HOLE.search(segment) else segment for segment in self.text.split("."))

    def fill(self, payload: Any) -> str:
        """The key for a payload.

        Raises:
            ValidationError: a field is absent, or its value is not letters, digits, ``_``, ``-`` and ``=``.
        """
        return _HOLE.sub(lambda hole: self._value(payload, hole[1]), self.text)

    def _value(self, payload: Any, field: str) -> str:
        value = getattr(payload, field, None)
        text = str(value.value if isinstance(value, Enum) else value)
        if value is None or isinstance(value, bool | bytes | float) or _SEGMENT.fullmatch(text) is None:
            raise ValidationError(
                f"{self.text!r} needs a field {field!r} of letters, digits, '_' and '-', not {value!r:.80}", step="mesh"
            )
        return text

    def values(self, key: str) -> dict[str, str] | None:
        """What stands in the holes of a key; ``None`` if it does not fit."""
        found = self._match.fullmatch(key)
        return None if found is None else found.groupdict()


def _pattern(text: str) -> str:
    return re.escape(text).replace(r"\*", "[^.]+").replace(">", ".+")
