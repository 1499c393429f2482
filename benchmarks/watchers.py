"""An event subscriber and a dispatch hook that do next to nothing but count."""

from __future__ import annotations

from typing import Any

from xml_pipeline import StreamPump

__all__ = ["EventCounter", "HookCounter"]


class EventCounter:
    """Subscribes to events, and counts them by kind."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._last = 0
        self._lost = 0

    def __call__(self, event: Any) -> None:
        name = type(event).__name__
        self._seen[name] = self._seen.get(name, 0) + 1

    def reset(self) -> None:
        """Begin to count anew."""
        self._seen.clear()

    def check(self, pump: StreamPump, messages: int) -> int:
        """How many there were. Raises `AssertionError` unless every message's outcome was among them."""
        dropped = pump.statistics().dropped_events
        if dropped:
            raise AssertionError(f"the subscriber lost {dropped} events")
        if self._seen.get("OutcomeEvent") != messages:
            raise AssertionError(f"{self._seen.get('OutcomeEvent')} outcomes were told, not {messages}")
        return sum(self._seen.values())


class HookCounter:
    """A dispatch hook with all of its methods."""

    def __init__(self) -> None:
        self._intents = 0
        self._ended = 0

    async def on_intent(
        self, *, thread_id: str, from_id: str, to_id: str, payload_type: str, payload_bytes: bytes
    ) -> str:
        """Count, and give an id."""
        self._intents += 1
        return str(self._intents)

    async def on_dispatched(self, entry_id: str) -> None:
        """Nothing."""

    async def on_acknowledged(self, entry_id: str) -> None:
        """Count."""
        self._ended += 1

    async def on_failed(self, entry_id: str, error: str) -> None:
        """Nothing here may fail, so it is not counted: `check` will say so."""

    async def on_thread_complete(self, thread_id: str) -> None:
        """Nothing."""

    def check(self, at_least: int) -> None:
        """Raise `AssertionError` unless every intent was acknowledged, and there were enough."""
        if self._intents != self._ended or self._intents < at_least:
            raise AssertionError(f"{self._intents} intents, {self._ended} acknowledged")
