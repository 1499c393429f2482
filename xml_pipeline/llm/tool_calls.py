"""Tool calls that come in pieces."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Final

from xml_pipeline.llm.request import MAX_RESPONSE_CONTENT, ToolCall
from xml_pipeline.llm.shape import Shape, arguments_of

__all__ = ["ToolCallPieces", "call_id"]

_MOST_CALLS: Final = 256
"""Tool calls in one answer."""


def call_id(said: str) -> str:
    """The id of a tool call; a new one where a server gives none, as some local ones do."""
    return said or f"call_{uuid.uuid4().hex[:24]}"


@dataclass(slots=True)
class _Piece:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ToolCallPieces:
    """Puts tool calls together, whose arguments are streamed.

    Args:
        shape: refuses what is too much.
    """

    __slots__ = ("_pieces", "_shape", "_size")

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._pieces: dict[int, _Piece] = {}
        self._size = 0

    def __contains__(self, index: int) -> bool:
        return index in self._pieces

    @property
    def last(self) -> int:
        """The index of the latest call; -1 before the first."""
        return max(self._pieces, default=-1)

    def add(self, index: int, *, id: str = "", name: str = "", arguments: str = "") -> None:
        """Take a piece of the call at ``index``: its id and name once, its arguments bit by bit."""
        self._size += len(id) + len(name) + len(arguments)
        if self._size > MAX_RESPONSE_CONTENT or (index not in self._pieces and len(self._pieces) >= _MOST_CALLS):
            self._shape.fail("its tool calls are too many, or too long")
        piece = self._pieces.setdefault(index, _Piece())
        piece.id = piece.id or id
        piece.name = piece.name or name
        if arguments:
            piece.arguments.append(arguments)

    def calls(self) -> tuple[ToolCall, ...]:
        """All of them, in order."""
        found = []
        for index, piece in sorted(self._pieces.items()):
            if not piece.name:
                self._shape.fail(f"tool call {index} has no name")
            found.append(arguments_of(call_id(piece.id), piece.name, "".join(piece.arguments)))
        return tuple(found)
