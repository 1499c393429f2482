"""All benchmarks by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from benchmarks import bridge, codec, fairness, floor, memory, mesh, naive, orchestration, pump, signing, steps
from benchmarks.measure import Baselines, Case, Row, run_rounds
from benchmarks.size import Size

__all__ = ["NAMES", "resized", "run"]

_CASES: dict[str, Callable[[Size], list[Case]]] = {
    "floor": floor.cases,
    "steps": steps.cases,
    "naive": naive.cases,
    "pump": pump.cases,
    "codec": codec.cases,
    "orchestration": orchestration.cases,
    "signing": signing.cases,
}
"""Measured in rounds, together."""
_ROWS: dict[str, Callable[[Size], list[Row]]] = {
    "memory": memory.rows,
    "fairness": fairness.rows,
    "mesh": mesh.rows,
    "bridge": bridge.rows,
}
"""Measured in their own way, one after the other."""

NAMES = (*_CASES, *_ROWS)


def resized(size: Size, rounds: int | None) -> Size:
    """The size with another number of rounds, if one is given."""
    return size if rounds is None else dataclasses.replace(size, rounds=rounds)


def run(names: Iterable[str], size: Size, progress: Callable[[str], None] = lambda text: None) -> list[Row]:
    """Run benchmarks.

    Args:
        names: which, of `NAMES`.
        size: how much of each.
        progress: told what is being measured.

    Returns:
        Rows, in the order of `NAMES`.
    """
    chosen = set(names)
    cases = [case for name, make in _CASES.items() if name in chosen for case in make(size)]
    rows = run_rounds(cases, _baselines(size), size.rounds, progress)
    for name, measure in _ROWS.items():
        if name in chosen:
            progress(name)
            rows += measure(size)
    return rows


def _baselines(size: Size) -> Baselines:
    modules = (floor, steps, pump, codec, orchestration, signing)
    return {name: measure for module in modules for name, measure in module.baselines(size).items()}
