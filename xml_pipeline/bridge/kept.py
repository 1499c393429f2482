"""What came over the mesh and nobody will handle: kept where somebody can look at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml_pipeline.errors import PipelineError
    from xml_pipeline.message_bus.dead_letters import DeadLetters

__all__ = ["keep"]


def keep(letters: DeadLetters, error: PipelineError, body: bytes, *, place: str, sender: str, target: str) -> None:
    """Make a dead letter of a body that never became a message of the pump.

    Args:
        letters: where to.
        error: why.
        body: what came.
        place: the key or subject it came on.
        sender: who sent it, as listeners would see it.
        target: the listener it was for.
    """
    letters.add(
        wire=body,
        target=target,
        from_id=sender,
        thread_id="",
        conversation_id="",
        code=error.code,
        detail=f"{place}: {error.detail}",
        step="mesh",
    )
