"""Runs the research desk offline, and shows what passes between its listeners: ``python examples/research/run.py``."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from xml_pipeline import StreamPump
from xml_pipeline.message_bus.events import MessageReceivedEvent

HERE = Path(__file__).resolve().parent


async def main(topic: str) -> None:
    """Have an article written."""
    # What fails here fails on purpose, and is shown as the message that it becomes.
    logging.getLogger("xml_pipeline").setLevel(logging.CRITICAL)
    pump = await StreamPump.from_yaml(str(HERE / "organism.yaml"))
    from research import Assignment  # found beside the organism's file, which has been read now

    def show(event: object) -> None:
        if isinstance(event, MessageReceivedEvent):
            print(f"{event.from_id:>16} -> {event.to_id:<16} {event.payload_type}")  # noqa: T201

    pump.subscribe_events(show)
    async with pump:
        article = await pump.request("editor", Assignment(topic))
    print(f"\n{article.text}")  # noqa: T201
    for remark in article.remarks:
        print(f"- {remark}")  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "tides"))
