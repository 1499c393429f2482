"""Whether a pump's books say what they should after a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from xml_pipeline import StreamPump

__all__ = ["Books"]


class Books:
    """What a pump has counted since this was made.

    Args:
        pump: an idle pump.
    """

    def __init__(self, pump: StreamPump) -> None:
        self._pump = pump
        self._before = pump.statistics()

    def check(self, outcomes: Mapping[str, int]) -> None:
        """Raise `AssertionError` unless exactly these outcomes were counted, and nothing is left."""
        now, before = self._pump.statistics(), self._before
        counted = Counter({str(name): count for name, count in now.outcomes.items()})
        counted.subtract({str(name): count for name, count in before.outcomes.items()})
        found = {name: count for name, count in counted.items() if count}
        if found != dict(outcomes):
            raise AssertionError(f"outcomes {found}, not {dict(outcomes)}")
        accepted, expected = now.accepted - before.accepted, sum(outcomes.values())
        if accepted != expected:
            raise AssertionError(f"{accepted} messages were accepted, not {expected}")
        left = (now.in_flight, now.queued, now.running, now.waiting, now.dead_letters)
        if any(left):
            raise AssertionError(f"in flight, queued, running, waiting, dead letters: {left}")
        if (now.open_conversations, now.open_frames) != (before.open_conversations, before.open_frames):
            raise AssertionError(f"{now.open_conversations} conversations and {now.open_frames} frames are open")
