"""`CatalogEntry`: one line of the catalog."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, ValidationError

from xml_pipeline.mesh.subjects import is_agent_name, is_within

__all__ = ["CatalogEntry"]


class CatalogEntry(BaseModel):
    """What everybody knows of every agent.

    Args:
        name: of the agent.
        description: what it does.
        version: of the agent.
        tags: words to find it by.
        invocable: whether it takes requests.
        streaming: whether what it sends are chunks or events, rather than one answer.
    """

    name: str
    description: str
    version: str = "0.1.0"
    tags: list[str] = Field(default_factory=list)
    invocable: bool = True
    streaming: bool = False

    @classmethod
    def read(cls, element: Any) -> CatalogEntry | None:
        """The entry that an element of the catalog stands for; ``None`` for one that makes no sense."""
        try:
            entry = cls.model_validate(element)
        except (ValidationError, RecursionError):
            return None
        return entry if is_agent_name(entry.name) else None

    def matches(
        self, channel: str | None, tags: list[str] | None, streaming: bool | None, invocable: bool | None
    ) -> bool:
        """Whether it is among those asked for; ``None`` asks for nothing. All tags must be there."""
        return (
            (channel is None or is_within(self.name, channel))
            and (tags is None or set(tags) <= set(self.tags))
            and (streaming is None or self.streaming == streaming)
            and (invocable is None or self.invocable == invocable)
        )
