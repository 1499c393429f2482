"""Answers of the type that a caller asked for."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from xml_pipeline.mesh.errors import InvalidReply
from xml_pipeline.mesh.payload import decode

__all__ = ["ResultTypes"]


class ResultTypes:
    """Reads bodies as the types asked for; each type is compiled once."""

    def __init__(self) -> None:
        self._adapters: dict[Any, TypeAdapter[Any]] = {}

    def read(self, body: bytes, result_type: Any, *, agent: str, request_id: str) -> Any:
        """The value of an answer or chunk.

        Args:
            body: what came.
            result_type: any type that pydantic can handle; ``None`` for plain JSON.
            agent: who sent it, for the error.
            request_id: in answer to what, for the error.

        Raises:
            InvalidReply: it is not JSON, or not of this type.
        """
        try:
            if result_type is None:
                return decode(body)
            return self._adapter(result_type).validator.validate_json(body or b"{}")
        except (ValidationError, ValueError, RecursionError) as error:
            kind = "JSON" if result_type is None else getattr(result_type, "__name__", str(result_type))
            text = f"The answer of {agent} is not {kind}: {error}"
            raise InvalidReply(text, agent=agent, request_id=request_id) from error

    def _adapter(self, result_type: Any) -> TypeAdapter[Any]:
        try:
            found = self._adapters.get(result_type)
            if found is None:
                found = self._adapters[result_type] = TypeAdapter(result_type)
        except TypeError:  # a type that cannot be hashed
            found = TypeAdapter(result_type)
        return found
