"""What a library must offer to be compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["NESTED", "SMALL", "Binding", "Rival"]

SMALL = b"<Ping><Text>" + b"x" * 48 + b"</Text><N>100000</N></Ping>"
"""A text and a number."""
_LINE = "<Line><Article>lamp {0}</Article><Quantity>{0}</Quantity><Price>12.50</Price></Line>"
NESTED = (
    "<Order><Number>10023</Number><Paid>true</Paid><Discount>0.25</Discount>"
    "<Customer><Name>Ada &amp; Sons</Name><City>London</City></Customer>"
    f"<Lines>{''.join(map(_LINE.format, range(1, 6)))}</Lines></Order>"
).encode()
"""A record in a record, and a list of five; texts, whole numbers, a truth value, decimals, a double."""


@dataclass(frozen=True, slots=True)
class Binding:
    """One document's class in one library.

    Args:
        read: from bytes to an object.
        write: from an object to bytes.
    """

    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes]


@dataclass(frozen=True, slots=True)
class Rival:
    """One library, or one way to use it."""

    name: str
    small: Binding
    nested: Binding
