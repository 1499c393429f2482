"""One conversation with a running pump, shown while it grows."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xml_pipeline.cli.exits import Exit

if TYPE_CHECKING:
    from xml_pipeline.cli.views import View
    from xml_pipeline.message_bus.events import PumpEvent
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["Message", "converse"]


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent.

    Args:
        target: a listener or a broadcast group.
        payload: an instance of one of its classes.
        from_id: in whose name.
        timeout: seconds to wait for the answer; for all answers: for each of them.
        all_answers: wait for every answer until the conversation is complete, instead of for the first.
    """

    target: str
    payload: Any
    from_id: str = "external"
    timeout: float = 30.0
    all_answers: bool = False


async def converse(pump: StreamPump, message: Message, view: View) -> Exit:
    """Send a message, and show its conversation, its answers and its error.

    The view is subscribed for good: what the conversation does after its answer is shown too.

    Returns:
        How it ended.
    """
    from xml_pipeline.errors import DeadlineExceeded, NoAnswer, PipelineError

    thread = str(uuid.uuid4())

    def show(event: PumpEvent) -> None:
        if event.conversation_id == thread:
            view.event(event)

    pump.subscribe_events(show)
    answers = 0
    try:
        if message.all_answers:
            async for answer in pump.stream(
                message.target, message.payload, from_id=message.from_id, thread_id=thread, timeout=message.timeout
            ):
                answers += 1
                await _catch_up(pump)
                view.answer(answer)
            if not answers:
                raise NoAnswer(f"the conversation with {message.target!r} completed and nobody answered")
        else:
            answer = await pump.request(
                message.target, message.payload, from_id=message.from_id, thread_id=thread, timeout=message.timeout
            )
            await _catch_up(pump)
            view.answer(answer)
    except PipelineError as error:
        await _catch_up(pump)
        view.error(error)
        return Exit.TIMEOUT if isinstance(error, DeadlineExceeded) else Exit.FAILED
    return Exit.OK


async def _catch_up(pump: StreamPump) -> None:
    """What has happened so far is to be shown before what came of it."""
    await pump.engine.events.flush()
