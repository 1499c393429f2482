"""What model calls reserve of the budgets of their conversations, before they are made.

How long an answer will be is not known. A call that says ``max_tokens`` reserves just that; any other one reserves an
*allowance* for its answer, and gives back what it did not need. So calls that run at the same time cannot together
spend more than there is, as long as no answer is longer than the allowance. When the rest of a budget is too small for
an allowance, but not used up, calls of that conversation go one at a time: a call waits for those that run, and a call
that runs alone needs no allowance. A budget is therefore overrun by one answer at most, and no call is refused because
of tokens that other calls have only reserved.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from xml_pipeline.errors import BudgetExhausted
from xml_pipeline.message_bus.budget_registry import get_budget_registry
from xml_pipeline.message_bus.thread_registry import get_registry
from xml_pipeline.primitives.budget import warn_of_budget

if TYPE_CHECKING:
    from xml_pipeline.message_bus.budget_registry import BudgetThresholdCrossed, Reservation

__all__ = ["Expense", "OnThreshold", "Spending", "conversation_of", "post_warning", "tell"]

logger = logging.getLogger(__name__)

OnThreshold = Callable[["BudgetThresholdCrossed", str | None, str], object]
"""Called with the threshold, the agent whose call crossed it (``None`` if it is not known), and the call's thread."""


def conversation_of(thread_id: str) -> str:
    """The conversation that a thread id belongs to: a frame's conversation, or the id itself if nobody knows it."""
    record = get_registry().lookup(thread_id)
    return thread_id if record is None else record.conversation_id


class Expense:
    """What one call has reserved. What comes first counts, of `settle` and `release`."""

    __slots__ = ("_purse", "_reservation")

    def __init__(self, reservation: Reservation, purse: _Purse) -> None:
        self._reservation = reservation
        self._purse: _Purse | None = purse
        purse.running[self] = asyncio.current_task()

    def settle(self, prompt_tokens: int, completion_tokens: int) -> Sequence[BudgetThresholdCrossed]:
        """The call was made; returns the thresholds that it crossed."""
        crossed = self._reservation.settle(prompt_tokens, completion_tokens)
        self._end()
        return crossed

    def release(self) -> None:
        """The call was not made, or failed."""
        self._reservation.release()
        self._end()

    def _end(self) -> None:
        purse, self._purse = self._purse, None
        if purse is not None:
            purse.ended(self)


class _Purse:
    """The calls of one conversation: those that have reserved something, and those that want to."""

    def __init__(self, on_idle: Callable[[], object]) -> None:
        self.turn = asyncio.Lock()
        """Held by the call that reserves next; the others wait for it in the order in which they came."""
        self.wanted = 0
        self.running: dict[Expense, asyncio.Task[Any] | None] = {}
        self._ended: asyncio.Future[None] | None = None
        self._on_idle = on_idle

    def is_anything_to_wait_for(self) -> bool:
        """Whether a call runs that can end while this task waits: not its own, whose stream it reads at the moment."""
        task = asyncio.current_task()
        return any(other is not task for other in self.running.values())

    async def one_ended(self) -> None:
        """Wait until a call that runs has ended. Only the holder of `turn` may ask."""
        self._ended = asyncio.get_running_loop().create_future()
        try:
            await self._ended
        finally:
            self._ended = None

    def ended(self, expense: Expense) -> None:
        self.running.pop(expense, None)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        self.tidy()

    def tidy(self) -> None:
        """Nothing is kept of a conversation that has no calls."""
        if not self.wanted and not self.running:
            self._on_idle()


class Spending:
    """Reserves for the calls of one router."""

    def __init__(self) -> None:
        self._purses: dict[str, _Purse] = {}

    async def reserve(self, conversation_id: str, least: int, allowance: int) -> Expense:
        """Reserve for one call.

        Args:
            conversation_id: whose budget it is.
            least: tokens that must be left.
            allowance: tokens that are reserved beyond, unless this is the only call that runs.

        Returns:
            What must be settled or released.

        Raises:
            BudgetExhausted: less than ``least`` is left, or will be whatever the calls that run come to.
        """
        purse = self._purses.get(conversation_id)
        if purse is None:
            purse = self._purses[conversation_id] = _Purse(partial(self._purses.pop, conversation_id))
        purse.wanted += 1
        try:
            async with purse.turn:
                return await self._reserve(purse, conversation_id, least, allowance)
        finally:
            purse.wanted -= 1
            purse.tidy()

    async def _reserve(self, purse: _Purse, conversation_id: str, least: int, allowance: int) -> Expense:
        budgets = get_budget_registry()
        while True:
            try:
                return Expense(budgets.reserve(conversation_id, least + allowance), purse)
            except BudgetExhausted:
                if _is_used_up(budgets.get_usage(conversation_id), least):
                    raise
            if not purse.is_anything_to_wait_for():
                return Expense(budgets.reserve(conversation_id, least), purse)
            await purse.one_ended()


def post_warning(crossed: BudgetThresholdCrossed, agent_id: str | None, thread_id: str) -> None:
    """Tell the calling agent, by a `BudgetWarning` from ``system.budget`` on its thread."""
    warn_of_budget(thread_id, [crossed])


def tell(
    on_threshold: OnThreshold, crossed: Sequence[BudgetThresholdCrossed], agent_id: str | None, thread_id: str
) -> None:
    """Call ``on_threshold`` for each threshold; what it raises is logged, and harms no call."""
    for each in crossed:
        try:
            on_threshold(each, agent_id, thread_id)
        except Exception:
            logger.exception("the budget warning at %s %% could not be delivered", each.threshold_percent)


def _is_used_up(usage: Mapping[str, Any] | None, least: int) -> bool:
    """Whether less than ``least`` is left even if nothing of what is reserved will be used."""
    return usage is not None and usage["total_tokens"] + least > usage["max_tokens"]
