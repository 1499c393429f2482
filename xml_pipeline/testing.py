"""What the tests of an organism need: `TestPump`.

::

    from xml_pipeline.testing import TestPump

    async def test_greeter() -> None:
        async with TestPump("organism.yaml") as pump:
            answer = await pump.ask("greeter", Greeting("Ada"))
        assert answer == GreetingResponse("Hello, Ada!")

It is a real pump that runs real messages: nothing is mocked, and time is real. What it adds: the test fails when a
handler does, also when nobody asked; it waits until there is nothing left to do; it remembers every conversation; and
when a test fails, the conversations are shown with the failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from xml_pipeline.config import ConfigLoader, OrganismConfig
from xml_pipeline.errors import DeadlineExceeded, HandlerError, PipelineError, from_code
from xml_pipeline.message_bus.events import OutcomeEvent
from xml_pipeline.message_bus.listener import Listener
from xml_pipeline.message_bus.message_state import HandlerMetadata, Outcome
from xml_pipeline.message_bus.routing import RoutingTable
from xml_pipeline.message_bus.statistics import ShutdownReport
from xml_pipeline.message_bus.stream_pump import StreamPump
from xml_pipeline.message_bus.transcript import ConversationRecord, MessageRecord, Transcript

__all__ = ["ConversationRecord", "Failure", "MessageRecord", "TestPump"]

_MAX_EVENTS: Final = 10_000_000
"""Events that may wait for the transcript: a test's record must have no gaps."""
_CANCEL: Final = 0.0
"""Seconds to drain after a test has failed: what it started is of no use any more."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A handler failed, or a message failed that nobody waited for.

    Args:
        listener: whose handler; for a message that reached none, its target.
        conversation_id: in which conversation.
        message_id: on which message.
        code: the error code, ``handler`` where the handler is to blame.
        detail: what happened.
        exception: what the handler raised; ``None`` where it raised nothing.
    """

    listener: str
    conversation_id: str
    message_id: str
    code: str
    detail: str
    exception: BaseException | None = None


class TestPump(StreamPump):
    """A pump for tests; enter it with ``async with``.

    Args:
        organism: an organism file, or a configuration. Without one, `register` listeners before you enter the pump, or
            inside.
        timeout: seconds that `ask`, `until_idle` and leaving the pump may take; beyond it they fail and say what is
            not done.
        raise_errors: raise `failures` in `until_idle` and on leaving. ``False`` for tests in which something must fail.
        **options: as for `StreamPump`, e.g. ``name`` or ``max_hops``; not together with ``organism``.

    Raises:
        ConfigurationError: everything that is wrong with the organism file, or with an option.
    """

    __test__ = False
    """It is no test, whatever its name says to pytest."""

    def __init__(
        self,
        organism: str | Path | OrganismConfig | None = None,
        *,
        timeout: float = 10.0,
        raise_errors: bool = True,
        **options: Any,
    ) -> None:
        self._wait = timeout
        self._raise_errors = raise_errors
        self._raised: dict[str, BaseException] = {}
        self._known: set[str] = set()
        self._transcript = Transcript()
        path = ""
        if isinstance(organism, str | Path):
            path = str(organism)
            organism = ConfigLoader.load(path)
        super().__init__(organism, path, **options)
        self.engine.events.subscribe(self._transcript, maxsize=_MAX_EVENTS)
        self.register_all()

    # -- asking -------------------------------------------------------------------------------------------------

    async def ask(self, target: str | None, payload: Any, **options: Any) -> Any:
        """`request`, with the conversation in the error and the handler's own exception behind it.

        Args:
            target: a listener's or a group's name.
            payload: an instance of one of its payload classes.
            **options: as for `request`; ``timeout`` is the pump's if not given.

        Returns:
            The first answer.

        Raises:
            PipelineError: as `request`. When a handler raised, its exception is the cause (``__cause__``), and the
                failure counts as seen: it is not raised again on leaving.
        """
        thread: str = options.setdefault("thread_id", str(uuid.uuid4()))
        options.setdefault("timeout", self._wait)
        try:
            return await self.request(target, payload, **options)
        except PipelineError as error:
            await self._flush()
            failures = [failure for failure in self.failures if failure.conversation_id == thread]
            self._known.update(failure.message_id for failure in failures)
            error.add_note(self._tell(thread))
            cause = next((failure.exception for failure in failures if failure.exception is not None), None)
            if cause is None:
                raise
            raise error from cause

    async def until_idle(self) -> None:
        """Wait until every message has its outcome, and no handler runs.

        Raises:
            PipelineError: a handler failed, or a message became a dead letter, and the test has not seen it yet. It is
                a `HandlerError` where a handler raised, with the exception as its cause (``__cause__``).
            DeadlineExceeded: there is still something to do after the pump's ``timeout``.
        """
        try:
            async with asyncio.timeout(self._wait):
                await self.wait_idle()
        except TimeoutError:
            await self._flush()
            error = DeadlineExceeded(f"not idle after {self._wait} s: {self._busy()}", step="until_idle")
            error.add_note(self._tell())
            raise error from None
        await self._flush()
        self._raise_unseen()

    # -- what happened ------------------------------------------------------------------------------------------

    @property
    def conversations(self) -> list[ConversationRecord]:
        """Every conversation so far, in order, without those that the pump itself began.

        Complete up to the last `ask` or `until_idle`; each has ``messages``, ``path``, ``status`` and `format`.
        """
        return [record for record in self._transcript.conversations.values() if not _is_boot(record)]

    @property
    def outcomes(self) -> list[OutcomeEvent]:
        """The outcome of every message so far, in order, without those that the pump itself sent."""
        own = {record.id for record in self.conversations}
        return [event for event in self._transcript.outcomes if event.conversation_id in own]

    @property
    def failures(self) -> list[Failure]:
        """Every failure of a handler, and every message that became a dead letter, in order, raised or not."""
        return [failure for event in self._transcript.outcomes if (failure := self._failure(event)) is not None]

    def forget_failures(self) -> list[Failure]:
        """Take the failures that nobody has seen yet; they are not raised any more."""
        unseen = [failure for failure in self.failures if failure.message_id not in self._known]
        self._known.update(failure.message_id for failure in unseen)
        return unseen

    # -- entering and leaving -----------------------------------------------------------------------------------

    async def __aexit__(self, *exc: object) -> None:
        error = exc[1] if len(exc) > 1 else None
        report = await self.shutdown(self._wait if error is None else _CANCEL)
        if error is None:
            self._raise_unseen()
            self._raise_unfinished(report)
        elif isinstance(error, Exception) and not _has_notes(error):
            error.add_note(self._tell())

    def _raise_unseen(self) -> None:
        if not self._raise_errors:
            return
        unseen = self.forget_failures()
        if not unseen:
            return
        first = unseen[0]
        error = from_code(first.code, first.detail)
        error.target = first.listener
        for other in unseen[1:]:
            error.add_note(f"and: {other.detail}")
        error.add_note(self._tell(*dict.fromkeys(failure.conversation_id for failure in unseen)))
        raise error from first.exception

    def _raise_unfinished(self, report: ShutdownReport) -> None:
        if report.drained and not report.hung:
            return
        names = ", ".join(map(repr, report.hung)) or f"{report.cancelled} messages"
        error = DeadlineExceeded(f"not done after {self._wait} s, and cancelled: {names}", step="shutdown")
        error.add_note(self._tell())
        raise error

    # -- how ----------------------------------------------------------------------------------------------------

    def _swap(self, table: RoutingTable) -> None:
        for listener in table.listeners.values():
            self._listen_to(listener)
        super()._swap(table)

    def _listen_to(self, listener: Listener) -> None:
        """Have the exceptions of a handler noted before the pump makes payloads of them."""
        if isinstance(listener.handler, _Noting):
            return
        note = _NotingStream if listener.streams else _NotingCall
        listener.handler = note(listener.handler, self._raised)

    async def _flush(self) -> None:
        await self.engine.events.flush(self._wait)

    def _failure(self, event: OutcomeEvent) -> Failure | None:
        # A handler that was cancelled because another one failed carries that one's code, and is not to blame.
        to_blame = event.code == HandlerError.code and event.outcome == Outcome.FAILED
        if not to_blame and event.outcome != Outcome.DEAD_LETTERED:
            return None
        message = self._transcript.message(event.message_id)
        reached = message is not None and message.received is not None
        refused = to_blame and not reached  # something that the sender returned, and that could not be sent
        return Failure(
            event.from_id if refused else event.to_id,
            event.conversation_id,
            event.message_id,
            event.code,
            event.detail,
            self._raised.get(event.message_id),
        )

    def _busy(self) -> str:
        busy = [each for each in self.statistics().listeners if each.running or each.waiting or each.queued]
        texts = [f"{each.name!r} (running {each.running}, waiting {each.waiting + each.queued})" for each in busy]
        return ", ".join(texts) or "messages inside the pipeline"

    def _tell(self, *conversation_ids: str) -> str:
        """The conversations, as text; all of them without an id."""
        records = self.conversations
        if conversation_ids:
            records = [record for record in records if record.id in conversation_ids]
        shown = records[-10:]
        texts = [f"({len(records) - len(shown)} earlier conversations are not shown)"] if len(records) > 10 else []
        return "\n".join([*texts, *(record.format() for record in shown)]) or "(there was no conversation)"


def _is_boot(record: ConversationRecord) -> bool:
    first = record.messages[0] if record.messages else None
    return first is not None and (first.from_id, first.to_id) == ("system", "system.boot")


def _has_notes(error: BaseException) -> bool:
    return any(note.startswith("conversation ") for note in getattr(error, "__notes__", ()))


class _Noting:
    """A handler whose exceptions are noted by message."""

    def __init__(self, handler: Callable[..., Any], raised: dict[str, BaseException]) -> None:
        self._handler = handler
        self._raised = raised


class _NotingCall(_Noting):
    async def __call__(self, payload: Any, metadata: HandlerMetadata) -> Any:
        try:
            return await self._handler(payload, metadata)
        except BaseException as exc:
            self._raised[metadata.message_id] = exc
            raise


class _NotingStream(_Noting):
    async def __call__(self, payload: Any, metadata: HandlerMetadata) -> AsyncIterator[Any]:
        try:
            async with contextlib.aclosing(self._handler(payload, metadata)) as items:
                async for item in items:
                    yield item
        except GeneratorExit:
            raise
        except BaseException as exc:
            self._raised[metadata.message_id] = exc
            raise
