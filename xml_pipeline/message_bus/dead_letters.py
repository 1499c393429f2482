"""`DeadLetters`: messages that failed while nobody was waiting for them, kept for an operator to look at and retry."""

from __future__ import annotations

import builtins
import inspect
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DeadLetter", "DeadLetters", "Resend"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that failed.

    Args:
        id: a UUID.
        wire: the envelope, as bytes: canonical if it got that far, else as it came.
        target: the listener it was for; empty if that never became known.
        from_id: who sent it.
        thread_id: the frame it was on.
        conversation_id: the conversation.
        code: the error code; see ``errors``.
        detail: the first cause, for the operator.
        step: the pipeline step or component that found it.
        time: when it failed, in seconds since the epoch.
        attempts: how many retries it has seen.
        routing_table: the peer table of the conversation, which a retry is held to, too.
    """

    id: str
    wire: bytes
    target: str
    from_id: str
    thread_id: str
    conversation_id: str
    code: str
    detail: str = ""
    step: str = ""
    time: float = 0.0
    attempts: int = 0
    routing_table: str | None = None


Resend = Callable[[DeadLetter], "str | Awaitable[str]"]
"""Puts a dead letter's message back into a pump and returns its new thread id. Raises if the pump refuses it."""


class DeadLetters:
    """A bounded store of `DeadLetter`, oldest first. When it is full, the oldest is dropped and counted.

    Args:
        capacity: most letters kept; 0 keeps none.
        max_bytes: most bytes kept, counting each letter's message and detail.
        resend: what `retry` uses; may be set later as an attribute.

    Raises:
        ValueError: a limit is negative.
    """

    def __init__(self, capacity: int = 1_000, max_bytes: int = 67_108_864, *, resend: Resend | None = None) -> None:
        if capacity < 0 or max_bytes < 0:
            raise ValueError(f"limits must not be negative: capacity={capacity}, max_bytes={max_bytes}")
        self.capacity = capacity
        self.max_bytes = max_bytes
        self.resend = resend
        self.dropped = 0
        """How many letters were dropped because the store was full."""
        self.total_bytes = 0
        self._letters: dict[str, DeadLetter] = {}
        self._retrying: set[str] = set()

    def add(
        self,
        *,
        wire: bytes,
        target: str,
        from_id: str,
        thread_id: str,
        conversation_id: str,
        code: str,
        detail: str = "",
        step: str = "",
        attempts: int = 0,
        routing_table: str | None = None,
    ) -> DeadLetter:
        """Keep a message that failed; see `DeadLetter` for the arguments.

        Returns:
            The letter, with its id and time. It may be gone already, if it alone exceeds the limits.
        """
        letter = DeadLetter(
            id=str(uuid.uuid4()),
            wire=wire,
            target=target,
            from_id=from_id,
            thread_id=thread_id,
            conversation_id=conversation_id,
            code=code,
            detail=detail,
            step=step,
            time=time.time(),
            attempts=attempts,
            routing_table=routing_table,
        )
        self._letters[letter.id] = letter
        self.total_bytes += _size(letter)
        while len(self._letters) > self.capacity or self.total_bytes > self.max_bytes:
            self._remove(next(iter(self._letters)))
            self.dropped += 1
        return letter

    def get(self, letter_id: str) -> DeadLetter:
        """The letter with this id.

        Raises:
            KeyError: there is none (any more).
        """
        try:
            return self._letters[letter_id]
        except KeyError:
            raise KeyError(
                f"no dead letter {letter_id!r}: it was retried or cleared, or dropped because newer ones came"
            ) from None

    async def retry(self, letter_id: str) -> str:
        """Put a letter's message back into the pump. The letter is removed once the pump has accepted the message.

        The pump judges it like any other message; if it fails again, that makes a new letter.

        Args:
            letter_id: the letter.

        Returns:
            The id of the thread it runs on now.

        Raises:
            KeyError: there is no such letter.
            RuntimeError: the store has no pump, or this letter is being retried at this moment.
            PipelineError: the pump refused the message. The letter is kept, with one more attempt.
        """
        letter = self.get(letter_id)
        if self.resend is None:
            raise RuntimeError("these dead letters belong to no running pump, so nothing can be retried")
        if letter_id in self._retrying:
            raise RuntimeError(f"dead letter {letter_id!r} is being retried already")
        letter = replace(letter, attempts=letter.attempts + 1)
        self._retrying.add(letter_id)
        try:
            accepted = self.resend(letter)
            thread_id = await accepted if inspect.isawaitable(accepted) else accepted
        except BaseException:
            if letter_id in self._letters:
                self._letters[letter_id] = letter
            raise
        finally:
            self._retrying.discard(letter_id)
        self._remove(letter_id)
        return thread_id

    def clear(self) -> int:
        """Forget all letters; returns how many there were."""
        count = len(self._letters)
        self._letters.clear()
        self.total_bytes = 0
        return count

    def _remove(self, letter_id: str) -> None:
        letter = self._letters.pop(letter_id, None)
        if letter is not None:
            self.total_bytes -= _size(letter)

    def __len__(self) -> int:
        return len(self._letters)

    def __iter__(self) -> Iterator[DeadLetter]:
        """Over a copy, oldest first."""
        return iter(tuple(self._letters.values()))

    def __contains__(self, letter_id: object) -> bool:
        return letter_id in self._letters

    def list(self) -> builtins.list[DeadLetter]:
        """All letters, oldest first."""
        return builtins.list(self._letters.values())


def _size(letter: DeadLetter) -> int:
    return len(letter.wire) + len(letter.detail)
