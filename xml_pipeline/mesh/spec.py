"""`AgentSpec`: what the author of an agent says about it. What it takes and returns is in its handler."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from xml_pipeline.mesh.subjects import check_agent_name

__all__ = ["AgentSpec"]


class AgentSpec(BaseModel):
    """What an agent is called, and how it is served.

    Args:
        name: segments of letters, digits, ``_`` and ``-``, joined by dots; leading segments are its channel.
        description: what it does, for people and models that choose; empty for the handler's docstring.
        tags: words to find it by.
        version: of the agent.
        max_concurrency: requests that are handled at the same time on this host.
        max_queue: requests that wait here for one of those to end; more are answered `Overloaded`.
        timeout: seconds a request may take on this host, waiting included; ``None`` for as long as its caller waits.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    description: str = ""
    tags: list[str] = Field(default_factory=list)
    version: str = "0.1.0"
    max_concurrency: int = Field(default=64, ge=1)
    max_queue: int = Field(default=1000, ge=0)
    timeout: float | None = Field(default=None, gt=0)

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        return check_agent_name(name)
