"""Agents that read and write the bytes themselves, for those who translate between the mesh and something else."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xml_pipeline.mesh.agent import Agent
from xml_pipeline.mesh.contract import AgentContract
from xml_pipeline.mesh.job import current_job
from xml_pipeline.mesh.shapes import Handler, Shape
from xml_pipeline.mesh.spec import AgentSpec

__all__ = ["RawHandler", "RawRequest", "raw_agent"]


@dataclass(frozen=True, slots=True)
class RawRequest:
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


@dataclass(frozen=True)
class RawHandler(Handler):
    """A handler whose function takes nothing and gives bytes."""

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
) -> Agent:
    """An agent that takes requests as they come.

    Args:
        spec: how it is served.
        contract: what others are told.
        shape: which it is.
        serve: gives the body of the answer, or, for a shape that streams, as an async generator function the bodies of
            the chunks. One that is not invocable is run once, with a request that says nothing.
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
    )
    return Agent(spec, handler, contract)


def _request() -> RawRequest:
    job = current_job()
    if job is None:
        return RawRequest(b"", {}, "", "", None)
    request = job.request
    headers = job.message.headers or {}
    return RawRequest(job.message.data, headers, request.instance_id, request.request_id, job.deadline)
