"""Agents without Python, whose handler is the built-in model call: what they need, and what only they have."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from xml_pipeline.config.problems import KeyPath, Problem

__all__ = ["DEFAULT_CLASSES", "MODEL_CALL_KEYS", "AgentFacts", "ModelFacts", "check_agent", "check_models"]

DEFAULT_CLASSES: Final = {
    "payload_class": "xml_pipeline.primitives.text.TextInput",
    "output_class": "xml_pipeline.primitives.text.TextOutput",
}
"""What an agent without a handler accepts, and answers with, unless it says so itself."""
MODEL_CALL_KEYS: Final = ("temperature", "max_tokens", "max_model_calls", "max_history_chars")
"""What tells the built-in model call how to call."""


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What the rules look at in one listener.

    Args:
        path: where it stands in the configuration.
        is_agent: whether it is an agent; ``None`` if that is not known.
        has_handler: whether it has a handler.
        prompt: its prompt; ``None`` if it is wrong in itself.
        given: which of the keys ``model``, ``handler_sha256`` and `MODEL_CALL_KEYS` it has.
    """

    path: KeyPath
    is_agent: bool | None = False
    has_handler: bool = True
    prompt: str | None = ""
    given: Collection[str] = ()

    @property
    def is_model_agent(self) -> bool:
        """Whether its handler is the built-in model call."""
        return self.is_agent is True and not self.has_handler


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the rules look at in the ``llm`` section; ``None`` for what is not known, because it is wrong in itself."""

    has_backends: bool | None = False
    has_model: bool | None = False


def check_agent(agent: AgentFacts) -> list[Problem]:
    """What is wrong with one listener's keys for model calls."""
    problems = []
    if agent.is_model_agent and agent.prompt is not None and not agent.prompt.strip():
        problems.append(
            Problem(
                "is missing: an agent without a handler needs a prompt that says who it is and what it does",
                (*agent.path, "prompt"),
            )
        )
    if agent.is_model_agent and "handler_sha256" in agent.given:
        problems.append(Problem("there is no handler whose source could be compared", (*agent.path, "handler_sha256")))
    if agent.is_agent is False and agent.has_handler and "model" in agent.given:
        problems.append(Problem("only an agent has a model: remove it, or add 'agent: true'", (*agent.path, "model")))
    if agent.has_handler:
        problems += [
            Problem("is only for agents without a handler: a handler makes its model calls itself", (*agent.path, key))
            for key in MODEL_CALL_KEYS
            if key in agent.given
        ]
    return problems


def check_models(agents: Sequence[AgentFacts], llm: ModelFacts) -> list[Problem]:
    """What agents without a handler lack in the organism.

    Args:
        agents: all listeners, others are left alone.
        llm: the organism's ``llm`` section.
    """
    callers = [agent for agent in agents if agent.is_model_agent]
    problems = [
        Problem("is missing: name the agent's model here, or one for all of them under 'llm'", (*agent.path, "model"))
        for agent in callers
        if llm.has_model is False and "model" not in agent.given
    ]
    if callers and llm.has_backends is False:
        problems.append(
            Problem(
                "an agent without a handler calls a model, but there are no backends: describe one under "
                "'llm.backends'",
                callers[0].path,
            )
        )
    return problems
