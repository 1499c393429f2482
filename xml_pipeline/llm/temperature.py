"""Which models take a temperature. Many newer ones refuse a request that names one, whatever it is.

So it is sent to the families that are known to take it, and left out for all others: a family that comes later then
answers with its own default, instead of not at all.
"""

from __future__ import annotations

from typing import Final

from xml_pipeline.llm.backend import begins

__all__ = ["takes_temperature"]

_TAKE: Final = {
    "openai": (
        "gpt-3",
        "gpt-35",
        "gpt-4",
        "gpt-4o",
        "gpt-5-chat",
        "gpt-5.1",
        "gpt-5.2",
        "gpt-5.3",
        "gpt-5.4",
        "chatgpt-4o",
    ),
    "anthropic": (
        "claude-instant",
        "claude-2",
        "claude-3",
        "claude-opus-4",
        "claude-sonnet-4",
        "claude-haiku-4",
    ),
}
_REFUSE: Final = {
    "openai": tuple(f"gpt-5.{minor}-{kind}" for minor in (1, 2, 3, 4) for kind in ("chat", "codex", "pro")),
    "anthropic": ("claude-opus-4-7", "claude-opus-4-8"),
}
"""Exceptions among those."""


def takes_temperature(provider: str, model: str) -> bool:
    """Whether a temperature may be sent with ``model``. Other providers than OpenAI and Anthropic all take one."""
    if provider not in _TAKE:
        return True
    name = model.rpartition("/")[2].removeprefix("anthropic.")
    if any(begins(name, prefix) for prefix in _REFUSE[provider]):
        return False
    return any(begins(name, prefix) for prefix in _TAKE[provider])
