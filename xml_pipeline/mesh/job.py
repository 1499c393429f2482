"""`Job`: one request while this host has it, and which one the running code belongs to."""

from __future__ import annotations

import asyncio
from contextvars import Context, ContextVar, copy_context
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from xml_pipeline.mesh.errors import MeshError
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.protocol import Request
    from xml_pipeline.mesh.slots import Slots
    from xml_pipeline.mesh.usage import Usage

__all__ = ["Job", "Lending", "current_job", "make_current"]

_CURRENT: ContextVar[Job | None] = ContextVar("mesh_job", default=None)


def current_job() -> Job | None:
    """The request that the running code handles; ``None`` outside of a handler."""
    job = _CURRENT.get()
    return job if job is not None and not job.is_over else None


def make_current(job: Job) -> None:
    """The code that runs in this task belongs to this request from now on."""
    _CURRENT.set(job)


class Job:
    """One request.

    Args:
        message: as it arrived.
        request: what its headers ask.
        slots: those of its agent.
        deadline: in the loop's time, when its caller stops waiting; ``None`` if it does not.

    Attributes:
        has_begun: whether its handler has.
        began: when it did, in nanoseconds of `time.perf_counter_ns`; 0 before.
        has_slot: whether it holds one of the slots.
        answered: whether its last word was sent.
        is_over: whether its handler has ended.
        reason: why this host gave it up, if it did.
        task: that of its handler; ``None`` as long as it has none.
        stop: gives up what its handler began without a task; ``None`` where there is no such thing, or not any more.
        context: what its handler runs in: that in which it arrived, and not that of whoever freed the slot for it.
        arrived: when it was made, in seconds of `time.monotonic`.
        usage: what its handler reported so far, if it did.
    """

    __slots__ = (
        "answered",
        "arrived",
        "asking",
        "began",
        "context",
        "deadline",
        "has_begun",
        "has_slot",
        "is_over",
        "message",
        "reason",
        "request",
        "slots",
        "stop",
        "task",
        "usage",
    )

    def __init__(self, message: Message, request: Request, slots: Slots[Job], deadline: float | None) -> None:
        self.message = message
        self.request = request
        self.slots = slots
        self.deadline = deadline
        self.has_begun = False
        self.began = 0
        self.has_slot = False
        self.answered = False
        self.is_over = False
        self.asking = 0
        self.reason: MeshError | None = None
        self.task: asyncio.Task[None] | None = None
        self.stop: Callable[[], object] | None = None
        self.context = copy_context()
        self.arrived = monotonic()
        self.usage: Usage | None = None

    def begin(self) -> None:
        """Its handler begins."""
        self.has_begun = True
        self.began = self.began or perf_counter_ns()

    def end(self) -> None:
        """It is over, whatever tasks its handler left behind still do."""
        self.is_over = True
        if self.has_slot:
            self.has_slot = False
            self.slots.release()

    def forget(self) -> None:
        """Let go what knows the job itself: circles that only the garbage collector would break."""
        self.task = self.reason = None
        self.context = Context()

    def cancel(self, reason: MeshError) -> None:
        """Cancel its handler.

        Args:
            reason: what it is answered with, unless it was answered already.
        """
        if self.reason is None:
            self.reason = reason
            if self.task is not None:
                self.task.cancel()


class Lending:
    """While a handler only waits for another agent, others may have its slot.

    Without it, an agent that handles one request at a time could never ask itself anything, nor anybody who asks it in
    turn. Several such waits of one handler at the same time count as one.

    Args:
        job: the request whose handler waits.
    """

    __slots__ = ("_job",)

    def __init__(self, job: Job) -> None:
        self._job = job

    async def __aenter__(self) -> None:
        job = self._job
        job.asking += 1
        if job.has_slot:
            job.has_slot = False
            job.slots.release()

    async def __aexit__(self, *_: object) -> None:
        job = self._job
        job.asking -= 1
        if job.asking or job.is_over or job.has_slot:
            return
        got = asyncio.get_running_loop().create_future()

        def resume() -> None:
            job.has_slot = True
            if not got.done():
                got.set_result(None)

        job.slots.come_back(resume)
        try:
            await got
        finally:
            job.slots.give_up(resume)
