"""How messages end, and what follows: the one place where outcomes are given.

Every accepted message gets exactly one `Outcome` here. It is counted and emitted; a failure is told to the frame
that called, or to whoever asked from outside, or kept as a dead letter; then the frame it was for is closed if nothing
is left to do on it, and so on up its callers; and when nothing of the conversation is left, it is complete.

The order matters: what a turn sends is made, and so counted, before the message of that turn is finished. Hence a
conversation's count reaches zero once, when it really is over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from xml_pipeline.errors import ConversationCancelled, NoAnswer, PipelineError
from xml_pipeline.message_bus.dead_letters import DeadLetters
from xml_pipeline.message_bus.events import EventHub, OutcomeEvent, ThreadEvent
from xml_pipeline.message_bus.message_state import MessageState, Origin, Outcome
from xml_pipeline.message_bus.thread_registry import Conversation, ConversationStatus, Frame, FrameState, ThreadRegistry

if TYPE_CHECKING:
    from xml_pipeline.message_bus.exchange import Exchange
    from xml_pipeline.message_bus.mint import Mint
    from xml_pipeline.message_bus.scheduler import Scheduler

__all__ = ["Ledger"]

logger = logging.getLogger(__name__)

# Looking a member up in its enum costs more than a comparison, and these are compared for every message.
_OPEN = FrameState.OPEN
_CANCELLED = FrameState.CANCELLED
_ENDED = FrameState.ENDED
_KILLED = ConversationStatus.KILLED
_ERROR = ConversationStatus.ERROR
_COMPLETED = ConversationStatus.COMPLETED


class Ledger:
    """Gives outcomes, reports failures, closes frames, completes conversations.

    Args:
        registry: frames and conversations.
        mint: makes error messages.
        scheduler: is told when a message leaves its windows.
        events: where outcomes are emitted.
        dead_letters: where failures go that nobody waits for.
    """

    def __init__(
        self,
        registry: ThreadRegistry,
        mint: Mint,
        scheduler: Scheduler,
        events: EventHub,
        dead_letters: DeadLetters,
    ) -> None:
        self._registry = registry
        self._mint = mint
        self._scheduler = scheduler
        self._events = events
        self._dead_letters = dead_letters
        # Keyed by the plain strings: an enum member's hash is a Python function, and this counts every message.
        self.outcomes: dict[str, int] = {str(outcome): 0 for outcome in Outcome}
        self.emit: Callable[[MessageState], None] = lambda state: scheduler.push((state,))
        """Where error messages go; the dispatcher puts them in line behind the turn's answers."""
        self.cancel_running: Callable[[Conversation, Callable[[Frame], bool], PipelineError], None] = (
            lambda conversation, wanted, error: None
        )
        """Cancels the running handlers of the frames picked."""
        self.discard_waiting: Callable[[Conversation, Callable[[MessageState], bool]], list[MessageState]] = (
            lambda conversation, wanted: []
        )
        """Removes messages that wait for a handler."""
        self.on_complete: list[Callable[[Conversation], None]] = []
        self.on_idle: Callable[[], None] = lambda: None

    # -- one message --------------------------------------------------------------------------------------------

    def finish(
        self, state: MessageState, outcome: Outcome, failure: PipelineError | None = None, letter: str = ""
    ) -> None:
        """Give a message its outcome. Call it once everything that follows from the message has been made."""
        if state.outcome is not None:
            return
        state.outcome = outcome
        self.outcomes[outcome._value_] += 1
        if state.in_pipe:
            self._scheduler.leave(state)
        if state.window is not None:
            self._scheduler.started(state)
        if self._events.active:
            self._emit_outcome(state, outcome, failure or state.failure, letter)
        mint = self._mint
        mint.in_flight -= 1
        conversation = state.conversation
        if conversation is not None:
            conversation.pending -= 1
            frame = state.frame
            if frame is not None:
                left = frame.pending = frame.pending - 1
                if not left:
                    self.settle(frame)
            elif state.is_answer and state.sender is not None and state.sender.exchange is not None:
                state.sender.exchange.landed()
            if not conversation.pending and not conversation.holds:
                self._complete(conversation)
        if not mint.in_flight:
            self.on_idle()

    def fail_turn(self, state: MessageState, frame: Frame, failure: PipelineError) -> None:
        """End a message whose handler failed: its frame closes with all below it, and its caller is told."""
        logger.info("turn of %r failed: %s: %s", frame.callee, failure.code, failure.detail)
        self.cancel(frame, failure, keep=state)
        outcome, letter = self.report(failure, frame.parent, frame.tag, frame)
        self.finish(state, outcome, failure, letter)

    def fail(self, state: MessageState, failure: PipelineError) -> None:
        """End a message that did not reach its handler, and tell whoever is to get something in its place."""
        logger.info("message %s failed: %s: %s", state.message_id, failure.code, failure.detail)
        frame = state.frame
        if frame is None:  # an answer on its way out: its sender's exchange gets the error instead
            exchange = state.sender.exchange if state.sender else None
            told = (Outcome.FAILED, "")
            if exchange is not None and not exchange.fail(failure):
                told = (Outcome.DEAD_LETTERED, self._bury(exchange, state.sender, failure)) if state.sender else told
        elif state.is_answer:
            above = frame.parent if state.from_id == "system" else frame
            told = self.report(failure, above, state.tag, frame)
        else:
            self.cancel(frame, failure, keep=state)
            told = self.report(failure, frame.parent, frame.tag, frame)
        self.finish(state, told[0], failure, told[1])

    def refuse(self, frame: Frame, to: str, tag: str, failure: PipelineError) -> None:
        """Record a call or an answer that a handler wanted to make and may not, and tell the frame that made it."""
        state = self._mint.stillborn(frame.conversation, frame, to)
        state.fail(failure)
        logger.info("message %s of %r refused: %s: %s", state.message_id, frame.callee, failure.code, failure.detail)
        outcome, letter = self.report(failure, frame, tag, frame)
        self.finish(state, outcome, failure, letter)

    def expire(self, state: MessageState) -> None:
        """End a message whose frame is closed."""
        frame = state.frame
        cancelled = frame is not None and frame.state is _CANCELLED
        self.finish(state, Outcome.CANCELLED if cancelled else Outcome.EXPIRED)

    def deliver(self, state: MessageState) -> None:
        """Hand an answer to whoever asked from outside."""
        sender = state.sender
        exchange = sender.exchange if sender is not None else None
        self.finish(state, Outcome.EXPIRED if exchange is None else exchange.deliver(state.payload))

    # -- failures -----------------------------------------------------------------------------------------------

    def report(
        self, failure: PipelineError, at: Frame | None, tag: str, concerned: Frame | None
    ) -> tuple[Outcome, str]:
        """Tell the calling frame; a tool that does not take errors closes, and its caller is told instead.

        Args:
            failure: what happened.
            at: the frame that is to be told; ``None`` for whoever asked from outside.
            tag: of the call that failed.
            concerned: the frame that it happened to.

        Returns:
            The outcome of the message that failed, and the id of its dead letter, if it became one.
        """
        closing: Frame | None = None
        while at is not None and at.state is _OPEN and not (at.listener is not None and at.listener.accepts_errors):
            closing, tag, at = at, at.tag, at.parent
        if closing is not None:
            self.cancel(closing, failure)  # once, with all the tools below it that the error passed
        if at is not None:
            if at.state is not _OPEN or at.listener is None:
                return Outcome.EXPIRED, ""
            self.emit(self._mint.error(failure, at, at.listener, tag))
            return Outcome.FAILED, ""
        exchange = concerned.exchange if concerned is not None else None
        if exchange is None or concerned is None or exchange.fail_in_turn(failure):
            return Outcome.FAILED, ""
        if isinstance(failure, ConversationCancelled):
            return Outcome.CANCELLED, ""  # somebody wanted it so: nothing to retry
        return Outcome.DEAD_LETTERED, self._bury(exchange, concerned, failure)

    def _bury(self, exchange: Exchange, concerned: Frame, failure: PipelineError) -> str:
        root = concerned
        while root.parent is not None:
            root = root.parent
        letter = self._dead_letters.add(
            wire=(exchange.wire or b"") if root.part is None else root.part.wire(exchange.conversation_id),
            target=exchange.target if root.part is None else root.callee,
            from_id=exchange.from_id,
            thread_id=root.id,
            conversation_id=exchange.conversation_id,
            code=failure.code,
            detail=failure.detail,
            step=failure.step,
            attempts=exchange.attempts,
            routing_table=concerned.conversation.peer_table,
        )
        logger.warning(
            "dead letter %s from %r to %r: %s: %s", letter.id, letter.from_id, letter.target, letter.code, letter.detail
        )
        return letter.id

    # -- frames -------------------------------------------------------------------------------------------------

    def settle(self, frame: Frame | None) -> None:
        """Close a frame on which nothing is left to do, and its callers as far as that holds for them."""
        while frame is not None:
            parent = frame.parent
            if frame.state is not _OPEN:
                frame = parent
                continue
            if frame.pending or frame.open_children or frame.holds:
                return
            self._registry.close(frame, _ENDED)
            if frame.expect_answer and not frame.answered and parent is not None:
                self.report(
                    NoAnswer(f"{frame.callee!r} ended without an answer", target=frame.callee),
                    parent,
                    frame.tag,
                    frame,
                )
            frame = parent

    def close(self, frame: Frame) -> None:
        """Close a frame that responded or handed over. Its children run on; what is queued for it expires."""
        self._registry.close(frame, _ENDED)
        self._end_queued(frame)
        if frame.pending > 1:
            self._end_waiting(frame.conversation, lambda other: other is frame)
        self.settle(frame.parent)

    def cancel(self, frame: Frame, failure: PipelineError, keep: MessageState | None = None) -> None:
        """Close a frame and everything below it: queued turns and running handlers are cancelled."""
        conversation, parent = frame.conversation, frame.parent
        doomed = frame.subtree() if frame.children else [frame]
        if parent is not None:
            parent.pending += 1  # it must not be closed for want of work before it is told of the failure
        self._cancel_frames(conversation, doomed, failure, keep)
        if parent is not None:
            parent.pending -= 1

    def cancel_call(self, frame: Frame, failure: PipelineError) -> None:
        """Cancel one call and everything below it; its caller is told."""
        conversation = frame.conversation
        conversation.pending += 1  # it must not complete before the caller is told
        self.cancel(frame, failure)
        self.report(failure, frame.parent, frame.tag, frame)
        self.settle(frame.parent)
        conversation.pending -= 1
        self.complete_if_over(conversation)

    def cancel_conversation(self, conversation: Conversation, failure: PipelineError) -> None:
        """Cancel all of a conversation; whoever waits for it gets ``failure``."""
        conversation.status = _KILLED
        conversation.failure = failure
        conversation.pending += 1  # it must not complete before all of it is cancelled
        for exchange in conversation.exchanges:
            exchange.fail(failure)
        for state in self._scheduler.discard(conversation.id, lambda state: True):
            self.finish(state, Outcome.CANCELLED, failure)
        self._cancel_frames(conversation, conversation.open_frames(), failure)
        conversation.pending -= 1
        if conversation.pending and self._events.active:
            # Messages of it are still inside a stage; its next turn may begin before they have come out.
            self.emit_thread(conversation)
            conversation.is_end_told = True
        self.complete_if_over(conversation)

    def _cancel_frames(
        self, conversation: Conversation, doomed: list[Frame], failure: PipelineError, keep: MessageState | None = None
    ) -> None:
        ids = set(doomed)
        for frame in doomed:
            self._registry.close(frame, _CANCELLED)
        busy = [frame for frame in doomed if frame.pending]
        for frame in busy:
            self._end_queued(frame)
        if any(frame.pending > (keep is not None and keep.frame is frame) for frame in busy):
            self._end_waiting(conversation, lambda frame: frame in ids)
            self.cancel_running(conversation, lambda frame: frame in ids, failure)

    def _end_queued(self, frame: Frame) -> None:
        queue, frame.queue = frame.queue, None
        for state in queue or ():
            self.expire(state)

    def _end_waiting(self, conversation: Conversation, wanted: Callable[[Frame], bool]) -> None:
        for state in self.discard_waiting(conversation, lambda state: state.frame is not None and wanted(state.frame)):
            self.expire(state)

    # -- conversations ------------------------------------------------------------------------------------------

    def complete_if_over(self, conversation: Conversation) -> None:
        """Complete a conversation of which nothing is left, e.g. after a hold was released."""
        if conversation.open and not conversation.pending and not conversation.holds:
            self._complete(conversation)

    def _complete(self, conversation: Conversation) -> None:
        if not conversation.open:
            return
        if conversation.children:
            for frame in conversation.open_frames():
                self._registry.close(frame, _ENDED)
        exchanges = conversation.exchanges
        for exchange in exchanges:
            exchange.complete()
            if exchange.error is not None and conversation.failure is None:
                conversation.failure = exchange.error
        if conversation.failure is not None:
            conversation.failure = conversation.failure.bare()  # it is remembered, and its frames must not be
        if len(exchanges) > 1:
            conversation.exchanges = (exchanges[-1],)  # kept for a later wait()
        if conversation.deadline_timer is not None:
            conversation.deadline_timer.cancel()
            conversation.deadline_timer = None
        if conversation.status is not _KILLED:
            failed = conversation.failure is not None and not isinstance(conversation.failure, NoAnswer)
            conversation.status = _ERROR if failed else _COMPLETED
        self._registry.retire(conversation)
        if self._events.active and not conversation.is_end_told:
            self.emit_thread(conversation)
        for callback in self.on_complete:
            callback(conversation)

    # -- events -------------------------------------------------------------------------------------------------

    def emit_thread(self, conversation: Conversation) -> None:
        """Emit the conversation's status."""
        failure = conversation.failure
        ended = conversation.status in (_ERROR, _KILLED)
        self._events.emit(
            ThreadEvent(
                conversation.id,
                str(conversation.status),
                list(conversation.participants),
                (failure.detail or str(failure)) if failure is not None and ended else None,
                conversation_id=conversation.id,
            )
        )

    def _emit_outcome(self, state: MessageState, outcome: Outcome, failure: PipelineError | None, letter: str) -> None:
        tree = state.payload_tree
        self._events.emit(
            OutcomeEvent(
                state.message_id,
                str(outcome),
                state.thread_id or "",
                state.from_id or "",
                state.to_id or "",
                "" if tree is None else str(tree.tag),
                failure.code if failure else "",
                failure.detail if failure else "",
                letter,
                state.repairs,
                parent=state.message_id,
                conversation_id=state.conversation.id if state.conversation is not None else "",
            )
        )


def cancel_all(ledger: Ledger, states: Iterable[MessageState], failure: ConversationCancelled) -> int:
    """End messages that will not be processed any more; whoever waits is told. Returns how many."""
    count = 0
    for state in states:
        if state.outcome is not None:
            continue
        count += 1
        frame = state.frame
        if state.origin is Origin.EXTERNAL and frame is not None and frame.exchange is not None:
            frame.exchange.fail(failure)
        ledger.finish(state, Outcome.CANCELLED, failure)
    return count
