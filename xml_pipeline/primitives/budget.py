"""Telling an agent that the budget of its conversation runs out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from third_party.xmlable import xmlify
from xml_pipeline.message_bus.budget import BudgetThresholdCrossed
from xml_pipeline.message_bus.notices import get_notices

__all__ = ["BUDGET_SENDER", "BudgetWarning", "warn_of_budget"]

BUDGET_SENDER: Final = "system.budget"
"""Who warnings are from."""

_ADVICE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "warning": "Plan what is still to be done, and keep model calls short.",
        "critical": "Finish what matters most, and begin nothing new.",
        "final": "Answer now with what you have: once the budget is used up, model calls are refused.",
    }
)


@xmlify
@dataclass(frozen=True, slots=True)
class BudgetWarning:
    """So much of the conversation's token budget is used. Sent once for each threshold, to the agent whose model call
    reached it, as the next turn of the same frame. A call that reaches several leads to as many warnings, with the same
    figures, the severest last: so the latest word is always the one to go by.

    Args:
        percent_used: percent of the budget.
        tokens_used: tokens used by the whole conversation.
        tokens_remaining: tokens left.
        max_tokens: the budget.
        severity: ``warning`` from 75 percent, ``critical`` from 90, ``final`` from 95.
        message: the same in words, with advice, for models.
    """

    percent_used: float
    tokens_used: int
    tokens_remaining: int
    max_tokens: int
    severity: str
    message: str

    @classmethod
    def of(cls, crossed: BudgetThresholdCrossed) -> BudgetWarning:
        """The warning about one threshold."""
        used, most, left = crossed.tokens_used, crossed.max_tokens, crossed.tokens_remaining
        text = (
            f"{crossed.percent_used:.0f} percent of the token budget of this conversation is used: "
            f"{used:,} of {most:,} tokens, {left:,} are left."
        )
        advice = _ADVICE.get(crossed.severity, "")
        return cls(crossed.percent_used, used, left, most, crossed.severity, f"{text} {advice}".rstrip())


def warn_of_budget(thread_id: str, crossed: Iterable[BudgetThresholdCrossed]) -> int:
    """Send one `BudgetWarning` for each threshold, lowest first, so that the latest word is the severest.

    Args:
        thread_id: the frame whose model call reached them.
        crossed: as `ThreadBudgetRegistry` gives them; in any order, e.g. gathered from several calls.

    Returns:
        How many are on their way: none for a frame that is closed, or whose listener is a tool that does not accept
        `BudgetWarning`.
    """
    notices, ascending = get_notices(), sorted(crossed, key=lambda each: each.threshold_percent)
    return sum(notices.post(thread_id, BudgetWarning.of(each), from_id=BUDGET_SENDER) for each in ascending)
