"""What a proof has found out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Figure", "broken", "count", "line_of", "seconds", "spread"]


@dataclass(frozen=True)
class Figure:
    """One figure, and what is promised of it.

    Args:
        what: of what.
        value: the figure.
        unit: of the value.
        exactly: what it has to be; ``None`` for nothing in particular.
        most: what it may be at most.
        least: what it has to be at least.
        is_time: whether it says something of the machine, too; the suite does not check those.
        note: more about it.
    """

    what: str
    value: float
    unit: str = ""
    exactly: float | None = None
    most: float | None = None
    least: float | None = None
    is_time: bool = False
    note: str = ""

    @property
    def is_kept(self) -> bool:
        """Whether what was promised is so."""
        if self.exactly is not None and self.value != self.exactly:
            return False
        if self.most is not None and self.value > self.most:
            return False
        return self.least is None or self.value >= self.least

    @property
    def promise(self) -> str:
        """What was promised, in short."""
        bounds = (("", self.exactly), ("at most ", self.most), ("at least ", self.least))
        return ", ".join(f"{word}{_number(bound)}" for word, bound in bounds if bound is not None)


def count(what: str, value: float, exactly: float | None = None, **more: object) -> Figure:
    """How many."""
    return Figure(what, value, exactly=exactly, **more)  # type: ignore[arg-type]


def seconds(what: str, value: float, most: float | None = None, note: str = "") -> Figure:
    """How long something took."""
    return Figure(what, value, "s", most=most, is_time=True, note=note)


def spread(what: str, times: Iterable[float], most: float | None = None) -> Figure:
    """The longest of several times, with the others in the note."""
    found = sorted(times)
    if not found:
        return Figure(what, float("inf"), "s", most=most, note="never measured")
    parts = ((0, "least"), (len(found) // 2, "median"), (len(found) * 9 // 10, "nine in ten"))
    note = ", ".join(f"{word} {found[index]:.3f}" for index, word in parts)
    return seconds(what, found[-1], most, f"of {len(found)}: {note}")


def broken(figures: Iterable[Figure]) -> list[Figure]:
    """Those that are not as promised, times aside."""
    return [figure for figure in figures if not figure.is_kept and not figure.is_time]


def line_of(figure: Figure) -> str:
    """As it is printed."""
    value = f"{_number(figure.value)} {figure.unit}".strip()
    promise = f"({figure.promise})" if figure.promise else ""
    words = f"  {'' if figure.is_kept else 'BROKEN '}{figure.what}: {value} {promise}".rstrip()
    return f"{words}; {figure.note}" if figure.note else words


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"
