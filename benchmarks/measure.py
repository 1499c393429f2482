"""How a time becomes a row: processor time, interleaved rounds, and ratios within a round.

What is timed here never waits for anything but the processor, so its cost is the processor time of this process, user
and system together: on a machine that others use too, that scatters by a few per cent, where the clock on the wall is
off by a factor of two. The wall's time of the same measurement stands beside it; on a quiet machine they are equal.
Latencies are always the wall's.

What is compared was measured side by side. Each round measures every case once, and every baseline that the case is
compared with right before it and right after it; the ratio of the round is the case over the mean of the two. A row
shows the median of the ratios of all rounds, and the smallest and the largest, which tell how far to trust it.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import perf_counter, process_time

__all__ = ["Baselines", "Case", "Row", "Sample", "Spread", "Stopwatch", "Target", "run_rounds"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement.

    Args:
        value: in the case's unit; if that is microseconds, of processor time.
        wall: the same by the clock on the wall; 0 where it means nothing.
        details: further figures of the same measurement, by name; their medians go into the row's note.
    """

    value: float
    wall: float = 0.0
    details: Mapping[str, float] = field(default_factory=dict)


class Stopwatch:
    """Starts when it is made."""

    def __init__(self) -> None:
        self._wall = perf_counter()
        self._processor = process_time()

    def sample(self, messages: int) -> Sample:
        """Microseconds per message since the start."""
        processor = process_time() - self._processor
        return Sample(processor / messages * 1e6, (perf_counter() - self._wall) / messages * 1e6)


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
        wall: the median by the clock on the wall; 0 where it means nothing.
        ratios: the value over a baseline's, by column.
        target: what was promised about it.
        note: whatever else the reader should know.
    """

    bench: str
    case: str
    value: Spread
    unit: str = "us"
    wall: float = 0.0
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
    return [_row(*measured) for measured in zip(cases, values, ratios, strict=True)]


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
        statistics.median(sample.wall for sample in samples),
        {column: Spread.of(values) for column, values in ratios.items()},
        case.target,
        note,
    )
