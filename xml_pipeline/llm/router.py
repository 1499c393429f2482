"""`LLMRouter`: calls models, wherever they are served.

::

    budget -> deadline -+-> choose a backend -> wait for tokens, requests, a place -> call it -+-> settle, count, answer
                        |                                                                      |
                        +---------------- delay <- may it be tried again? <- it failed <-------+
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random as random_numbers
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypedDict, Unpack

from xml_pipeline.config.problems import Hints, quoted
from xml_pipeline.llm.accounts import Accounts, used_by
from xml_pipeline.llm.backend import Backend, seconds, whole_number
from xml_pipeline.llm.call import Call, Caller, least_tokens
from xml_pipeline.llm.clock import Clock
from xml_pipeline.llm.deadline import Deadline, TimeIsUp
from xml_pipeline.llm.errors import BackendError
from xml_pipeline.llm.rate_limit import Permit
from xml_pipeline.llm.request import LLMChunk, LLMRequest, LLMResponse, Tool
from xml_pipeline.llm.retry import Attempts, RetryPolicy
from xml_pipeline.llm.routed import BackendStatistics, RoutedBackend
from xml_pipeline.llm.spending import OnThreshold, post_warning
from xml_pipeline.llm.strategy import Strategy
from xml_pipeline.llm.streamed import StreamedAnswer
from xml_pipeline.llm.usage import AgentUsage, UsageTracker
from xml_pipeline.runtime import current_runtime

__all__ = ["LLMRouter", "complete", "get_router"]

logger = logging.getLogger(__name__)

_TIMEOUT: Final = 120.0
_COMPLETION_ALLOWANCE: Final = 1_024
_MOST_NAMED: Final = 10


class CallOptions(TypedDict, total=False):
    """What `LLMRouter.complete` takes by keyword; see there."""

    temperature: float | None
    max_tokens: int | None
    tools: Sequence[Tool] | None
    agent_id: str | None
    thread_id: str | None
    metadata: Mapping[str, Any] | None
    timeout: float | None


class LLMRouter:
    """Calls models at the backends that serve them.

    Use it in one event loop, by as many tasks as you like.

    Args:
        backends: the first ones; see `add_backend`.
        strategy: a `Strategy` or its name: ``failover`` (default), ``round-robin`` or ``least-loaded``.
        retries: attempts after the first one that failed; default 3.
        retry_base_delay: seconds before the first retry at the same backend, twice as long for each further one;
            default 1.0.
        retry_max_delay: seconds that it grows to at most; default 60.0.
        timeout: seconds for a call with all its waiting and attempts; default 120.0.
        default_model: the model of agents that do not name theirs; the router itself has no use for it.
        completion_allowance: tokens that a call reserves of its conversation's budget for an answer whose length it
            does not limit, see `xml_pipeline.llm.spending`; default 1,024. Nothing is reserved for answers with 0, and
            calls that run at the same time may then overrun a budget by all their answers.
        on_threshold: called with threshold, agent and thread when a call crosses a threshold of its conversation's
            budget, once for each, lowest first; default: the agent gets a `BudgetWarning`. It must not wait; what it
            raises is logged.
        tracker: of usage; default: that of the current runtime.
        clock: the time.
        random: numbers from 0 to 1, for the spread of delays.

    Raises:
        ValueError: a setting is out of range, or there is no such strategy.
        TypeError: a backend is none.
    """

    def __init__(
        self,
        backends: Iterable[Backend] = (),
        *,
        strategy: Strategy | str = Strategy.FAILOVER,
        retries: int = 3,
        retry_base_delay: float = 1.0,
        retry_max_delay: float = 60.0,
        timeout: float = _TIMEOUT,
        default_model: str = "",
        completion_allowance: int = _COMPLETION_ALLOWANCE,
        on_threshold: OnThreshold | None = None,
        tracker: UsageTracker | None = None,
        clock: Clock | None = None,
        random: Callable[[], float] = random_numbers.random,
    ) -> None:
        self.strategy = Strategy.of(strategy)
        self.timeout = seconds("timeout", timeout)
        self.default_model = default_model
        self._policy = RetryPolicy(retries, retry_base_delay, retry_max_delay, random)
        self._clock = clock or Clock()
        allowance = whole_number("completion_allowance", completion_allowance, 0)
        self._accounts = Accounts(allowance, on_threshold or post_warning, tracker)
        self._routed: list[RoutedBackend] = []
        self._turns = itertools.count(1)
        self._calls: set[Call] = set()
        self._drained: set[asyncio.Event] = set()
        self._is_closed = False
        for backend in backends:
            self.add_backend(backend)

    # -- backends -----------------------------------------------------------------------------------------------

    def add_backend(self, backend: Backend) -> None:
        """Let calls go to ``backend``, too. The router closes it when it is closed itself.

        Raises:
            TypeError: it lacks something that a `Backend` has.
            ValueError: there is one of this name, or a limit is out of range.
            BackendError: the router is closed.
        """
        self._check_open()
        if not isinstance(backend, Backend):
            raise TypeError(f"{type(backend).__name__} is no Backend: see xml_pipeline.llm.backend")
        if any(each.name == backend.name for each in self._routed):
            raise ValueError(f"there is a backend named {quoted(backend.name)}; give this one another name")
        for limit in ("rate_limit_tpm", "max_concurrent"):
            whole_number(f"{limit} of {quoted(backend.name)}", getattr(backend, limit), 1)
        if backend.rate_limit_rpm is not None:
            whole_number(f"rate_limit_rpm of {quoted(backend.name)}", backend.rate_limit_rpm, 1)
        self._routed.append(RoutedBackend(backend, len(self._routed), self._clock))

    def take_over(self, before: LLMRouter) -> None:
        """Count on where another router is, which this one replaces, and together with it as long as calls run there.

        A backend of the same name, provider and address is the same service, and is not asked for twice as much because
        two routers ask it. For both the limits of this router's backend hold, calls wait for a place in one line, and
        both leave it alone when it asks for that. Calls of one conversation wait for each other's tokens, too. What was
        called and used is counted by each router for itself.

        Call it before this router has calls, in the same event loop.

        Args:
            before: the other one; it may be draining.

        Raises:
            BackendError: this router is closed.
            RuntimeError: this router has calls.
        """
        self._check_open()
        if self._calls:
            raise RuntimeError("a router takes over from another before it has calls of its own")
        self._accounts.take_over(before._accounts)
        for routed in self._routed:
            for other in before._routed:
                if routed.is_same_as(other):
                    routed.take_over(other)

    @property
    def backends(self) -> tuple[Backend, ...]:
        """In the order in which they were added."""
        return tuple(each.backend for each in self._routed)

    def statistics(self) -> tuple[BackendStatistics, ...]:
        """The figures of every backend, in the order in which they were added."""
        return tuple(each.statistics() for each in self._routed)

    # -- calls --------------------------------------------------------------------------------------------------

    async def complete(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        temperature: float | None = 0.7,
        max_tokens: int | None = None,
        tools: Sequence[Tool] | None = None,
        agent_id: str | None = None,
        thread_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> LLMResponse:
        """Ask a model.

        Args:
            model: its name.
            messages: mappings with ``role`` and ``content``, see `LLMRequest`.
            temperature: default 0.7; ``None`` for the provider's own.
            max_tokens: of the answer; default ``None``, as the provider sees fit.
            tools: what the model may ask for; default ``None``.
            agent_id: who asks, for the usage figures.
            thread_id: the thread whose conversation's budget pays; default ``None``: nobody's.
            metadata: for subscribers to usage events.
            timeout: seconds; default: the router's.

        Returns:
            The whole answer.

        Raises:
            ValueError: no backend serves the model; or the request is wrong, and the text says where.
            BudgetExhausted: the conversation has too few tokens left. No model was called.
            BackendError: all attempts failed, or the time was up. Of an error that there is no use in trying again, the
                very error; else its text tells of the attempts, and its cause is the last one's.
        """
        request = LLMRequest(_copied(messages), model, temperature, max_tokens, tools)
        call = self._begin(request, Caller(agent_id, thread_id, metadata), timeout)
        try:
            with suppress(TimeIsUp):
                async with call.deadline.limit():
                    await self._accounts.reserve(call)
                    return await self._answer(call)
            raise self._out_of_time(call)
        finally:
            self._end(call)

    async def stream(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]],
        *,
        temperature: float | None = 0.7,
        max_tokens: int | None = None,
        tools: Sequence[Tool] | None = None,
        agent_id: str | None = None,
        thread_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> AsyncGenerator[LLMChunk, None]:
        """Ask a model, and read its answer while it is being written.

        A failure is tried again only as long as nothing was read. An answer that is left in the middle costs what came
        of it, estimated. Leave it with ``async with contextlib.aclosing(...)`` and it is closed at once.

        Args:
            model: as for `complete`, as are the others.

        Yields:
            Pieces of text; the last one carries the whole as ``response``.

        Raises:
            ValueError: as for `complete`, when the first piece is asked for.
            BudgetExhausted: likewise.
            BackendError: likewise; also in the middle.
        """
        request = LLMRequest(_copied(messages), model, temperature, max_tokens, tools, stream=True)
        call = self._begin(request, Caller(agent_id, thread_id, metadata), timeout)
        answer: StreamedAnswer | None = None
        try:
            with suppress(TimeIsUp):
                async with call.deadline.limit():
                    await self._accounts.reserve(call)
                    answer, chunk = await self._first_piece(call)
                while chunk.response is None:
                    yield chunk
                    async with call.deadline.limit():
                        chunk = await answer.read()
                self._settle(call, answer)
                yield chunk
                return
            raise self._out_of_time(call)
        finally:
            try:
                if answer is not None:
                    await answer.close()
            finally:
                if answer is not None:
                    self._settle(call, answer)
                self._end(call)

    # -- usage --------------------------------------------------------------------------------------------------

    def get_agent_usage(self, agent_id: str) -> AgentUsage:
        """What an agent's calls used; zeros if there were none."""
        return self._accounts.agents.get(agent_id, AgentUsage())

    def get_all_usage(self) -> dict[str, AgentUsage]:
        """What each agent's calls used."""
        return dict(self._accounts.agents)

    def reset_agent_usage(self, agent_id: str | None = None) -> None:
        """Begin again at zero.

        Args:
            agent_id: for one agent; default: for all.
        """
        if agent_id is None:
            self._accounts.agents.clear()
        else:
            self._accounts.agents.pop(agent_id, None)

    # -- the end ------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait until no call runs, or could still run: a stream that nobody reads any more is over at its deadline."""
        while running := [left for call in self._calls if (left := call.deadline.left()) > 0]:
            drained = asyncio.Event()
            self._drained.add(drained)
            timer = self._clock.call_later(max(running), drained.set)
            try:
                await drained.wait()
            finally:
                timer.cancel()
                self._drained.discard(drained)

    async def close(self) -> None:
        """Take no further calls, end those that run, and close the backends. Twice is allowed.

        Calls that run, and streams when they are read next, raise `BackendError`.
        """
        self._is_closed = True
        running = tuple(self._calls)
        for call in running:
            call.deadline.end()
        for call in running:
            await call.deadline.at_rest()
        closed = await asyncio.gather(*(each.backend.close() for each in self._routed), return_exceptions=True)
        for routed, result in zip(self._routed, closed, strict=True):
            if isinstance(result, BaseException):
                logger.warning("the backend %s could not be closed: %s", routed.name, type(result).__name__)

    def __repr__(self) -> str:
        return f"<LLMRouter {self.strategy.value}: {', '.join(each.name for each in self._routed) or 'no backends'}>"

    # -- how ----------------------------------------------------------------------------------------------------

    def _begin(self, request: LLMRequest, caller: Caller, timeout: float | None) -> Call:
        self._check_open()
        tokens = least_tokens(request)
        deadline = Deadline(self.timeout if timeout is None else seconds("timeout", timeout), self._clock)
        candidates = [each for each in self._routed if each.backend.serves(request.model)]
        if not candidates:
            raise ValueError(self._not_served(request.model))
        attempts = Attempts(request.model, candidates, self.strategy, self._policy, self._clock, self._turns)
        call = Call(request, caller, tokens, deadline, attempts)
        self._calls.add(call)
        return call

    def _end(self, call: Call) -> None:
        self._calls.discard(call)
        self._accounts.release(call)
        call.attempts.forget()
        if not self._calls:
            for drained in self._drained:
                drained.set()

    async def _answer(self, call: Call) -> LLMResponse:
        while True:
            routed, permit = await self._place(call)
            with permit:
                began = self._clock.time()
                try:
                    response = await _ask(routed, call)
                except Exception as error:
                    call.attempts.failed(routed, routed.failed(error))
                    continue
                latency_ms = (self._clock.time() - began) * 1000
                used = used_by(call.request, response)
                permit.settle(used.total)
                self._accounts.settle(call, routed.backend.provider, used, latency_ms)
                return response

    async def _first_piece(self, call: Call) -> tuple[StreamedAnswer, LLMChunk]:
        while True:
            routed, permit = await self._place(call)
            answer = StreamedAnswer(routed, permit, call.request, self._clock)
            try:
                return answer, await answer.read()
            except BackendError as error:
                await answer.close()
                call.attempts.failed(routed, error)
            except BaseException:
                await answer.close()
                raise

    async def _place(self, call: Call) -> tuple[RoutedBackend, Permit]:
        """Choose a backend, and wait until it may be called."""
        while True:
            routed, wait = call.attempts.next(call.deadline.left())
            if wait > 0:
                call.doing, call.asked = f"waiting for another attempt at {routed.name!r}", None
                await self._clock.sleep(wait)
            call.doing, call.asked = f"waiting for a place at {routed.name!r}", None
            permit = await routed.begin(call.tokens)
            if permit is not None:
                call.doing, call.asked = f"waiting for {routed.name!r} to answer", routed
                return routed, permit

    def _settle(self, call: Call, answer: StreamedAnswer) -> None:
        used = answer.used()
        if used is not None and not call.is_settled:
            call.is_settled = True
            self._accounts.settle(call, answer.routed.backend.provider, used, answer.latency_ms)

    def _out_of_time(self, call: Call) -> BackendError:
        if self._is_closed:
            return BackendError("the router was closed before the model had answered")
        if call.asked is not None:
            call.asked.failures += 1
        return call.attempts.timed_out(call.deadline.seconds, call.doing)

    def _check_open(self) -> None:
        if self._is_closed:
            raise BackendError("the router is closed")

    def _not_served(self, model: str) -> str:
        if not self._routed:
            return f"no backend serves the model {quoted(model)}: the router has none; see LLMRouter.add_backend"
        served = {each.name: tuple(getattr(each.backend, "models", ())) for each in self._routed}
        shown = [name + (f" ({', '.join(models[:_MOST_NAMED])})" if models else "") for name, models in served.items()]
        near = Hints().did_you_mean(model, itertools.chain.from_iterable(served.values()), "model")
        return f"no backend serves the model {quoted(model)}{near}; there are {', '.join(shown[:_MOST_NAMED])}"


def _copied(messages: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """A list of its own for the call: the caller's may grow while the call waits."""
    is_text = isinstance(messages, str | bytes)
    return list(messages) if isinstance(messages, Sequence) and not is_text else messages


async def _ask(routed: RoutedBackend, call: Call) -> LLMResponse:
    response = await routed.backend.complete(call.request)
    if not isinstance(response, LLMResponse):
        raise BackendError(f"the backend {routed.name!r} answered with a {type(response).__name__}, no LLMResponse")
    return response


def get_router() -> LLMRouter:
    """The router of the current runtime; without `configure_router` it has no backends."""
    return current_runtime().get(LLMRouter)


async def complete(model: str, messages: Sequence[Mapping[str, Any]], **options: Unpack[CallOptions]) -> LLMResponse:
    """`LLMRouter.complete` of the current runtime's router."""
    return await get_router().complete(model, messages, **options)
