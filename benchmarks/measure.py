"""How a time becomes a row: interleaved rounds, and ratios within a round.

On a machine that others use too, a measurement of one second may be off by a third. What helps is to compare only what
was measured side by side. So each round measures every case once, and every baseline that the case is compared with
right before it and right after it; the ratio of the round is the case over the mean of the two. A row shows the median
of the ratios of all rounds, and the smallest and the largest, which tell how far to trust it.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Baselines", "Case", "Row", "Sample", "Spread", "Target", "run_rounds"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement.

    Args:
        value: in the case's unit.
        details: further figures of the same measurement, by name; their medians go into the row's note.
    """

    value: float
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest of several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value."""
        known = sorted(values)
        return cls(statistics.median(known), known[0], known[-1])


@dataclass(frozen=True, slots=True)
class Target:
    """What the project has promised about a figure.

    Args:
        limit: the promised bound.
        column: which ratio it is about; empty for the value itself.
        at_least: the bound is a lower one.
    """

    limit: float
    column: str = ""
    at_least: bool = False

    def is_met(self, row: Row) -> bool:
        """Whether the row's median keeps it."""
        figure = (row.ratios[self.column] if self.column else row.value).median
        return figure >= self.limit if self.at_least else figure <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Args:
        bench: the benchmark's name.
        case: what was measured.
        value: in ``unit``.
        unit: of the value.
        ratios: the value over a baseline's, by column.
        target: what was promised about it.
        note: whatever else the reader should know.
    """

    bench: str
    case: str
    value: Spread
    unit: str = "us"
    ratios: Mapping[str, Spread] = field(default_factory=dict)
    target: Target | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """Something to measure in rounds.

    Args:
        bench: the benchmark's name.
        name: what is measured.
        measure: measures it once, warmed up, and returns the value in ``unit``.
        against: the baselines to compare with: column of the table -> name of the baseline.
        target: what was promised about it.
        unit: of the value.
        note: for the row.
    """

    bench: str
    name: str
    measure: Callable[[], Sample]
    against: Mapping[str, str] = field(default_factory=dict)
    target: Target | None = None
    unit: str = "us"
    note: str = ""


Baselines = Mapping[str, Callable[[], Sample]]
"""What cases are compared with, by name."""


def run_rounds(
    cases: list[Case], baselines: Baselines, rounds: int, progress: Callable[[str], None] = lambda text: None
) -> list[Row]:
    """Measure all cases ``rounds`` times, in turn, and return one row for each.

    Args:
        cases: what to measure.
        baselines: must have every name that the cases refer to.
        rounds: how often.
        progress: told what is being measured.
    """
    values: list[list[Sample]] = [[] for _ in cases]
    ratios: list[dict[str, list[float]]] = [{column: [] for column in case.against} for case in cases]
    fresh: dict[str, float] = {}
    for number in range(1, rounds + 1):
        for index, case in enumerate(cases):
            progress(f"round {number} of {rounds}: {case.bench}, {case.name}")
            names = dict.fromkeys(case.against.values())
            # What was measured right after the case before this one was measured right before this one.
            before = {name: fresh.get(name) or _once(baselines[name]).value for name in names}
            sample = _once(case.measure)
            fresh = {name: _once(baselines[name]).value for name in names}
            values[index].append(sample)
            for column, name in case.against.items():
                ratios[index][column].append(2 * sample.value / (before[name] + fresh[name]))
    return [_row(case, *measured) for case, *measured in zip(cases, values, ratios, strict=True)]


def _once(measure: Callable[[], Sample]) -> Sample:
    gc.collect()  # one case does not pay for the garbage of another
    return measure()


def _row(case: Case, samples: list[Sample], ratios: dict[str, list[float]]) -> Row:
    details = samples[0].details
    medians = {name: statistics.median(sample.details[name] for sample in samples) for name in details}
    note = ", ".join([f"{name} {median:,.0f}" for name, median in medians.items()] + [case.note] * bool(case.note))
    return Row(
        case.bench,
        case.name,
        Spread.of(sample.value for sample in samples),
        case.unit,
        {column: Spread.of(values) for column, values in ratios.items()},
        case.target,
        note,
    )
