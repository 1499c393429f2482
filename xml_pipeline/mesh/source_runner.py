"""`SourceRunner`: one source of one agent, at work.

::

    opening --begun--> waiting --an event--> handling --done, failed--> waiting
       ^   |                |                    |
       |   +--trouble--> pausing                 +--the connection was lost--> handling again (changes of keys)
       +--------------------+

It takes one event after the other. What a handler raises, and a value that is not what it takes, is logged, copied to
``mesh.errors.<agent>``, and is the end of this event and not of the source. A message counts as handled when the
handler has begun with it, a change of a key when it is done with it: so one whose handler failed because the connection
was lost is handled again when it is back, and one that was given up at the deadline is, where the server remembers,
handed back.
"""

from __future__ import annotations

import asyncio
import logging
import math
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.errors import ConnectionLost, HandlerError, MeshError, MeshTimeout, for_peers
from xml_pipeline.mesh.kv_write import Pauses
from xml_pipeline.mesh.log_events import LOGS
from xml_pipeline.mesh.protocol import Frame, FrameKind
from xml_pipeline.mesh.subjects import ERRORS, errors_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

    from xml_pipeline.mesh.agent import Agent
    from xml_pipeline.mesh.agent_log import AgentLog
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.watches import Feed

__all__ = ["Events", "SourceRunner", "SourceStatistics"]

_log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 60.0
_LONG = 86_400.0
_FAREWELL = 5.0

_CURRENT: ContextVar[SourceRunner | None] = ContextVar("mesh_source", default=None)


class Events(NamedTuple):
    """What kind of events a source has.

    Args:
        open: makes a feed, each time one is needed.
        arguments: what the handler is called with for an event; ``None`` if it is not.
        details: of an event, for whoever reads of its failure.
        is_lasting: whether an event can be handled again.
    """

    open: Callable[[], Feed[Any]]
    arguments: Callable[[Any], tuple[Any, ...] | None]
    details: Callable[[Any], dict[str, Any]]
    is_lasting: bool


class SourceStatistics(NamedTuple):
    """What a source has done since its agent was activated.

    Args:
        source: which, in words.
        handled: events whose handler ended well.
        failed: events whose handler did not, or that were not what it takes.
        dropped: messages that were dropped because too many waited.
    """

    source: str
    handled: int
    failed: int
    dropped: int


class SourceRunner:
    """One source of one agent.

    Args:
        agent: whose.
        what: the source, in words.
        events: its events.
        link: the connection.
        instance_id: this host.
        log: that of the agent.
    """

    def __init__(self, agent: Agent, what: str, events: Events, link: Link, instance_id: str, log: AgentLog) -> None:
        self._agent = agent
        self._what = what
        self._events = events
        self._link = link
        self._instance_id = instance_id
        self._log = log
        self._feed: Feed[Any] | None = None
        self._is_over = False
        self._is_pausing = False
        self._handled = 0
        self._failed = 0
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None
        self._handling: asyncio.Task[BaseException | None] | None = None

    @property
    def statistics(self) -> SourceStatistics:
        """What it has done so far."""
        dropped = self._dropped + getattr(self._feed, "dropped", 0)
        return SourceStatistics(self._what, self._handled, self._failed, dropped)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """While it is at work, its task; it ends with the last event."""
        return self._task

    async def start(self, after: Collection[asyncio.Task[None]] = ()) -> None:
        """Begin; where nothing prevents it, it has begun when this returns.

        Args:
            after: those of the same agent that have still an event; it begins when they are done.
        """
        begun = asyncio.Event()
        self._task = asyncio.create_task(self._run(begun, after))
        await begun.wait()

    async def stop(self, timeout: float) -> None:
        """Let it finish the event that it is at, then end it.

        Args:
            timeout: seconds for that; afterwards it is cancelled.
        """
        self._is_over = True
        if self._feed is not None:
            self._feed.end()
        task, handling = self._task, self._handling
        if task is None or (handling is not None and _CURRENT.get() is self):
            return  # a handler that ends its own host is not waited for by itself
        if not self._is_pausing:  # otherwise it does not look whether it is over
            await asyncio.wait([task], timeout=timeout if handling is not None else _FAREWELL)
        task.cancel()
        _, stubborn = await asyncio.wait([task], timeout=_FAREWELL)
        if stubborn:
            _log.warning("the handler of %s does not end when it is cancelled (%s)", self._agent.name, self._what)

    # -- the loop

    async def _run(self, begun: asyncio.Event, after: Collection[asyncio.Task[None]]) -> None:
        try:
            if after:
                begun.set()
                await self._pause(asyncio.wait(after))
            pauses = Pauses(math.inf, _FIRST_PAUSE, _LONGEST_PAUSE)
            while not self._is_over:
                try:
                    await self._follow(begun)
                except ConnectionLost:
                    begun.set()
                    await self._pause(self._link.wait_up(_LONG))
                except MeshError as error:
                    begun.set()
                    _log.warning("%s gets nothing from its source (%s): %s", self._agent.name, self._what, error)
                    await self._tell(error, {})
                    await self._pause(pauses.pause())
        except MeshError as error:
            _log.debug("%s of %s ends: %s", self._what, self._agent.name, error)  # the link was closed
        finally:
            begun.set()

    async def _pause(self, until: Coroutine[Any, Any, Any]) -> None:
        self._is_pausing = True
        try:
            await until
        finally:
            self._is_pausing = False

    async def _follow(self, begun: asyncio.Event) -> None:
        feed = self._feed = self._events.open()
        try:
            await feed.start()
            begun.set()
            while (event := await feed.next()) is not None and await self._handle(event):
                pass
        finally:
            self._dropped += getattr(feed, "dropped", 0)
            self._feed = None
            await feed.stop()

    # -- one event

    async def _handle(self, event: Any) -> bool:
        """Whether the event is done with, however it ended."""
        try:
            arguments = self._events.arguments(event)
        except MeshError as error:
            _log.warning("%s failed (%s): %s", self._agent.name, self._what, error)
            self._failed += 1
            await self._tell(error, self._events.details(event))
            return True
        if arguments is None:
            return True
        failure = await self._outcome(arguments)
        while failure is not None and failure.is_interrupted and self._events.is_lasting:
            if self._is_over:
                return False
            await self._pause(self._link.wait_up(_LONG))
            failure = await self._outcome(arguments)
        if failure is None:
            self._handled += 1
        else:
            self._failed += 1
            await self._tell(failure.error, self._events.details(event))
        return True

    async def _outcome(self, arguments: tuple[Any, ...]) -> _Failure | None:
        """Run the handler; what went wrong, if anything did."""
        link = self._link
        losses = link.losses if link.is_up else -1
        error = await self._raised(arguments)
        task = asyncio.current_task()
        if error is not None and task is not None and task.cancelling():
            raise asyncio.CancelledError from error  # whatever it says: it was not let finish
        if error is None:
            return None
        if isinstance(error, asyncio.CancelledError):
            _log.error("the handler of %s raised CancelledError itself (%s)", self._agent.name, self._what)
        elif isinstance(error, MeshError):
            _log.warning("%s failed (%s): %s", self._agent.name, self._what, error)
            was_lost = link.losses != losses or not link.is_up
            return _Failure(error, isinstance(error, ConnectionLost) and was_lost)
        else:
            _log.error("the handler of %s failed (%s)", self._agent.name, self._what, exc_info=error)
        return _Failure(HandlerError(), False)

    async def _raised(self, arguments: tuple[Any, ...]) -> BaseException | None:
        """Run it in a task of its own, as requests are: what it does to its task and context ends with the event."""
        timeout = self._agent.spec.timeout
        handling = self._handling = asyncio.create_task(self._result(arguments))
        try:
            async with asyncio.timeout(timeout):
                return await handling
        except TimeoutError:
            return MeshTimeout(message=f"The handler did not end within {timeout:g} s.", timeout=timeout or 0.0)
        except asyncio.CancelledError as error:
            return error
        finally:
            self._handling = None

    async def _result(self, arguments: tuple[Any, ...]) -> BaseException | None:
        """What the handler raised; not raised again, for a `SystemExit` that leaves a task ends the program."""
        _CURRENT.set(self)
        try:
            await self._agent.handler.function(*arguments)
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:
            return error
        return None

    async def _tell(self, error: MeshError, details: dict[str, Any]) -> None:
        if str(details.get("subject", "")).startswith((ERRORS, LOGS)):
            return  # who reads what is said of failures, and fails, would fail again with what is said of that
        told = for_peers(error, agent=self._agent.name, request_id="")
        told.details = {**told.details, "source": self._what, **details}
        self._log.failed("", told)
        frame = Frame(FrameKind.ERROR, instance_id=self._instance_id).to_headers()
        headers = {name: value for name, value in frame.items() if name != h.STREAM_END}
        try:
            await self._link.publish(errors_subject(self._agent.name), told.to_json(), headers=headers)
        except MeshError as lost:
            _log.debug("a failure of %s could not be told: %s", self._agent.name, lost)


class _Failure(NamedTuple):
    """Why a handler did not end well.

    Args:
        error: as others are told.
        is_interrupted: whether it is because the connection was lost meanwhile.
    """

    error: MeshError
    is_interrupted: bool
