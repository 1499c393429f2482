"""`Accounts`: reserves before a call, and writes down afterwards what it used, everywhere it is counted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from xml_pipeline.llm.call import Call
from xml_pipeline.llm.estimate import completion_tokens, prompt_tokens
from xml_pipeline.llm.request import LLMRequest, LLMResponse
from xml_pipeline.llm.spending import OnThreshold, Spending, conversation_of, tell
from xml_pipeline.llm.usage import AgentUsage, UsageTracker, get_usage_tracker

__all__ = ["Accounts", "Used", "used_by"]

_MOST_AGENTS: Final = 10_000


class Used:
    """What one call used.

    Args:
        prompt_tokens: what was asked.
        completion_tokens: what was answered.
        is_estimated: the provider did not say.
    """

    __slots__ = ("completion_tokens", "is_estimated", "prompt_tokens")

    def __init__(self, prompt_tokens: int, completion_tokens: int, *, is_estimated: bool = False) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens
        self.is_estimated = is_estimated

    @property
    def total(self) -> int:
        """Asked and answered."""
        return self.prompt_tokens + self.completion_tokens


def used_by(request: LLMRequest, response: LLMResponse) -> Used:
    """What an answered call used, as the backend says; what it says nothing about is estimated, and not free."""
    usage = response.usage if isinstance(response.usage, Mapping) else {}
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if prompt or completion:
        return Used(prompt, completion, is_estimated=bool(usage.get("estimated")))
    answer = completion_tokens(response.content or "", response.tool_calls)
    return Used(prompt_tokens(request), answer, is_estimated=True)


class Accounts:
    """The accounts of one router.

    Args:
        allowance: tokens reserved for an answer whose length is not limited.
        on_threshold: told when a budget's threshold is crossed.
        tracker: of usage; ``None`` for that of the current runtime.
    """

    def __init__(self, allowance: int, on_threshold: OnThreshold, tracker: UsageTracker | None) -> None:
        self._allowance = allowance
        self._on_threshold = on_threshold
        self._tracker = tracker
        self._spending = Spending()
        self.agents: OrderedDict[str, AgentUsage] = OrderedDict()
        """What each agent used; beyond 10,000 agents, that of the one not heard of for longest is forgotten."""

    def take_over(self, before: Accounts) -> None:
        """Reserve together with ``before``: calls wait for what those of the other have reserved."""
        self._spending = before._spending

    async def reserve(self, call: Call) -> None:
        """Reserve at the budget of the caller's conversation, if it has a thread.

        Raises:
            BudgetExhausted: too little is left.
        """
        thread_id = call.caller.thread_id
        if not thread_id:
            return
        call.doing = "waiting for tokens that other calls of the conversation have reserved"
        call.conversation_id = conversation_of(thread_id)
        allowance = 0 if call.request.max_tokens else self._allowance
        call.expense = await self._spending.reserve(call.conversation_id, call.tokens, allowance)

    def settle(self, call: Call, provider: str, used: Used, latency_ms: float) -> None:
        """Write down what a call used. Does not wait, so that nothing can come between.

        Args:
            call: the call.
            provider: whose model answered.
            used: tokens.
            latency_ms: milliseconds.
        """
        caller = call.caller
        crossed = call.expense.settle(used.prompt_tokens, used.completion_tokens) if call.expense else ()
        if caller.agent_id:
            self._count(caller.agent_id, used)
        metadata = {**(caller.metadata or {}), "estimated": True} if used.is_estimated else caller.metadata
        (self._tracker or get_usage_tracker()).record(
            call.conversation_id,
            caller.agent_id,
            call.request.model,
            provider,
            used.prompt_tokens,
            used.completion_tokens,
            latency_ms,
            metadata,
        )
        tell(self._on_threshold, crossed, caller.agent_id, caller.thread_id or "")

    def release(self, call: Call) -> None:
        """The call is over; give back what it has reserved and not settled."""
        if call.expense is not None:
            call.expense.release()

    def _count(self, agent_id: str, used: Used) -> None:
        before = self.agents.get(agent_id, AgentUsage())
        self.agents[agent_id] = before.plus(used.prompt_tokens, used.completion_tokens)
        self.agents.move_to_end(agent_id)
        if len(self.agents) > _MOST_AGENTS:
            self.agents.popitem(last=False)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
