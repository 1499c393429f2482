"""The parts of one pump, put together."""

from __future__ import annotations

import asyncio
import os

from xml_pipeline.config import Limits
from xml_pipeline.errors import HandlerError, PipelineError
from xml_pipeline.memory.context_buffer import ContextBuffer
from xml_pipeline.message_bus.budget_registry import ThreadBudgetRegistry
from xml_pipeline.message_bus.dead_letters import DeadLetters
from xml_pipeline.message_bus.directory import Directory
from xml_pipeline.message_bus.dispatch import Dispatcher
from xml_pipeline.message_bus.dispatch_hook import DispatchHooks, TurnHook, overridden
from xml_pipeline.message_bus.events import EventHub, HistoryTrimmedEvent, ReloadEvent
from xml_pipeline.message_bus.expiries import Expiries
from xml_pipeline.message_bus.gateway import Gateway
from xml_pipeline.message_bus.hooks.budget import Budget
from xml_pipeline.message_bus.hooks.deadline import Deadline
from xml_pipeline.message_bus.hooks.history import History
from xml_pipeline.message_bus.hooks.todo import Todo
from xml_pipeline.message_bus.hooks.turn_limit import TurnLimit
from xml_pipeline.message_bus.ingress import Ingress
from xml_pipeline.message_bus.join import Joins
from xml_pipeline.message_bus.lane import UNLIMITED, limit_of
from xml_pipeline.message_bus.ledger import Ledger
from xml_pipeline.message_bus.lending import current_turn
from xml_pipeline.message_bus.listener import Listener
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.mint import Mint
from xml_pipeline.message_bus.notices import Notices
from xml_pipeline.message_bus.outlet import Outlet
from xml_pipeline.message_bus.payloads import PayloadWriter
from xml_pipeline.message_bus.peer_tables import PeerTables
from xml_pipeline.message_bus.permissions import Permissions
from xml_pipeline.message_bus.reception import Reception, bounds_of
from xml_pipeline.message_bus.replies import Replies
from xml_pipeline.message_bus.routing import CurrentTable, RoutingTable
from xml_pipeline.message_bus.scheduler import MAX_BATCH, Scheduler
from xml_pipeline.message_bus.sources import Sources
from xml_pipeline.message_bus.thread_registry import Conversation, ConversationStatus, Frame, ThreadRegistry
from xml_pipeline.message_bus.todo_registry import TodoRegistry
from xml_pipeline.message_bus.token_bucket import TokenBucket
from xml_pipeline.message_bus.turn_events import TurnEvents
from xml_pipeline.message_bus.usage import Usage, update_usage
from xml_pipeline.platform.agent_prompt import PromptsOfTable
from xml_pipeline.platform.prompt_registry import PromptRegistry
from xml_pipeline.runtime import Runtime, current_runtime

__all__ = ["Engine"]


class Engine:
    """Everything behind a `StreamPump`. Assembly only: what the parts do, and why, stands in their own modules.

    Args:
        limits: all bounds.
        runtime: takes the registries, so that handlers find them.
    """

    def __init__(self, limits: Limits, runtime: Runtime) -> None:
        self.limits = limits
        self.runtime = runtime
        self.current = CurrentTable(RoutingTable())
        depth_first = limits.thread_scheduling == "depth-first"
        self.events = EventHub()
        self.dead_letters = DeadLetters(capacity=limits.max_dead_letters)
        self.registry = ThreadRegistry(thread_idle_ttl=limits.thread_idle_ttl, max_threads=limits.max_threads)
        self.todos = TodoRegistry()
        self.budgets = ThreadBudgetRegistry(limits.max_tokens_per_thread, conversation_of=self._conversation_of)
        self.prompts = PromptRegistry(self._running_listener, self._schemas_of)
        self.peer_tables = PeerTables(lambda: self.table.listeners)
        self.peer_tables.on_modified = self._peers_modified
        permissions = Permissions(self.current, self.peer_tables)
        self.usage = Usage(self.current, self.peer_tables, permissions)
        self.directory = Directory(self.current, permissions, self.registry.frame, self._running_frame)
        self.history = ContextBuffer(
            max_history_bytes=limits.max_history_bytes,
            max_threads=limits.max_threads,
            on_trimmed=self._history_trimmed,
        )
        self.mint = Mint(os.urandom(8).hex())
        self.scheduler = Scheduler(
            max_queue=limits.max_queue,
            max_queue_per_listener=limits.max_queue_per_listener,
            max_inside=limits.max_concurrent_pipelines,
            depth_first=depth_first,
            window_of=self._window_of,
            rate=None if limits.rate is None else TokenBucket(limits.rate),
        )
        self.ledger = Ledger(self.registry, self.mint, self.scheduler, self.events, self.dead_letters)
        self.expiries = Expiries(self.ledger.cancel_call)
        self.hooks = DispatchHooks()
        writer = self._writer = PayloadWriter()
        joins = Joins(self.registry)
        self.mint.on_error = joins.note
        self._turn_limit = TurnLimit(limits.max_turns, joins)
        turn_hooks: list[TurnHook] = [
            Deadline(self.current),
            self._turn_limit,
            Todo(self.todos),
            History(self.history),
            Budget(self.budgets),
        ]
        self.outlet = Outlet(self._not_reinjected)
        self.notices = Notices(self.registry.frame, self.mint, writer, self.outlet.put, self._running_frame)
        self.ledger.emit = self.outlet.put
        self._turn_events = TurnEvents(self.events)
        self.dispatcher = Dispatcher(
            self.ledger,
            self.scheduler,
            self.events,
            self.hooks,
            turn_hooks,
            max_concurrent_handlers=limits.max_concurrent_handlers,
            max_concurrent_per_agent=limits.max_concurrent_per_agent,
            depth_first=depth_first,
        )
        self.dispatcher.turns.usage = self.usage
        self.dispatcher.turns.replies = Replies(
            self.current,
            permissions,
            self.registry,
            self.mint,
            self.ledger,
            writer,
            self.expiries,
            self._sent,
            max_hops=limits.max_hops,
            max_fan_out=limits.max_fan_out,
            bounds=bounds_of(limits),
        )
        self.reception = Reception(self.current, self.registry, self.mint, self.scheduler, limits)
        self.ingress = Ingress(
            self.current,
            self.peer_tables,
            self.registry,
            self.mint,
            self.scheduler,
            self.ledger,
            self.events,
            writer,
            limits,
        )
        self.ingress.waiting = self.dispatcher.lender.lending
        self.gateway = Gateway(self.ingress, self.registry, self.cancel)
        self.sources = Sources(self.ingress, self.events, self.dead_letters)
        self.dead_letters.resend = self.ingress.resend
        self.registry.on_forget = self.history.delete_conversation
        self.registry.on_hold_released = self._hold_released
        self.ledger.on_complete = [*overridden(turn_hooks, "complete"), self._completed]
        self._expiry: asyncio.TimerHandle | None = None
        for part in (self.registry, self.todos, self.history, self.scheduler, self.sources, self.reception):
            runtime.put(part)
        runtime.put(self.peer_tables)
        runtime.put(self.directory)
        runtime.put(self.budgets)
        runtime.put(self.prompts)
        runtime.put(self.notices)
        runtime.put(joins)
        runtime.put(limits)

    def apply(self, limits: Limits) -> None:
        """Put other limits into effect, except ``thread_scheduling``: queues keep the order they were made with."""
        old, self.limits = self.limits, limits
        self.runtime.put(limits)
        self._turn_limit.max_turns = limits.max_turns
        self.dispatcher.turns.replies.max_hops = limits.max_hops
        self.dispatcher.turns.replies.max_fan_out = limits.max_fan_out
        self.dispatcher.turns.replies.bounds = bounds_of(limits)
        self.dispatcher.resize(limits.max_concurrent_handlers, limits.max_concurrent_per_agent)
        rate = self.scheduler.rate
        if limits.rate != old.rate:
            rate = None if limits.rate is None else TokenBucket(limits.rate)
        self.scheduler.apply(limits.max_queue, limits.max_queue_per_listener, limits.max_concurrent_pipelines, rate)
        self.reception.apply(limits)
        self.ingress.apply(limits)
        self.history.max_history_bytes = limits.max_history_bytes
        self.history.max_threads = self.registry.max_threads = limits.max_threads
        self.registry.thread_idle_ttl = limits.thread_idle_ttl
        self.dead_letters.capacity = limits.max_dead_letters
        self.budgets.configure(limits.max_tokens_per_thread)

    def swap(self, table: RoutingTable) -> None:
        """Put a new routing table in force, and its limits into effect."""
        old, self.current.table = self.current.table, table
        update_usage(table)
        self.usage.forget()
        self._writer.forget()
        self.prompts.swap(PromptsOfTable(table), keep_registered=True)
        for name, listener in table.listeners.items():
            if old.listeners.get(name) is not listener:
                self.dispatcher.lanes.configure(listener)
        for name, listener in old.listeners.items():
            if name not in table.listeners:
                self.dispatcher.lanes.forget(listener)
        self.scheduler.resize()
        self.ingress.forget_senders()

    def cancel(self, thread: str, error: PipelineError) -> bool:
        """Cancel a conversation, or the call on a frame; returns whether there was something to cancel."""
        conversation = self.registry.find(thread)
        if conversation is not None:
            is_own = conversation.owner == "system"  # which ends with the pump
            if is_own or not conversation.open or conversation.status is ConversationStatus.KILLED:
                return False
            self.ledger.cancel_conversation(conversation, error)
            return True
        frame = self.registry.frame(thread)
        if frame is None:
            return False
        self.ledger.cancel_call(frame, error)
        return True

    @property
    def table(self) -> RoutingTable:
        """The routing table in force."""
        return self.current.table

    def _window_of(self, target: str) -> int:
        listener: Listener | None = self.table.listeners.get(target)
        if listener is None:
            return MAX_BATCH
        limit = limit_of(listener, self.limits.max_concurrent_per_agent)
        return max(2 * (self.limits.max_concurrent_handlers if limit == UNLIMITED else limit), MAX_BATCH)

    def _running_frame(self) -> Frame | None:
        """The frame of ours whose handler runs here, or in which what runs here was left behind."""
        turn = current_turn.get()
        return turn.frame if turn is not None and current_runtime() is self.runtime else None

    def _running_listener(self) -> Listener | None:
        frame = self._running_frame()
        return None if frame is None else frame.listener

    def _conversation_of(self, thread_id: str) -> str | None:
        """The open conversation that a frame's id, or its own, belongs to."""
        frame = self.registry.frame(thread_id)
        if frame is not None:
            return frame.conversation.id
        conversation = self.registry.find(thread_id)
        return thread_id if conversation is not None and conversation.open else None

    def _schemas_of(self, agent: str, thread_id: str) -> str | None:
        """How an agent may call its peers, as a conversation's peer table leaves them."""
        frame, listener = self.registry.frame(thread_id), self.table.listeners.get(agent)
        if frame is None or listener is None:
            return None
        return self.usage.of(listener, frame.conversation.peer_table)

    def _peers_modified(self, name: str, listener_name: str, changed: bool) -> None:
        if self.events.active:
            self.events.emit(ReloadEvent(True, updated_listeners=[listener_name] if changed else []))

    def _sent(self, state: MessageState) -> None:
        """A handler sent a message: tell of it, and put it in line for re-injection."""
        if self.events.active:
            self._turn_events.sent(state)
        self.outlet.put(state)

    def _not_reinjected(self, state: MessageState, exc: Exception) -> None:
        self.ledger.fail(state, HandlerError(f"re-injection raised {type(exc).__name__}: {exc}", step="reinject"))

    def recover(self, failure: PipelineError) -> None:
        """After a stage broke the pipeline: end what was inside it, and hand on again what handlers had sent."""
        for state in self.scheduler.take_inside():
            if state.outcome is None:
                state.fail(failure)
                self.ledger.fail(state, failure)
        queued = self.scheduler.internal_numbers()
        self.scheduler.push(
            state for state in self.outlet.take_back() if state.outcome is None and state.number not in queued
        )

    # -- what follows a conversation's end ----------------------------------------------------------------------

    def _completed(self, conversation: Conversation) -> None:
        if conversation.owner != "system":  # the pump's own conversation is as long as its life
            self.hooks.completed(conversation.id)
        if self._expiry is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                return  # no loop runs: the next completion inside one sets the timer
            self._expiry = loop.call_later(self.limits.thread_idle_ttl, self._expire)

    def _expire(self) -> None:
        """Forget conversations whose time is over, and come again for the next."""
        left = self.registry.expire()
        loop = asyncio.get_running_loop()
        self._expiry = None if left is None else loop.call_later(max(left, 0.001), self._expire)

    def _hold_released(self, frame: Frame) -> None:
        self.ledger.settle(frame)
        self.ledger.complete_if_over(frame.conversation)
        if not self.mint.in_flight:
            self.ledger.on_idle()

    def _history_trimmed(self, conversation_id: str, slots: int, size: int) -> None:
        if self.events.active:
            self.events.emit(HistoryTrimmedEvent(conversation_id, slots, size, conversation_id=conversation_id))

    async def tell_completions(self) -> None:
        """Tell the public hooks of complete conversations, in order, for ever."""
        while True:
            await self.hooks.complete(await self.hooks.completions.get())

    async def tell_remaining_completions(self) -> None:
        """Tell the public hooks of the conversations they have not been told of yet."""
        while not self.hooks.completions.empty():
            await self.hooks.complete(self.hooks.completions.get_nowait())

    def close(self) -> None:
        """Stop the timers of conversations and calls."""
        self.expiries.close()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
