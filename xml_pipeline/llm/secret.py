"""`Secret`: a key that is in no text by accident."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Final, NoReturn
from urllib.parse import quote

__all__ = ["MASK", "Secret", "read_key"]

MASK: Final = "***"

_PART: Final = 6
"""This many of its characters in a row are a part of the key: servers like to quote the beginning and the end."""
_UNMISTAKABLE: Final = 16
"""Shorter keys (``ollama``, ``EMPTY``) are words that a model may well use."""


class Secret:
    """An API key. It shows itself to nobody who does not `reveal` it: not in ``repr``, not pickled, not in a traceback
    with local variables.

    Args:
        value: the key, in ASCII; empty for none.
    """

    __slots__ = ("_parts", "_size", "_value")

    def __init__(self, value: str = "") -> None:
        self._value = value
        self._size = min(_PART, len(value))
        self._parts = _parts_of(value, self._size)

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return f"Secret({MASK!r})" if self._value else "Secret('')"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an API key cannot be pickled or copied; name an environment variable instead")

    def reveal(self) -> str:
        """The key itself, to be sent."""
        return self._value

    def scrub(self, text: str) -> str:
        """``text`` without the key and without parts of it, for texts that are shown: what remains is not exact.

        Every six of its characters in a row count as a part of it, in any case, and also when it is quoted for a URL,
        or in base64.
        """
        if not self._parts:
            return text
        lowered = text.lower()
        if len(lowered) != len(text):  # a few letters become two when lowered, and places would not fit
            lowered = "".join(char.lower() if char.isascii() else char for char in text)
        size = self._size
        hidden = bytearray(len(text))
        for start in range(len(text) - size + 1):
            if lowered[start : start + size] in self._parts:
                hidden[start : start + size] = b"\1" * size
        return _masked(text, hidden)

    def mask(self, text: str) -> str:
        """``text`` without the key, for what a model says: nothing but the exact and whole key is replaced, and only if
        it cannot be mistaken for a word."""
        if len(self._value) < _UNMISTAKABLE or self._value not in text:
            return text
        return text.replace(self._value, MASK)

    def mask_bytes(self, data: bytes) -> bytes:
        """`mask` for an answer that is not read yet."""
        key = self._value.encode("ascii")
        if len(key) < _UNMISTAKABLE or key not in data:
            return data
        return data.replace(key, MASK.encode("ascii"))


def read_key(
    provider: str,
    api_key: str | None,
    api_key_env: str | None,
    *,
    required: bool,
    environment: Mapping[str, str] | None = None,
) -> Secret:
    """The API key of a backend.

    Args:
        provider: for the texts.
        api_key: the key; ``None`` or empty when there is none, or when ``api_key_env`` names it.
        api_key_env: the environment variable that holds the key.
        required: whether there must be one.
        environment: the variables; default: those of the process.

    Returns:
        The key, without white space around it; an empty one if none is given and none is required.

    Raises:
        ValueError: there is none though it is required, or though a variable is named; there are two; it has characters
            that a header cannot carry. The text does not quote the key.
    """
    value = _given(provider, api_key)
    if api_key_env:
        if value:
            raise ValueError(f"give api_key or api_key_env for {provider}, not both")
        variables = os.environ if environment is None else environment
        value = _given(provider, variables.get(api_key_env))
        if not value:
            raise ValueError(
                f"API key required for {provider}: the environment variable {api_key_env} is not set, or empty"
            )
    if required and not value:
        raise ValueError(f"API key required for {provider}: give api_key, or api_key_env, the name of a variable")
    if not all("!" <= char <= "~" for char in value):
        raise ValueError(f"the API key for {provider} has characters that cannot be sent in a header")
    return Secret(value)


def _given(provider: str, value: str | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"the API key for {provider} must be a text, not a {type(value).__name__}")
    return value.strip()


def _parts_of(value: str, size: int) -> frozenset[str]:
    if not value:
        return frozenset()
    forms = {value, quote(value, safe="")}
    if len(value) >= _PART:
        forms.add(base64.b64encode(value.encode()).decode().rstrip("="))
    return frozenset(form.lower()[start : start + size] for form in forms for start in range(len(form) - size + 1))


def _masked(text: str, hidden: bytearray) -> str:
    pieces: list[str] = []
    for place, char in enumerate(text):
        if not hidden[place]:
            pieces.append(char)
        elif place == 0 or not hidden[place - 1]:
            pieces.append(MASK)
    return "".join(pieces)
