"""Text that comes in pieces."""

from __future__ import annotations

from xml_pipeline.llm.request import MAX_RESPONSE_CONTENT

__all__ = ["TextPieces"]


class TextPieces:
    """Collects a streamed text, up to `MAX_RESPONSE_CONTENT` characters."""

    __slots__ = ("_pieces", "_size", "was_cut")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._size = 0
        self.was_cut = False
        """Whether there was more."""

    def add(self, text: str) -> str:
        """Take a piece; as much of it as there is room for is returned."""
        kept = text[: MAX_RESPONSE_CONTENT - self._size]
        self.was_cut = self.was_cut or len(kept) < len(text)
        self._size += len(kept)
        if kept:
            self._pieces.append(kept)
        return kept

    def __str__(self) -> str:
        return "".join(self._pieces)
