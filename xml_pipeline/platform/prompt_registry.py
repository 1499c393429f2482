"""`PromptRegistry`: the prompts of one pump's agents, in versions.

A version is all prompts at one moment. `PromptRegistry.swap` puts another one in force, in one step, as a reload of the
configuration does; whoever took an `AgentPrompt` before keeps it as it was.

An agent's prompt is nobody else's business: while a handler runs, and in the tasks that it started, the registry shows
it no prompt but its own listener's. The program itself sees all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from xml_pipeline.platform.agent_prompt import AgentPrompt, prompt_of
from xml_pipeline.runtime import current_runtime

if TYPE_CHECKING:
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["AgentPrompt", "PromptRegistry", "get_prompt_registry"]


class PromptRegistry:
    """The prompts of one pump. The pump swaps in those of its listeners whenever its table of listeners changes.

    Args:
        running: gives the listener whose handler runs here; ``None`` outside of every handler.
        schemas: gives the peer schemas of an agent as they are for one thread's conversation, which a peer table may
            narrow; ``None`` where there is no difference.
    """

    def __init__(
        self,
        running: Callable[[], Listener | None] = lambda: None,
        schemas: Callable[[str, str], str | None] = lambda agent_name, thread_id: None,
    ) -> None:
        self._running = running
        self._schemas = schemas
        self._prompts: Mapping[str, AgentPrompt] = {}
        self._registered: dict[str, AgentPrompt] = {}
        self._frozen = False
        self._version = 0

    # -- versions -----------------------------------------------------------------------------------------------

    def swap(self, prompts: Mapping[str, AgentPrompt] | Iterable[AgentPrompt], *, keep_registered: bool = False) -> int:
        """Put another version in force; also when the registry is frozen.

        Args:
            prompts: all prompts of the version; a mapping is by agent name, and must not be changed afterwards.
            keep_registered: keep those added by `register` as well, where ``prompts`` has none of that name.

        Returns:
            The number of the version.

        Raises:
            TypeError: one of them is no `AgentPrompt`; nothing is changed.
            ValueError: two are for one agent; nothing is changed.
        """
        self._prompts = prompts if isinstance(prompts, Mapping) else _by_name(prompts)
        if not keep_registered:
            self._registered = {}
        self._version += 1
        return self._version

    def register(self, agent_name: str, system_prompt: str, peer_schemas: str = "", *, model: str = "") -> AgentPrompt:
        """Add one prompt.

        Args:
            agent_name: the agent.
            system_prompt: who it is and what it does; may be empty.
            peer_schemas: how to call its peers.
            model: the model that it uses; empty for the router's default.

        Raises:
            RuntimeError: the registry is frozen, or has a prompt of that agent.
            TypeError: an argument is not a string.
        """
        if self._frozen:
            raise RuntimeError(f"the prompt registry is frozen: no prompt can be added for agent {agent_name!r}")
        if self._find(agent_name) is not None:
            raise RuntimeError(f"agent {agent_name!r} has a prompt already")
        prompt = AgentPrompt.create(agent_name, system_prompt, peer_schemas, model=model)
        self._registered[agent_name] = prompt
        return prompt

    def freeze(self) -> None:
        """Refuse `register` from now on."""
        self._frozen = True

    def clear(self) -> None:
        """Forget all prompts, and allow `register` again."""
        self.swap(())
        self._frozen = False

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, agent_name: str) -> AgentPrompt | None:
        """An agent's prompt; ``None`` if it has none, or if another agent asks."""
        running = self._running()
        if running is None:
            return self._find(agent_name)
        if running.name != agent_name:
            return None
        # Open frames of a listener that was removed are served to their end.
        return self._find(agent_name) or prompt_of(running)

    def get_required(self, agent_name: str) -> AgentPrompt:
        """As `get`.

        Raises:
            KeyError: it has none, or another agent asks.
        """
        prompt = self.get(agent_name)
        if prompt is None:
            raise KeyError(f"no prompt for agent {agent_name!r}")
        return prompt

    def has(self, agent_name: str) -> bool:
        """Whether `get` gives a prompt."""
        return self.get(agent_name) is not None

    def peer_schemas(self, agent_name: str, thread_id: str) -> str:
        """How an agent may call its peers on a thread: what its conversation's peer table leaves of them.

        Empty if the agent has no prompt, or if another agent asks.
        """
        prompt = self.get(agent_name)
        if prompt is None:
            return ""
        narrowed = self._schemas(agent_name, thread_id)
        return prompt.peer_schemas if narrowed is None else narrowed

    def list_agents(self) -> list[str]:
        """The agents that `get` gives a prompt for, in order."""
        names = dict.fromkeys([*self._prompts, *self._registered])
        running = self._running()
        if running is None:
            return list(names)
        return [running.name] if self.has(running.name) else []

    def get_stats(self) -> dict[str, Any]:
        """``agent_count``, ``frozen``, ``agents`` (as `list_agents`), ``version``."""
        agents = self.list_agents()
        return {"agent_count": len(agents), "frozen": self._frozen, "agents": agents, "version": self._version}

    def _find(self, agent_name: str) -> AgentPrompt | None:
        return self._prompts.get(agent_name) or self._registered.get(agent_name)


def _by_name(prompts: Iterable[AgentPrompt]) -> dict[str, AgentPrompt]:
    found: dict[str, AgentPrompt] = {}
    for prompt in prompts:
        if not isinstance(prompt, AgentPrompt):
            raise TypeError(f"a prompt must be an AgentPrompt, not {type(prompt).__name__}")
        if prompt.agent_name in found:
            raise ValueError(f"two prompts for agent {prompt.agent_name!r}")
        found[prompt.agent_name] = prompt
    return found


def get_prompt_registry() -> PromptRegistry:
    """The prompts of the current pump."""
    return current_runtime().get(PromptRegistry)
