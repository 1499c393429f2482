"""The errors of the codec.

    ValueError
    └── XError           a class the codec cannot map, or a value it cannot carry
        ├── Unresolved   an annotation names something that does not exist (yet)
        ├── EncodeError  a value that has no XML form
        └── DecodeError  XML or JSON that is no value of the class

An error begins where the trouble is and travels outwards; everyone it passes on its way prepends its own step
with `XError.at`. The text then reads ``Order.lines[3].price: found 'x', expected a decimal number``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, TypeVar

__all__ = [
    "DecodeError",
    "EncodeError",
    "Unresolved",
    "XError",
    "did_you_mean",
    "mismatch",
    "show",
    "unreadable",
    "unwritable",
]

_SHOWN = 60  # characters of a foreign value quoted in a message: enough to recognise it, too few to flood a log


class XError(ValueError):
    """A class cannot be mapped, or a value cannot be carried.

    Attributes:
        reason: what was found and what was expected.
        path: where, from the class name down to the field, as in ``Order.lines[3].price``; may be empty.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""

    def at(self, step: str) -> XError:
        """Prepend ``step`` (``"Order"``, ``".lines"`` or ``"[3]"``) to the path, and return the error itself."""
        self.path = step + self.path
        return self

    def __str__(self) -> str:
        where = self.path.removeprefix(".")
        return f"{where}: {self.reason}" if where else self.reason


class Unresolved(XError):
    """An annotation names something that does not exist; perhaps it does later."""


class EncodeError(XError):
    """A value has no XML form: a wrong type, a character XML cannot carry, a number without an end."""


class DecodeError(XError):
    """XML or JSON is no value of the class: an element missing, unknown or twice, a text of the wrong form."""


AnyXError = TypeVar("AnyXError", bound=XError)


def show(value: Any) -> str:
    """Quote ``value`` for a message, with its type, cut to a readable length."""
    text = repr(value)
    if len(text) > _SHOWN:
        text = text[:_SHOWN] + "..."
    return f"{text} ({type(value).__name__})"


def mismatch(kind: type[AnyXError], value: Any, expected: str) -> AnyXError:
    """Make the commonest error: ``value`` stands where ``expected`` should."""
    found = show(value) if kind is EncodeError or not isinstance(value, str) else show(value).removesuffix(" (str)")
    return kind(f"found {found}, expected {expected}")


def unwritable(error: Exception) -> EncodeError:
    """Translate what Python itself raises while a value is written."""
    if isinstance(error, RecursionError):
        return EncodeError("it is nested too deeply, or contains itself")
    return EncodeError(f"an attribute is missing: {error}")


def unreadable(error: RecursionError) -> DecodeError:
    """Translate what Python itself raises while a value is read."""
    return DecodeError("it is nested too deeply")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for a near miss, else the list of what is known."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    if not near:
        near = [candidate for candidate in names if candidate.lower() == name.lower()][:1]
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known are {', '.join(map(repr, names))}" if names else "; none is known here"
