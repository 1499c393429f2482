"""What a model is told about the agent it speaks for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.routing import RoutingTable

__all__ = ["AgentPrompt", "PromptsOfTable", "prompt_of"]


@dataclass(frozen=True, slots=True)
class AgentPrompt:
    """An agent's prompt. It never changes: another version of it is another object.

    Args:
        agent_name: the listener's registered name.
        system_prompt: who the agent is and what it does.
        prompt_hash: first 16 hexadecimal digits of the SHA-256 of the system prompt, to tell versions apart in logs.
        peer_schemas: how to call its peers.
        created_at: when this object was made, ISO 8601 in UTC.
        model: the model that the agent uses; empty for the router's default.
    """

    agent_name: str
    system_prompt: str
    prompt_hash: str
    peer_schemas: str = ""
    created_at: str = ""
    model: str = ""

    @classmethod
    def create(cls, agent_name: str, system_prompt: str, peer_schemas: str = "", *, model: str = "") -> AgentPrompt:
        """Make one, with its hash and the present time.

        Raises:
            TypeError: an argument is not a string.
        """
        for name, value in (("agent_name", agent_name), ("system_prompt", system_prompt), ("model", model)):
            if not isinstance(value, str):
                raise TypeError(f"{name} must be a string, not {type(value).__name__}")
        # A prompt from a file may hold a lone surrogate, which UTF-8 cannot.
        digest = hashlib.sha256(system_prompt.encode("utf-8", "surrogatepass")).hexdigest()
        return cls(agent_name, system_prompt, digest[:16], peer_schemas, datetime.now(UTC).isoformat(), model)

    @property
    def full_prompt(self) -> str:
        """The prompt, a blank line and the peer schemas; without schemas, the prompt alone."""
        return f"{self.system_prompt}\n\n{self.peer_schemas}" if self.peer_schemas else self.system_prompt


def prompt_of(listener: Listener) -> AgentPrompt | None:
    """The prompt of a listener; ``None`` for one that is no agent, or has none."""
    if not (listener.is_agent and listener.prompt):
        return None
    return AgentPrompt.create(listener.name, listener.prompt, listener.usage_instructions, model=listener.model)


class PromptsOfTable(Mapping[str, AgentPrompt]):
    """The prompts of a routing table's agents, by name. Peer schemas are long, and most tables are replaced before
    anybody asks; so each prompt is written when it is first asked for.

    Args:
        table: of listeners. It never changes.
    """

    def __init__(self, table: RoutingTable) -> None:
        self._table = table
        self._written: dict[str, AgentPrompt] = {}

    def __getitem__(self, name: str) -> AgentPrompt:
        prompt = self._written.get(name)
        if prompt is None:
            prompt = prompt_of(self._table.listeners[name])
            if prompt is None:
                raise KeyError(name)
            self._written[name] = prompt
        return prompt

    def __iter__(self) -> Iterator[str]:
        return (name for name, listener in self._table.listeners.items() if listener.is_agent and listener.prompt)

    def __len__(self) -> int:
        return sum(1 for _ in self)
