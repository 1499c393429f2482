"""What the bridge costs: at its edges, and between two organisms.

``edges`` compares an organism with what stands on the mesh without one, on one server and in one run; ``organisms``
compares the ways in which two organisms can speak with each other. Their docstrings say what is counted.
"""

from __future__ import annotations

from benchmarks.bridge import edges, organisms
from benchmarks.measure import Row
from benchmarks.size import Size

__all__ = ["rows"]


def rows(size: Size) -> list[Row]:
    """All of it."""
    return edges.rows(size) + organisms.rows(size)
