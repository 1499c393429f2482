"""The door: what may come in from outside, and in whose name.

The ingress decides who the sender is; an envelope that says otherwise is refused later, when it is read
(`steps.payload_extraction`). Nobody outside may be ``system``, ``system.*`` or a local listener, and nobody may speak
in a conversation that is not his.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

from third_party.xmlable import codec_of
from xml_pipeline.config import name_fault
from xml_pipeline.envelope import (
    build_envelope,
    envelope_to_bytes,
    escape_text,
    extensions,
    message_text,
    payload_elements,
    peek,
)
from xml_pipeline.errors import (
    DeadlineExceeded,
    ForgedMessage,
    RoutingError,
    ValidationError,
)
from xml_pipeline.message_bus.exchange import Exchange
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.payloads import PayloadWriter
from xml_pipeline.message_bus.peer_tables import PeerTables
from xml_pipeline.message_bus.routing import CurrentTable
from xml_pipeline.message_bus.thread_registry import Conversation, ConversationStatus, ThreadRegistry
from xml_pipeline.strict_xml import parse_strict

if TYPE_CHECKING:
    from third_party.xmlable import Codec
    from xml_pipeline.config import Limits
    from xml_pipeline.message_bus.dead_letters import DeadLetter
    from xml_pipeline.message_bus.events import EventHub
    from xml_pipeline.message_bus.ledger import Ledger
    from xml_pipeline.message_bus.mint import Mint
    from xml_pipeline.message_bus.scheduler import Scheduler

__all__ = ["Ingress"]


_ON_THE_MESH = "mesh:"
_MAX_GOOD_SENDERS = 10_000
"""Names of senders remembered as checked; beyond it they are checked anew."""


_Message: TypeAlias = "tuple[str, str, str | None, str, Codec[Any] | None]"
"""A message before it is admitted: its queue, sender and target in XML, the payload's text and codec."""

_ENVELOPE_OVERHEAD = 512
_SOME_THREAD_ID = "0" * 36


def _as_seen(name: str) -> str:
    """What a reader takes a name for: compatibility forms and case folded, invisible characters left out."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(char for char in folded if unicodedata.category(char) != "Cf")


class Ingress:
    """Admits external messages into the scheduler.

    Args:
        current: has the routing table in force.
        peer_tables: those that a conversation may be narrowed by.
        registry: opens conversations and root frames.
        mint: counts messages.
        scheduler: takes them.
        ledger: completes what was begun and could not be admitted.
        events: is told of new conversations.
        writer: writes payloads.
        limits: sizes and times.
    """

    def __init__(
        self,
        current: CurrentTable,
        peer_tables: PeerTables,
        registry: ThreadRegistry,
        mint: Mint,
        scheduler: Scheduler,
        ledger: Ledger,
        events: EventHub,
        writer: PayloadWriter,
        limits: Limits,
    ) -> None:
        self._current = current
        self._peer_tables = peer_tables
        self._registry = registry
        self._mint = mint
        self._scheduler = scheduler
        self._ledger = ledger
        self._events = events
        self._writer = writer
        self._limits = limits
        self._good_senders: dict[str, str] = {}
        """Checked names, as they stand in XML."""
        self.waiting: Callable[[], AbstractContextManager[None]] = nullcontext
        """What to enter while somebody waits for room, who may be one of the pump's own handlers."""

    async def admit(
        self,
        target: str | None,
        payload: Any,
        *,
        from_id: str,
        thread_id: str | None,
        routing_table: str | None = None,
        wait: bool = True,
        stream: bool = False,
        extensions: str = "",
        vouched: bool = False,
        deadline: float = 0.0,
    ) -> Exchange:
        """`admit_now`, but unless ``wait`` is false, wait for room where the queues are full."""
        written = self._written(target, payload, from_id, routing_table, extensions, vouched)
        queue = written[0]
        if not wait:
            self._scheduler.check_room(queue)
        elif self._scheduler.is_full(queue):
            await self._wait_for_room(queue)
        return self._admit(written, target, from_id, thread_id, routing_table, stream, extensions, deadline)

    def admit_now(
        self,
        target: str | None,
        payload: Any,
        *,
        from_id: str,
        routing_table: str | None = None,
        extensions: str = "",
        vouched: bool = False,
        deadline: float = 0.0,
    ) -> Exchange:
        """Admit a payload for a target, and return what will come back; see `StreamPump.inject` for what is raised.

        Args:
            extensions: further elements of ``meta``, as canonical text.
            vouched: the sender is on the mesh, and the caller found out who it is. Never for what programs say.
            deadline: in the loop's time, after which its handler is not started; 0.0 for none.
        """
        written = self._written(target, payload, from_id, routing_table, extensions, vouched)
        self._scheduler.check_room(written[0])
        return self._admit(written, target, from_id, None, routing_table, False, extensions, deadline)

    def _written(
        self, target: str | None, payload: Any, from_id: str, peer_table: str | None, extensions: str, vouched: bool
    ) -> _Message:
        """Check and write a message. Before anything is begun: a refused one must leave no trace."""
        from_xml = self._good_senders.get(from_id) or self._checked_sender(from_id, vouched)
        if peer_table is not None:
            self._check_peer_table(peer_table)
        written = self._writer.write(payload)
        text = written.text
        table = self._current.table
        queue = target or table.only_group_for(written.name) or ""
        listener = table.listeners.get(queue)
        to_xml = None if not target else escape_text(target) if listener is None else listener.xml_name
        length = len(text) + len(from_xml) + len(to_xml or "") + len(extensions)
        if 4 * length + _ENVELOPE_OVERHEAD > self._limits.max_message_bytes:  # it may be too large
            self._check_size(message_text(text, from_xml, to_xml, _SOME_THREAD_ID, extensions))
        return queue, from_xml, to_xml, text, None if listener is None else listener.codecs.get(written.name)

    def _admit(
        self,
        message: _Message,
        target: str | None,
        from_id: str,
        thread_id: str | None,
        peer_table: str | None,
        stream: bool,
        extensions: str,
        deadline: float,
    ) -> Exchange:
        queue, from_xml, to_xml, text, codec = message
        try:
            conversation = self._begin(from_id, thread_id, peer_table)
            exchange = Exchange(queue, from_id, conversation.id)
            frame = self._registry.open_root(conversation, queue, exchange)
            wire = message_text(text, from_xml, to_xml, frame.id, extensions)
        except BaseException:
            self._scheduler.pass_on(queue)
            raise
        state = self._mint.external(conversation, frame, from_id, target or None, wire, text)
        state.deadline = deadline
        state.codec = codec  # decided for good when it is routed; until then it says what the payload is expected to be
        return self._enter(state, conversation, exchange, queue, stream)

    async def admit_raw(
        self,
        raw: bytes,
        thread_id: str | None,
        from_id: str,
        *,
        routing_table: str | None = None,
        wait: bool = True,
        stream: bool = False,
        vouched: bool = False,
        deadline: float = 0.0,
    ) -> Exchange:
        """`admit_raw_now`, but unless ``wait`` is false, wait for room where the queues are full."""
        queue, to, claimed = self._looked_at(raw, from_id, routing_table, vouched)
        if not wait:
            self._scheduler.check_room(queue)
        elif self._scheduler.is_full(queue):
            await self._wait_for_room(queue)
        thread = thread_id if thread_id is not None else claimed
        return self._admit_raw(raw, queue, to, thread, from_id, routing_table, stream, deadline)

    def admit_raw_now(
        self,
        raw: bytes,
        thread_id: str | None,
        from_id: str,
        *,
        routing_table: str | None = None,
        vouched: bool = False,
        deadline: float = 0.0,
    ) -> Exchange:
        """Admit a finished envelope. Whether it agrees with thread and sender is checked when it is read."""
        queue, to, claimed = self._looked_at(raw, from_id, routing_table, vouched)
        self._scheduler.check_room(queue)
        thread = thread_id if thread_id is not None else claimed
        return self._admit_raw(raw, queue, to, thread, from_id, routing_table, False, deadline)

    def _looked_at(
        self, raw: bytes, from_id: str, peer_table: str | None, vouched: bool
    ) -> tuple[str, str | None, str | None]:
        """Check an envelope; its queue, and the target and the thread that it names."""
        self._checked_sender(from_id, vouched)
        self._check_peer_table(peer_table)
        self._check_size(raw)
        to, claimed = peek(raw)
        return to if to is not None and self._is_known(to) else "", to, claimed

    def _admit_raw(
        self,
        raw: bytes,
        queue: str,
        to: str | None,
        thread_id: str | None,
        from_id: str,
        peer_table: str | None,
        stream: bool,
        deadline: float,
    ) -> Exchange:
        try:
            conversation = self._begin(from_id, thread_id, peer_table)
        except BaseException:
            self._scheduler.pass_on(queue)
            raise
        exchange = Exchange(to or "", from_id, conversation.id)
        frame = self._registry.open_root(conversation, queue, exchange)
        state = self._mint.external(conversation, frame, from_id, None, raw)
        state.deadline = deadline
        state.thread_id = conversation.id  # what the envelope must say; the frame of a later turn has an id of its own
        return self._enter(state, conversation, exchange, queue, stream)

    async def resend(self, letter: DeadLetter) -> str:
        """Admit a dead letter's message again, as a new conversation of the same sender."""
        root = parse_strict(letter.wire)
        conversation_id = self._registry.ids.next()
        payloads = payload_elements(root)
        if not payloads:
            raise ValidationError("the dead letter holds no payload", step="admission")
        first, *further = payloads
        envelope = build_envelope(
            first, letter.from_id, conversation_id, letter.target or None, extensions(root), further
        )
        exchange = await self.admit_raw(
            envelope_to_bytes(envelope, declaration=False),
            conversation_id,
            letter.from_id,
            routing_table=letter.routing_table,
            wait=False,
            vouched=letter.step != "admission",  # its sender was found out before; what was refused had none
        )
        exchange.attempts = letter.attempts
        return exchange.conversation_id

    def begin_system(self, target: str, payload: Any) -> str:
        """Send a message of the pump itself, on its own frame."""
        root = self._registry.root
        if root is None:
            raise RuntimeError("the root frame is not initialised")
        listener = self._current.table.listeners[target]
        codec = codec_of(type(payload))
        child = self._registry.open_child(root, listener, "system")
        state = self._mint.to_frame(codec.encode_payload(payload), codec, child, listener, root, "system")
        state.from_id = "system"
        self._scheduler.push((state,))
        return child.id

    # -- the parts of admission ---------------------------------------------------------------------------------

    def _enter(
        self, state: MessageState, conversation: Conversation, exchange: Exchange, queue: str, stream: bool
    ) -> Exchange:
        if self._events.active and not conversation.participants and not conversation.exchanges:
            self._ledger.emit_thread(conversation)
        exchange.wire = state.raw_bytes
        if stream:
            exchange.open_stream()
        conversation.expect(exchange)
        if self._limits.max_conversation_seconds is not None:
            self._limit_time(conversation, self._limits.max_conversation_seconds)
        self._scheduler.admit(state, queue)
        return exchange

    def _begin(self, owner: str, thread_id: str | None, peer_table: str | None) -> Conversation:
        """Begin a conversation under a peer table, or continue one under its own."""
        if peer_table is None:
            return self._registry.begin(owner, thread_id)
        self._check_peer_table(peer_table)  # again: there may have been a wait for room
        known = None if thread_id is None else self._registry.find(thread_id)
        if known is not None and known.owner == owner and known.peer_table != peer_table:
            own = "no peer table" if known.peer_table is None else f"peer table {known.peer_table!r}"
            raise RoutingError(
                f"conversation {thread_id!r} runs under {own} for life, not under {peer_table!r}; leave it out to "
                "continue the conversation, or begin another",
                step="admission",
            )
        conversation = self._registry.begin(owner, thread_id)
        conversation.peer_table = peer_table
        return conversation

    def _check_peer_table(self, name: str | None) -> None:
        if name is not None and name not in self._peer_tables:
            raise RoutingError(f"peer table {name!r} is not registered", step="admission")

    def _limit_time(self, conversation: Conversation, seconds: float) -> None:
        if conversation.deadline_timer is not None:
            return

        def expire() -> None:
            conversation.deadline_timer = None
            if conversation.open and conversation.status is not ConversationStatus.KILLED:
                self._ledger.cancel_conversation(
                    conversation,
                    DeadlineExceeded(f"the conversation took longer than {seconds} s", step="conversation"),
                )

        conversation.deadline_timer = asyncio.get_running_loop().call_later(seconds, expire)

    def _checked_sender(self, from_id: str, vouched: bool = False) -> str:
        """The name as it stands in XML."""
        if vouched and from_id.startswith(_ON_THE_MESH):
            return escape_text(from_id)  # not kept: the same name is refused where nobody vouches for it
        known = self._good_senders.get(from_id)
        if known is not None:
            return known
        if not isinstance(from_id, str) or not from_id:
            raise ForgedMessage(f"from_id must be a name, not {from_id!r}", step="admission")
        fault = name_fault(from_id)
        if fault is not None:
            raise ForgedMessage(f"from_id: {fault}", step="admission")
        lower = from_id.lower()
        seen = _as_seen(from_id)
        if seen.startswith(_ON_THE_MESH):
            raise ForgedMessage(f"only the mesh itself speaks as {from_id!r}", step="admission")
        if seen == "system" or seen.startswith("system."):
            raise ForgedMessage(f"nobody outside the pump may be {from_id!r}", step="admission")
        if self._current.table.is_taken(lower):
            raise ForgedMessage(f"{from_id!r} is the name of a local listener or group", step="admission")
        if len(self._good_senders) >= _MAX_GOOD_SENDERS:
            self._good_senders.clear()
        escaped = self._good_senders[from_id] = escape_text(from_id)
        return escaped

    def apply(self, limits: Limits) -> None:
        """Take sizes and times from ``limits`` from now on."""
        self._limits = limits

    def forget_senders(self) -> None:
        """Listeners changed: a name that was free may be taken now."""
        self._good_senders.clear()

    def _check_size(self, raw: bytes) -> None:
        if not isinstance(raw, bytes):
            raise TypeError(f"an envelope must be bytes, not {type(raw).__name__}")
        if len(raw) > self._limits.max_message_bytes:
            raise ValidationError(
                f"the message has {len(raw)} bytes (max_message_bytes={self._limits.max_message_bytes})",
                step="admission",
            )

    def _is_known(self, to: str) -> bool:
        table = self._current.table
        return to in table.listeners or to in table.groups

    async def _wait_for_room(self, queue: str) -> None:
        with self.waiting():
            await self._scheduler.wait_for_room(queue)
