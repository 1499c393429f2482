"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "TINY", "Size"]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured.

    Args:
        name: shown with the results.
        rounds: how often each case is measured.
        loops: messages of one measurement of a floor, or of the codec.
        conversations: of one measurement of the pump.
        naive_conversations: of one measurement of the naive shape, which takes twenty times as long.
        warm_up: conversations before each measurement.
        memory: numbers of finished conversations after which memory is looked at, rising.
        retention: conversations whose history is watched until it is gone.
        flood: messages sent to the slow agent.
        probes: messages whose latency is measured.
        probe_pause: seconds between them.
        agent_seconds: how long the slow agent takes.
    """

    name: str
    rounds: int
    loops: int
    conversations: int
    naive_conversations: int
    warm_up: int
    memory: tuple[int, ...]
    retention: int
    flood: int
    probes: int
    probe_pause: float
    agent_seconds: float


FULL = Size("full", 7, 4_000, 4_000, 300, 500, (10_000, 100_000, 1_000_000), 5_000, 10_000, 1_000, 0.002, 0.1)
QUICK = Size("quick", 3, 1_500, 1_000, 100, 200, (2_000, 10_000, 50_000), 1_000, 2_000, 300, 0.002, 0.1)
TINY = Size("tiny", 1, 20, 25, 25, 10, (20, 40), 20, 30, 10, 0.0, 0.001)
"""For the tests: it runs everything, and measures nothing worth knowing."""
