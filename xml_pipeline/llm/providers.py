"""The providers that are known by name: where they are, and which models are theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ANTHROPIC", "OPENAI_COMPATIBLE", "PROVIDERS", "Provider"]


@dataclass(frozen=True, slots=True)
class Provider:
    """What is known of a provider.

    Args:
        name: as in ``provider:``.
        base_url: its server; empty where there is no usual one.
        prefixes: how the names of its models begin; empty for any name.
        needs_key: whether it refuses calls without an API key.
        version: what its paths begin with, where people leave it out of the URL.
    """

    name: str
    base_url: str = ""
    prefixes: tuple[str, ...] = ()
    needs_key: bool = True
    version: str = ""

    def url(self, base_url: str | None) -> str:
        """What paths are put behind.

        Args:
            base_url: another server than the provider's own.

        Raises:
            ValueError: there is neither.
        """
        url = base_url or self.base_url
        if not url:
            raise ValueError(f"base_url is required for {self.name}, e.g. http://localhost:8000/v1")
        url = url.rstrip("/")
        return url if not self.version or url.endswith(self.version) else url + self.version


ANTHROPIC: Final = Provider("anthropic", "https://api.anthropic.com/v1", ("claude", "anthropic"))

OPENAI_COMPATIBLE: Final = {
    provider.name: provider
    for provider in (
        Provider("openai", "https://api.openai.com/v1", ("gpt", "chatgpt", "o1", "o3", "o4")),
        Provider("xai", "https://api.x.ai/v1", ("grok",)),
        Provider("ollama", "http://localhost:11434", needs_key=False, version="/v1"),
        Provider("openai-compatible", needs_key=False),
    )
}
"""Those that speak the dialect of OpenAI's chat completions. ``openai-compatible`` is any other server."""

PROVIDERS: Final = {**OPENAI_COMPATIBLE, ANTHROPIC.name: ANTHROPIC}
