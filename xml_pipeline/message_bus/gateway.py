"""`Gateway`: the way into the pump for a neighbour that has found out by itself who speaks, such as the bridge.

The public verbs of the pump refuse senders that say to be on the mesh. Here they are taken, because whoever calls
vouches for them. All else is as for every message from outside: a conversation of its own, the whole pipeline, bounded
queues.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from xml_pipeline.envelope import build_envelope, canonical_elements, envelope_to_bytes
from xml_pipeline.errors import ConversationCancelled, NoAnswer, PipelineError, ValidationError
from xml_pipeline.message_bus.patience import Patience

if TYPE_CHECKING:
    from lxml.etree import _Element

    from xml_pipeline.message_bus.exchange import Exchange, Taker
    from xml_pipeline.message_bus.ingress import Ingress
    from xml_pipeline.message_bus.thread_registry import ThreadRegistry

__all__ = ["Arrival", "Gateway"]

_FOREVER = 1e9
"""Seconds: what waits is bounded by the listeners' own time limits."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that came in.

    Args:
        target: the listener it is for.
        payload: an instance of one of its payload classes; or the payloads' elements, from somebody's envelope.
        sender: who sent it: ``mesh:`` and a name.
        extensions: elements to put into ``meta``; each in a namespace other than the envelope's.
        peer_table: that its conversation runs under; ``None`` for none.
        deadline: in the loop's time, after which its handler is not started; 0.0 for none.
        wait: for room where the queues are full, instead of being refused.
        on_begin: called with the id of its conversation, before anything of that runs.
    """

    target: str
    payload: Any
    sender: str
    extensions: Sequence[_Element] = ()
    peer_table: str | None = None
    deadline: float = 0.0
    wait: bool = False
    on_begin: Callable[[str], object] | None = None


class Gateway:
    """Takes messages in.

    Args:
        ingress: admits them.
        registry: gives conversations their ids.
        cancel: cancels a conversation, by its id.
    """

    def __init__(
        self, ingress: Ingress, registry: ThreadRegistry, cancel: Callable[[str, PipelineError], object]
    ) -> None:
        self._ingress = ingress
        self._registry = registry
        self._cancel = cancel

    async def request(self, arrival: Arrival, timeout: float | None) -> Any:
        """Send it, and return the first answer's payload. If this is cancelled, or takes too long, so is what it began.

        Args:
            arrival: what came.
            timeout: in seconds, waiting for room included; ``None`` for no limit but the listeners' own.

        Raises:
            Overloaded: there is no room, and it does not wait.
            PipelineError: what failed.
            NoAnswer: nobody answered.
            DeadlineExceeded: no answer in time.
        """
        if timeout is None:
            return await self._first(await self._admit(arrival))
        async with Patience(timeout, f"no answer from {arrival.target!r} in {timeout} s") as patience:
            exchange = await self._admit(arrival)
            patience.on_failure = lambda error: self._cancel(exchange.conversation_id, error)
            return await exchange.first()

    def begin(self, arrival: Arrival, taker: Taker) -> str:
        """`request` without waiting, neither for room nor for the answer.

        Args:
            arrival: what came.
            taker: gets the first answer's payload, or the error, as soon as there is one; see `Exchange.hand_to`.

        Returns:
            The conversation's id, for `give_up`.

        Raises:
            Overloaded: there is no room.
            PipelineError: it cannot be admitted.
        """
        exchange = self._admit_now(arrival)
        exchange.hand_to(taker)
        if arrival.on_begin is not None:
            arrival.on_begin(exchange.conversation_id)
        return exchange.conversation_id

    def give_up(self, conversation_id: str) -> None:
        """Cancel what `begin` began: whoever asked does not wait any more."""
        self._cancel(conversation_id, ConversationCancelled("whoever asked was cancelled", step="request"))

    async def _first(self, exchange: Exchange) -> Any:
        try:
            return await exchange.only()
        except asyncio.CancelledError:
            self.give_up(exchange.conversation_id)
            raise

    async def stream(self, arrival: Arrival, timeout: float | None = None) -> AsyncGenerator[Any, None]:
        """Send it, and yield every answer's payload until the conversation is complete. Leaving early cancels it.

        Args:
            arrival: what came.
            timeout: seconds without an answer; ``None`` for no limit but the listeners' own.

        Raises:
            Overloaded: there is no room, and it does not wait.
            PipelineError: what failed.
        """
        exchange = await self._admit(arrival, stream=True)
        try:
            async with aclosing(exchange.stream(_FOREVER if timeout is None else timeout)) as answers:
                async for answer in answers:
                    yield answer
        finally:
            if not exchange.is_complete:
                error = ConversationCancelled("whoever asked has left", step="request")
                self._cancel(exchange.conversation_id, error)

    async def deliver(self, arrival: Arrival) -> None:
        """Send it, and wait until everything it began is over. Answers are dropped.

        What fails is raised, and is a dead letter besides, for there is nobody who could send it again. If this is
        cancelled, so is what it began.

        Raises:
            Overloaded: there is no room, and it does not wait.
            PipelineError: why the conversation failed.
        """
        exchange = await self._admit(arrival)
        conversation = self._registry.find(exchange.conversation_id)
        over = asyncio.get_running_loop().create_future()
        if not exchange.is_complete:
            exchange.on_complete = partial(_resolve, over)
            try:
                await over
            except asyncio.CancelledError:
                error = ConversationCancelled("whoever sent it has left", step="request")
                self._cancel(exchange.conversation_id, error)
                raise
        failure = None if conversation is None else conversation.failure
        if failure is not None and not isinstance(failure, NoAnswer):
            raise failure.bare()  # it is remembered, and who was told must not be

    async def follow(self, arrival: Arrival) -> None:
        """`deliver`, but what fails is no dead letter: whoever sent it sends it again."""
        async with aclosing(self.stream(arrival)) as answers:
            async for _ in answers:
                pass

    async def _admit(self, arrival: Arrival, *, stream: bool = False) -> Exchange:
        exchange = await self._admit_payload(arrival, stream)
        if arrival.on_begin is not None:
            arrival.on_begin(exchange.conversation_id)
        return exchange

    async def _admit_payload(self, arrival: Arrival, stream: bool) -> Exchange:
        payload = arrival.payload
        if isinstance(payload, list):
            return await self._admit_elements(arrival, payload, stream)
        return await self._ingress.admit(
            arrival.target,
            payload,
            from_id=arrival.sender,
            thread_id=None,
            routing_table=arrival.peer_table,
            wait=arrival.wait,
            stream=stream,
            extensions=canonical_elements(arrival.extensions),
            vouched=True,
            deadline=arrival.deadline,
        )

    def _admit_now(self, arrival: Arrival) -> Exchange:
        payload = arrival.payload
        if isinstance(payload, list):
            conversation_id, raw = self._enveloped(arrival, payload)
            return self._ingress.admit_raw_now(
                raw,
                conversation_id,
                arrival.sender,
                routing_table=arrival.peer_table,
                vouched=True,
                deadline=arrival.deadline,
            )
        return self._ingress.admit_now(
            arrival.target,
            payload,
            from_id=arrival.sender,
            routing_table=arrival.peer_table,
            extensions=canonical_elements(arrival.extensions) if arrival.extensions else "",
            vouched=True,
            deadline=arrival.deadline,
        )

    async def _admit_elements(self, arrival: Arrival, payloads: list[_Element], stream: bool) -> Exchange:
        conversation_id, raw = self._enveloped(arrival, payloads)
        return await self._ingress.admit_raw(
            raw,
            conversation_id,
            arrival.sender,
            routing_table=arrival.peer_table,
            wait=arrival.wait,
            stream=stream,
            vouched=True,
            deadline=arrival.deadline,
        )

    def _enveloped(self, arrival: Arrival, payloads: list[_Element]) -> tuple[str, bytes]:
        """The payloads of somebody else's envelope, in one of ours: its sender, target and thread are what we say.

        Returns:
            The thread, and the envelope.
        """
        if not payloads:
            raise ValidationError("the envelope holds no payload", step="admission")
        conversation_id = self._registry.ids.next()
        first, *further = payloads
        envelope = build_envelope(first, arrival.sender, conversation_id, arrival.target, arrival.extensions, further)
        return conversation_id, envelope_to_bytes(envelope, declaration=False)


def _resolve(over: asyncio.Future[None]) -> None:
    if not over.done():
        over.set_result(None)
