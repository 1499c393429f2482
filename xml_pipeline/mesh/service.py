"""`Service`: one agent that takes requests, on this host.

::

    arrived --slot--> running --> answered
       |  \\--no slot--> waiting --slot--> running
       |                    \\--deadline, cancelled--> answered
       \\--queue full--> answered (overloaded)

Every request ends in exactly one answer to whoever asked, if there is a subject to send it to (`answers`): also one
that cannot be read, one that comes too late, one whose handler was cancelled or raised whatever there is to raise, and
one whose answer is too large.

A handler runs in a task of its own. One that can begin a request and be told later of its end (`raw.RawHandler`) needs
none, and its answers go out from wherever they are made: a task costs as much as the rest of a short request.

What a handler raised stays in this host's log; the caller gets a general sentence, unless it is a `MeshError`, which is
meant for it.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh.answers import RESEND, Answers
from xml_pipeline.mesh.deadlines import Deadlines
from xml_pipeline.mesh.errors import (
    CallCancelled,
    HandlerError,
    InvalidInput,
    MeshError,
    MeshTimeout,
    Overloaded,
)
from xml_pipeline.mesh.job import Job, make_current
from xml_pipeline.mesh.outflow import Outflow
from xml_pipeline.mesh.preflight import mismatch_at_host
from xml_pipeline.mesh.protocol import Request
from xml_pipeline.mesh.raw import RawHandler, raw_request
from xml_pipeline.mesh.slots import Admission, Slots
from xml_pipeline.mesh.subjects import agent_subject, queue_group
from xml_pipeline.mesh.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xml_pipeline.mesh.agent import Agent
    from xml_pipeline.mesh.agent_log import AgentLog
    from xml_pipeline.mesh.errors import ConnectionDenied
    from xml_pipeline.mesh.link import Link, Subscription
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.raw import Begin
    from xml_pipeline.mesh.replies import Replies

__all__ = ["Service"]

_log = logging.getLogger(__name__)

_FAREWELL = 2.0
_MOMENT = 0.002  # a request whose host dies within it is lost like one that the host has not read yet


class Service:
    """One agent that takes requests.

    Args:
        agent: which.
        link: the connection.
        replies: where the server says that nobody listens to a stream.
        instance_id: this host.
        log: of the agent.

    Attributes:
        denied: the error, where the server does not permit to take its requests.
    """

    def __init__(self, agent: Agent, link: Link, replies: Replies, instance_id: str, log: AgentLog) -> None:
        self.agent = agent
        self.log = log
        self.denied: ConnectionDenied | None = None
        self.tally = Tally()
        self._link = link
        self._replies = replies
        self._instance_id = instance_id
        self._answers = Answers(agent.name, link, instance_id, log, self.tally)
        self._begin = agent.handler.begin if isinstance(agent.handler, RawHandler) else None
        self._jobs: dict[Job, None] = {}
        self._begun: list[Job] = []
        self._deadlines: Deadlines[Job] = Deadlines(self._jobs.keys, self._expire)
        self._slots: Slots[Job] = Slots(agent.spec.max_concurrency, agent.spec.max_queue, self._run)
        self._subscription: Subscription | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def running(self) -> int:
        """Requests whose handler runs."""
        return len(self._jobs) - self._slots.waiting

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return self._slots.waiting

    async def start(self) -> None:
        """Begin to take requests."""
        name = self.agent.name
        self._subscription = await self._link.subscribe(
            agent_subject(name), self._arrived, queue_group(name), self._is_denied
        )

    def _is_denied(self, error: ConnectionDenied) -> None:
        self.denied = error

    async def stop(self, timeout: float) -> None:
        """Leave the group, finish what was taken, answer it, and give up what is left at the deadline.

        Args:
            timeout: in seconds.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        await self.leave(timeout)
        try:
            async with asyncio.timeout_at(deadline):
                await self._idle.wait()
        except TimeoutError:
            self.cancel_all(CallCancelled("The host of the agent shuts down."))
        tasks = [*self._telling, *(job.task for job in self._jobs if job.task is not None)]
        if tasks:
            _, stubborn = await asyncio.wait(tasks, timeout=_FAREWELL)
            if stubborn:
                text = "%d tasks of %s do not end: a handler takes no notice, or a caller cannot be told"
                _log.warning(text, len(stubborn), self.agent.name)
        self._deadlines.close()

    async def leave(self, timeout: float) -> None:
        """Leave the group: what was taken is handled, and nothing new comes. `stop` does it too.

        Args:
            timeout: in seconds.
        """
        if self._subscription is not None:
            # The server has sent requests that are still on the way; after draining, all of them have arrived.
            await self._subscription.drain(max(_FAREWELL, timeout))
            self._subscription = None

    def cancel_all(self, reason: CallCancelled) -> None:
        """Give up everything that runs or waits."""
        for job in list(self._jobs):
            self._give_up(job, reason)

    def cancel(self, request_id: str) -> None:
        """The caller of this request gave it up."""
        for job in list(self._jobs):
            if job.request.request_id == request_id:
                self._give_up(job, CallCancelled(request_id=request_id))

    # -- arriving

    def _arrived(self, message: Message) -> None:
        self.tally.requests += 1
        request = Request.read(message.headers)
        job = Job(message, request, self._slots, self._deadline(request))
        self._jobs[job] = None
        self._idle.clear()
        if self.log.is_debug:
            self.log.received(request.request_id)
        self._deadlines.watch(job.deadline)
        admission = self._slots.admit(job)
        if admission is Admission.RUN:
            self._run(job)
            if request.accept:
                self._accept_soon(job)
        elif admission is Admission.WAIT:
            self._answers.accept(job)
        else:
            job.reason = Overloaded()
            job.task = asyncio.create_task(self._refuse(job))

    def _deadline(self, request: Request) -> float | None:
        limit, own = request.deadline, self.agent.spec.timeout
        if limit is None or (own is not None and own < limit):
            limit = own
        return None if limit is None else asyncio.get_running_loop().time() + limit

    def _run(self, job: Job) -> None:
        job.has_slot = True
        if self._begin is None or not self._link.is_up or not self._begun_by(self._begin, job):
            self._start(job, self._perform)

    def _start(self, job: Job, perform: Callable[[Job], Awaitable[None]]) -> None:
        job.task = asyncio.create_task(self._handle(job, perform), context=job.context)

    # -- handling without a task

    def _begun_by(self, begin: Begin, job: Job) -> bool:
        """Begin a request whose end will be told; ``False`` for one that needs a task."""
        if job.request.streaming:
            return False
        job.begin()
        told = partial(self._told, job)
        try:
            stop = job.context.run(begin, raw_request(job), told)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # it would end whoever freed the slot, or all reading from the connection
            told(b"", error)
            return True
        if job.task is None and not job.is_over:
            job.stop = stop
            job.has_begun = stop is not None
            return job.has_begun
        return True

    def _told(self, job: Job, body: bytes, error: BaseException | None) -> None:
        """The end of such a request. Never raises."""
        if job.is_over or job.task is not None:
            return  # it was given up, and its caller told
        job.stop = None
        if error is None and self._answers.send_now(job, body):
            if self.log.is_debug:
                self.log.completed(job.request.request_id, monotonic() - job.arrived)
            self._end(job)
            return
        job.has_begun = False
        if error is None:
            self._start(job, partial(self._answers.send, body=body))
        else:
            job.reason = self._failure_of(error)
            job.task = asyncio.create_task(self._refuse(job))

    def _accept_soon(self, job: Job) -> None:
        """A moment after it has begun, with all that begin meanwhile: one that is done by then need not say that it has
        begun, which would cost as much as its answer."""
        if not self._begun:
            asyncio.get_running_loop().call_later(_MOMENT, self._accept_all)
        self._begun.append(job)

    def _accept_all(self) -> None:
        begun, self._begun = self._begun, []
        for job in begun:
            self._answers.accept(job)

    def _expire(self, job: Job) -> None:
        self._give_up(job, MeshTimeout(message="The agent did not answer in time."))

    def _give_up(self, job: Job, reason: MeshError) -> None:
        if job.reason is not None or job.is_over:
            return
        if self._slots.withdraw(job) or not job.has_begun or job.stop is not None:
            if job.task is not None:
                job.task.cancel()  # before its first step it does nothing at all, and would not end the request
            job.reason = reason
            job.task = asyncio.create_task(self._refuse(job))
            stop, job.stop = job.stop, None
            if stop is not None:
                stop()
            return
        job.cancel(reason)
        # Its caller is told now, for the handler may take its time, or take no notice.
        self._telling.add(task := asyncio.create_task(self._answers.fail(job, reason)))
        task.add_done_callback(self._telling.discard)

    async def _refuse(self, job: Job) -> None:
        try:
            await self._answers.fail(job, job.reason or Overloaded())
        finally:
            self._end(job)

    def _end(self, job: Job) -> None:
        if job.began:
            self.tally.nanoseconds += perf_counter_ns() - job.began
        job.end()
        job.forget()
        self._jobs.pop(job, None)
        if not self._jobs:
            self._idle.set()

    # -- handling

    async def _handle(self, job: Job, perform: Callable[[Job], Awaitable[None]]) -> None:
        job.begin()
        make_current(job)
        try:
            error = await self._outcome(job, perform)
            if job.usage is not None:
                self.log.used(job.request.request_id, job.usage)
            if error is not None:
                await self._answers.fail(job, error)
            elif self.log.is_debug:
                self.log.completed(job.request.request_id, monotonic() - job.arrived)
        finally:
            self._end(job)

    async def _outcome(self, job: Job, perform: Callable[[Job], Awaitable[None]]) -> MeshError | None:
        """Run the handler and send what it gives; what went wrong, if anything did."""
        try:
            await perform(job)
        except MeshError as error:
            return job.reason or error
        except asyncio.CancelledError:
            return self._cancelled(job)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit: a handler must not end its host
            return job.reason or self._failure_of(error)
        return None

    def _failure_of(self, error: BaseException) -> MeshError:
        if isinstance(error, MeshError):
            return error
        _log.error("the handler of %s failed", self.agent.name, exc_info=error)
        return HandlerError()

    def _cancelled(self, job: Job) -> MeshError:
        task = asyncio.current_task()
        asked = task is not None and task.cancelling() > 0
        while task is not None and task.cancelling():
            task.uncancel()  # it has still to answer
        if job.reason is not None:
            return job.reason
        if asked:
            return CallCancelled("The host of the agent shuts down.")
        _log.error("the handler of %s raised CancelledError itself", self.agent.name)
        return HandlerError()

    async def _perform(self, job: Job) -> None:
        if not self._link.is_up:  # it came with the new connection, before that is there for everybody
            await self._link.wait_up(RESEND)
        handler = self.agent.handler
        request = job.request
        streams = handler.shape.streaming
        if wrong := mismatch_at_host(self.agent.name, streams, request.streaming):
            raise wrong
        if request.streaming and not request.can_stream:
            raise InvalidInput("A stream needs a request id of letters, digits, '_' and '-', at most 128.")
        arguments = handler.arguments(job.message.data)
        if streams:
            await self._stream(job, arguments)
            return
        result = await handler.function(*arguments)
        if job.reason is not None:
            raise job.reason
        await self._answers.send(job, handler.body_of(result))

    async def _stream(self, job: Job, arguments: tuple[Any, ...]) -> None:
        handler = self.agent.handler
        async with Outflow(self._link, self._replies, job.request, self._instance_id) as outflow:
            chunks = handler.function(*arguments)
            try:
                async for chunk in chunks:
                    if job.reason is not None:
                        raise job.reason
                    await outflow.send(handler.body_of(chunk))
            finally:
                await chunks.aclose()
            if job.reason is not None:
                raise job.reason  # its handler took the cancellation for the end
            await outflow.end("" if job.usage is None else job.usage.to_header())
        job.answered = True
