"""The sequences that are under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from xml_pipeline.message_bus.join import Join
from xml_pipeline.primitives.handover import Handover
from xml_pipeline.runtime import current_runtime

__all__ = ["SequenceRegistry", "SequenceState", "get_sequence_registry", "reset_sequence_registry"]


@dataclass(slots=True, eq=False)
class SequenceState:
    """How far a sequence has come.

    Args:
        sequence_id: as the requester named it.
        steps: the listeners' names, in order.
        return_to: who gets the result.
        thread_id: the frame that it runs on.
        from_id: who asked for it.
        current_index: the step that is running, from 0.
        results: of the steps that have ended, in order.
        last_result: what the running step was given; at first the initial payload.
        failed: a step failed; no other runs.
        failed_step: its name.
        error: why.
    """

    sequence_id: str
    steps: list[str]
    return_to: str
    thread_id: str
    from_id: str
    current_index: int = 0
    results: list[Any] = field(default_factory=list)
    last_result: Any = None
    failed: bool = False
    failed_step: str | None = None
    error: str | None = None
    handover: Handover | None = field(default=None, repr=False)
    """What the requester handed over inside of the process."""
    join: Join | None = field(default=None, repr=False)
    """Its calls."""

    @property
    def is_complete(self) -> bool:
        """Whether all steps have ended well."""
        return not self.failed and self.current_index >= len(self.steps)

    @property
    def current_step(self) -> str | None:
        """The step that is running; ``None`` when none is."""
        return None if self.failed or self.is_complete else self.steps[self.current_index]

    @property
    def remaining_steps(self) -> list[str]:
        """The running step and those behind it."""
        return [] if self.failed else self.steps[self.current_index :]


class SequenceRegistry:
    """The sequences of one pump that are under way.

    Each is kept under a key of its own. Requesters' names for their sequences may be the same in two conversations;
    the pump keeps each sequence under the id of its frame.
    """

    def __init__(self) -> None:
        self._states: dict[str, SequenceState] = {}

    def create(
        self,
        sequence_id: str,
        steps: Sequence[str],
        return_to: str,
        thread_id: str,
        from_id: str,
        initial_payload: Any = "",
        *,
        key: str = "",
    ) -> SequenceState:
        """Keep a new sequence; see `SequenceState`.

        Args:
            key: what it is kept under; default: ``sequence_id``.

        Raises:
            ValueError: the key is taken.
        """
        key = key or sequence_id
        if key in self._states:
            raise ValueError(f"sequence {key!r} is under way already")
        state = SequenceState(sequence_id, list(steps), return_to, thread_id, from_id, last_result=initial_payload)
        self._states[key] = state
        return state

    def get(self, key: str) -> SequenceState | None:
        """The sequence kept under ``key``."""
        return self._states.get(key)

    def advance(self, key: str, step_result: Any) -> SequenceState | None:
        """The running step has ended well; returns the sequence, ``None`` if there is none."""
        state = self._states.get(key)
        if state is not None and not state.failed:
            state.results.append(step_result)
            state.last_result = step_result
            state.current_index += 1
        return state

    def mark_failed(self, key: str, step: str, error: str) -> SequenceState | None:
        """A step has failed; returns the sequence, ``None`` if there is none."""
        state = self._states.get(key)
        if state is not None:
            state.failed, state.failed_step, state.error = True, step, error
        return state

    def remove(self, key: str) -> bool:
        """Forget a sequence; returns whether there was one."""
        return self._states.pop(key, None) is not None

    def list_active(self) -> list[str]:
        """The keys of all sequences under way."""
        return list(self._states)

    def clear(self) -> None:
        """Forget all."""
        self._states.clear()

    def __len__(self) -> int:
        return len(self._states)


def get_sequence_registry() -> SequenceRegistry:
    """The sequence registry of the current pump."""
    return current_runtime().get(SequenceRegistry)


def reset_sequence_registry() -> None:
    """Forget all sequences of the current pump."""
    get_sequence_registry().clear()
