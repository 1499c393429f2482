"""Several listeners' names in one text: separated by commas; a comma or backslash inside a name follows a backslash."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from xml_pipeline.primitives.fragments import check_fan_out, max_fan_out

__all__ = ["join_names", "read_steps", "split_names"]

_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)
_PART: Final = re.compile(r"((?:[^\\,]+|\\.)*)(?:,|\\?\Z)", re.DOTALL)


def split_names(text: str, at_most: int | None = None) -> list[str]:
    """The names in a text; white space around them, and empty ones, are left out.

    Args:
        text: e.g. ``"extract, translate, review"``.
        at_most: leave out all names behind so many, unread.
    """
    return list(islice(_names(text), at_most))


def read_steps(text: str) -> list[str]:
    """The steps that a request names, as `split_names`.

    Raises:
        ValidationError: they are more than ``max_fan_out``.
    """
    names = split_names(text, max_fan_out() + 1)
    check_fan_out(len(names), "steps")
    return names


def join_names(names: Iterable[str]) -> str:
    """The text that `split_names` makes these names of."""
    return ", ".join([name.replace("\\", "\\\\").replace(",", "\\,") for name in names])


def _names(text: str) -> Iterator[str]:
    has_special = "\\" in text
    parts = (match[1] for match in _PART.finditer(text)) if has_special else text.split(",")
    for part in parts:
        name = part.strip()
        if name:
            yield _ESCAPED.sub(r"\1", name) if has_special else name
