"""`ThreadBudgetRegistry`: how many tokens each conversation may still use.

A budget belongs to a conversation: all its frames share it, whichever of their ids one asks with. Whoever calls a model
*reserves* what the call may take, makes it, and then *settles* what it really took::

    with get_budget_registry().reserve(metadata.thread_id, 1_200) as reservation:
        response = await call()                       # refused above, if there is not so much left
        reservation.settle(response.prompt_tokens, response.completion_tokens)

Between check and reservation nothing else can run, so calls made in parallel cannot overrun a budget together. A call
that fails leaves the ``with`` block without having settled, and its reservation is given back.

Budgets end with their conversation. Of those whose id belongs to no open conversation the registry keeps the
`MAX_STRAYS` used last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from xml_pipeline.message_bus.budget import (
    DEFAULT_WARNING_THRESHOLDS,
    BudgetExhaustedError,
    BudgetThresholdCrossed,
    ThreadBudget,
    whole_number,
)
from xml_pipeline.runtime import current_runtime

__all__ = [
    "DEFAULT_WARNING_THRESHOLDS",
    "MAX_STRAYS",
    "BudgetExhaustedError",
    "BudgetThresholdCrossed",
    "Reservation",
    "ThreadBudget",
    "ThreadBudgetRegistry",
    "configure_budget_registry",
    "get_budget_registry",
    "reset_budget_registry",
]

MAX_STRAYS: Final = 10_000
"""Budgets of ids that no open conversation is known for."""


class Reservation:
    """Tokens set aside for one model call. Made by `ThreadBudgetRegistry.reserve`; ends once, by whichever comes first
    of `settle`, `release` and the end of its ``with`` block; what comes later does nothing.

    It may outlive its conversation: then it settles what nobody looks at any more.

    Attributes:
        thread_id: the id that it was reserved with.
        tokens: how many.
    """

    __slots__ = ("_budget", "thread_id", "tokens")

    def __init__(self, budget: ThreadBudget, thread_id: str, tokens: int) -> None:
        self._budget: ThreadBudget | None = budget
        self.thread_id = thread_id
        self.tokens = tokens
        budget.reserved += tokens

    @property
    def is_open(self) -> bool:
        """Whether the tokens are still set aside."""
        return self._budget is not None

    def settle(self, prompt_tokens: int, completion_tokens: int = 0) -> list[BudgetThresholdCrossed]:
        """The call was made: count what it really took, and give back the rest.

        Args:
            prompt_tokens: tokens sent.
            completion_tokens: tokens that came back.

        Returns:
            The thresholds reached by it, for whoever warns the calling agent: see `primitives.warn_of_budget`.

        Raises:
            TypeError: a number is not an int; the reservation stays.
            ValueError: a number is negative; the reservation stays.
        """
        budget = self._budget
        if budget is None:
            return []
        budget.consume(prompt_tokens, completion_tokens)
        self.release()
        return budget.check_thresholds()

    def release(self) -> None:
        """The call was not made, or took nothing: give everything back."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.reserved -= self.tokens

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Reservation of {self.tokens} tokens for {self.thread_id}{'' if self.is_open else ', ended'}>"


class ThreadBudgetRegistry:
    """The budgets of one pump. Use it from one thread.

    Args:
        max_tokens_per_thread: tokens of a conversation that has no limit of its own.
        conversation_of: gives the id of the open conversation that a thread id belongs to, or ``None``. By default no
            conversation is known, and every id has a budget of its own.

    Raises:
        TypeError: ``max_tokens_per_thread`` is not an int.
        ValueError: it is negative.
    """

    def __init__(
        self,
        max_tokens_per_thread: int = 100_000,
        *,
        conversation_of: Callable[[str], str | None] = lambda thread_id: None,
    ) -> None:
        self._max_tokens = self._first_max_tokens = whole_number("max_tokens_per_thread", max_tokens_per_thread)
        self._conversation_of = conversation_of
        self._budgets: dict[str, ThreadBudget] = {}
        self.known: Mapping[str, ThreadBudget] = self._budgets
        """By conversation, or by the id that somebody gave."""
        self._strays: OrderedDict[str, None] = OrderedDict()
        """Keys of budgets without an open conversation, the one used longest ago in front."""

    # -- limits -------------------------------------------------------------------------------------------------

    @property
    def max_tokens_per_thread(self) -> int:
        """Tokens of a conversation that has no limit of its own."""
        return self._max_tokens

    def configure(self, max_tokens_per_thread: int) -> None:
        """Set `max_tokens_per_thread`. Budgets that exist are not changed.

        Raises:
            TypeError: it is not an int.
            ValueError: it is negative.
        """
        self._max_tokens = whole_number("max_tokens_per_thread", max_tokens_per_thread)

    def set_limit(self, thread_id: str, max_tokens: int) -> ThreadBudget:
        """Give one conversation a limit of its own, now or before it begins; what it has used stays used.

        Args:
            thread_id: of any of its frames, or its own.
            max_tokens: tokens that it may use in all.

        Returns:
            Its budget.

        Raises:
            TypeError: ``max_tokens`` is not an int.
            ValueError: it is negative.
        """
        whole_number("max_tokens", max_tokens)
        budget = self.get_budget(thread_id)
        budget.max_tokens = max_tokens
        return budget

    # -- spending -----------------------------------------------------------------------------------------------

    def reserve(self, thread_id: str, tokens: int) -> Reservation:
        """Set tokens aside for a model call that is about to be made.

        Args:
            thread_id: of any frame of the conversation, e.g. ``metadata.thread_id``, or its own.
            tokens: what the call may take, prompt and answer together.

        Raises:
            BudgetExhaustedError: the budget is used up, or has no room for so many; nothing is set aside.
            TypeError: ``tokens`` is not an int.
            ValueError: it is negative.
        """
        return Reservation(self._room_for(thread_id, tokens), thread_id, tokens)

    def check_budget(self, thread_id: str, estimated_tokens: int = 0) -> bool:
        """``True`` if `reserve` would set so many tokens aside. It says nothing about the moment after.

        Raises:
            BudgetExhaustedError: it would not.
            TypeError: ``estimated_tokens`` is not an int.
            ValueError: it is negative.
        """
        self._room_for(thread_id, estimated_tokens)
        return True

    def consume(
        self, thread_id: str, prompt_tokens: int = 0, completion_tokens: int = 0
    ) -> tuple[ThreadBudget, list[BudgetThresholdCrossed]]:
        """Count a model call that was made without a reservation, whether or not it fits in.

        Returns:
            The budget, and the thresholds reached by this call.

        Raises:
            TypeError: a number is not an int.
            ValueError: a number is negative.
        """
        budget = self.get_budget(thread_id)
        budget.consume(prompt_tokens, completion_tokens)
        return budget, budget.check_thresholds()

    def _room_for(self, thread_id: str, tokens: int) -> ThreadBudget:
        whole_number("tokens", tokens)
        budget = self.get_budget(thread_id)
        if budget.is_exhausted or not budget.can_consume(tokens):
            raise BudgetExhaustedError(
                thread_id, budget.total_tokens, budget.max_tokens, reserved=budget.reserved, requested=tokens
            )
        return budget

    # -- looking ------------------------------------------------------------------------------------------------

    def get_budget(self, thread_id: str) -> ThreadBudget:
        """The budget of the conversation that an id belongs to; the first call makes it.

        Raises:
            TypeError: the id is not a string.
        """
        conversation_id = self._known(thread_id)
        key = thread_id if conversation_id is None else conversation_id
        budget = self._budgets.get(key)
        if budget is None:
            budget = self._budgets[key] = ThreadBudget(self._max_tokens)
        if conversation_id is None:
            self._stray(key)
        elif key in self._strays:
            del self._strays[key]  # its limit was set before it began
        return budget

    def has_budget(self, thread_id: str) -> bool:
        """Whether there is a budget for this id; asking makes none."""
        return self._key(thread_id) in self._budgets

    def get_usage(self, thread_id: str) -> dict[str, int] | None:
        """`ThreadBudget.usage` of this id; ``None`` if it has no budget."""
        budget = self._budgets.get(self._key(thread_id))
        return None if budget is None else budget.usage()

    def get_all_usage(self) -> dict[str, dict[str, int]]:
        """`ThreadBudget.usage` by conversation id."""
        return {key: budget.usage() for key, budget in self._budgets.items()}

    # -- ending -------------------------------------------------------------------------------------------------

    def reset_thread(self, thread_id: str) -> None:
        """Forget what a conversation has used. Its limit, and what is reserved, stay; an unknown id is left alone."""
        budget = self._budgets.get(self._key(thread_id))
        if budget is not None:
            budget.reset()

    def cleanup_thread(self, thread_id: str) -> ThreadBudget | None:
        """Forget a conversation's budget; the pump does so when the conversation is complete.

        Returns:
            The budget as it was left, or ``None`` if there is none.
        """
        key = self._key(thread_id)
        self._strays.pop(key, None)
        return self._budgets.pop(key, None)

    def clear(self) -> None:
        """Forget all budgets; `max_tokens_per_thread` stays."""
        self._budgets.clear()
        self._strays.clear()

    def reset(self) -> None:
        """Forget all budgets, and what `configure` said."""
        self.clear()
        self._max_tokens = self._first_max_tokens

    # -- keys ---------------------------------------------------------------------------------------------------

    def _known(self, thread_id: str) -> str | None:
        if not isinstance(thread_id, str):
            raise TypeError(f"a thread id must be a string, not {type(thread_id).__name__}")
        return self._conversation_of(thread_id)

    def _key(self, thread_id: str) -> str:
        conversation_id = self._known(thread_id)
        return thread_id if conversation_id is None else conversation_id

    def _stray(self, key: str) -> None:
        strays = self._strays
        strays[key] = None
        strays.move_to_end(key)
        while len(strays) > MAX_STRAYS:
            # A budget with calls under way would come back empty, and be spent twice.
            idle = next((other for other in strays if not self._budgets[other].reserved), key)
            if idle == key:
                return
            del strays[idle], self._budgets[idle]


def get_budget_registry() -> ThreadBudgetRegistry:
    """The budgets of the current pump."""
    return current_runtime().get(ThreadBudgetRegistry)


def configure_budget_registry(max_tokens_per_thread: int) -> ThreadBudgetRegistry:
    """Set the limit of the current pump's future budgets; see `ThreadBudgetRegistry.configure`."""
    registry = get_budget_registry()
    registry.configure(max_tokens_per_thread)
    return registry


def reset_budget_registry() -> None:
    """Forget the current pump's budgets, and what was configured after it was made."""
    get_budget_registry().reset()
