"""What the pump tells a handler about its message: all of it, whatever `HandlerMetadata` has."""

from __future__ import annotations

import dataclasses

from tests.message_bus.helpers import Ask, Reply
from xml_pipeline import HandlerMetadata, HandlerResponse, StreamPump


async def test_every_field_is_there_and_the_rest_has_its_default():
    seen: list[HandlerMetadata] = []

    async def handler(ask: Ask, metadata: HandlerMetadata) -> HandlerResponse:
        seen.append(metadata)
        return HandlerResponse.respond(Reply(ask.text))

    pump = StreamPump()
    pump.register("tool", handler, Ask)
    async with pump:
        await pump.request("tool", Ask("x"))
    [metadata] = seen
    told = {"thread_id", "from_id", "conversation_id", "message_id", "deadline"}
    assert {field.name for field in dataclasses.fields(metadata) if getattr(metadata, field.name)} == told
    usual = HandlerMetadata("", "")
    for field in dataclasses.fields(metadata):
        if field.name not in told:
            assert getattr(metadata, field.name) == getattr(usual, field.name)
