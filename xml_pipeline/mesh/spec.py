"""`AgentSpec`: what the author of an agent says about it. What it takes and returns is in its handler."""

from __future__ import annotations

import difflib
import logging
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from xml_pipeline.mesh.subjects import check_agent_name

__all__ = ["AgentSpec", "check_spec"]

_log = logging.getLogger(__name__)


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

    @model_validator(mode="before")
    @classmethod
    def _knows_all_of_it(cls, given: Any) -> Any:
        """What is not known is left out, for other versions of this class have more; but not without a word."""
        for name in given if isinstance(given, dict) else ():
            if name not in cls.model_fields:
                near = difflib.get_close_matches(str(name), cls.model_fields, 1)
                _log.warning("AgentSpec knows no %r%s", name, f"; did you mean {near[0]!r}?" if near else "")
        return given

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        return check_agent_name(name)


def check_spec(spec: object) -> None:
    """Refuse what is no spec, e.g. the function itself where the parentheses were forgotten.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(spec, AgentSpec):
        what = "the function" if callable(spec) else f"{spec!r:.60}"
        raise TypeError(f"@mesh.agent needs a spec, not {what}: @mesh.agent(AgentSpec(name=...))")
