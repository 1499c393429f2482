"""Agents that read and write the bytes themselves, for those who translate between the mesh and something else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from xml_pipeline.mesh.agent import Agent
from xml_pipeline.mesh.contract import AgentContract
from xml_pipeline.mesh.job import current_job
from xml_pipeline.mesh.shapes import Handler, Shape
from xml_pipeline.mesh.spec import AgentSpec

if TYPE_CHECKING:
    from xml_pipeline.mesh.job import Job

__all__ = ["Begin", "RawHandler", "RawRequest", "Told", "raw_agent", "raw_request"]


class RawRequest(NamedTuple):
    """One request as it came.

    Args:
        body: of the request.
        headers: of the request; claims of whoever sent it.
        instance_id: the mesh object that says to have sent it; empty for none.
        request_id: the caller's own name for it; empty for none.
        deadline: in the loop's time, when its caller stops waiting; ``None`` if it does not say.
    """

    body: bytes
    headers: Mapping[str, str]
    instance_id: str
    request_id: str
    deadline: float | None


Told: TypeAlias = Callable[[bytes, BaseException | None], None]
"""Called with the body of the answer and ``None``, or anything and an error, once a request has its end. It may be
called from anywhere in the event loop, also while `Begin` runs, and what comes after the first call is dropped."""

Begin: TypeAlias = Callable[[RawRequest, Told], Callable[[], object] | None]
"""Begins a request without waiting for anything, and tells its end. It returns a function that gives the request up,
which is called at most once and not after the end; or ``None`` for a request that it cannot handle in this way, of
which it must have begun nothing. What it raises is the end of the request."""


@dataclass(frozen=True)
class RawHandler(Handler):
    """A handler whose function takes nothing and gives bytes.

    Args:
        begin: another way, which needs no task for each request; ``None`` for none.
    """

    begin: Begin | None = None

    def arguments(self, body: bytes) -> tuple[Any, ...]:
        """None: its function finds the request by itself."""
        return ()

    def body_of(self, result: Any) -> bytes:
        """The bytes as they are."""
        body: bytes = result
        return body


def raw_agent(
    spec: AgentSpec,
    contract: AgentContract,
    shape: Shape,
    serve: Callable[[RawRequest], Awaitable[bytes]] | Callable[[RawRequest], AsyncGenerator[bytes, None]],
    begin: Begin | None = None,
) -> Agent:
    """An agent that takes requests as they come.

    Args:
        spec: how it is served.
        contract: what others are told.
        shape: which it is.
        serve: gives the body of the answer, or, for a shape that streams, as an async generator function the bodies of
            the chunks. One that is not invocable is run once, with a request that says nothing.
        begin: how most requests can be served without a task for each; for a shape that does not stream.
    """

    def function() -> Any:
        return serve(_request())

    handler = RawHandler(
        function=function,
        shape=shape,
        title=f"the agent {spec.name}",
        input=None,
        optional=True,
        nullable=True,
        output=None,
        begin=begin,
    )
    return Agent(spec, handler, contract)


def raw_request(job: Job) -> RawRequest:
    """The request of a job."""
    message, request = job.message, job.request
    return RawRequest(message.data, message.headers or {}, request.instance_id, request.request_id, job.deadline)


def _request() -> RawRequest:
    job = current_job()
    return RawRequest(b"", {}, "", "", None) if job is None else raw_request(job)
