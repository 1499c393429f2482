"""``xml-pipeline tail``: what happens inside organisms, wherever they run."""

from __future__ import annotations

import json as json_module
import time
from contextlib import aclosing
from typing import Annotated, Any

import typer

from xml_pipeline.cli.mesh.options import Creds
from xml_pipeline.cli.options import JsonFlag

__all__ = ["tail"]


def tail(
    mesh: Annotated[
        str,
        typer.Option(
            "--mesh", "-m", metavar="URL", help="The mesh; OAM_URL, .oam-url or nats://localhost:4222 if absent."
        ),
    ] = "",
    organism: Annotated[str, typer.Option("--organism", "-o", metavar="NAME", help="Only this organism.")] = "*",
    thread: Annotated[str, typer.Option("--thread", metavar="ID", help="Only this conversation, or frame.")] = "",
    listener: Annotated[
        str, typer.Option("--listener", "-l", metavar="NAME", help="Only what this listener sends or gets.")
    ] = "",
    creds: Creds = "",
    json: JsonFlag = False,
) -> int:
    """Show the events of organisms on a mesh as they happen, until Ctrl-C.

    An organism publishes them when its mesh section says 'events: true'. With --json, each event is an
    object on a line of its own.

    \b
    Examples:
      xml-pipeline tail
      xml-pipeline tail --mesh nats://host:4222 --organism shop --listener desk.clerk
      xml-pipeline tail --json | jq 'select(.event == "OutcomeEvent" and .code != "")'
    """
    from xml_pipeline.bridge.event_feed import events_of
    from xml_pipeline.cli.mesh.lines import Lines
    from xml_pipeline.cli.mesh.output import json_text
    from xml_pipeline.cli.mesh.session import place_of, reporting
    from xml_pipeline.cli.mesh.tap import messages

    place = place_of(mesh, creds)

    async def follow() -> None:
        with Lines() as lines:
            async with aclosing(messages(place, events_of(organism))) as found:
                async for message in found:
                    event = _read(message.data)
                    if event is None or not _is_wanted(event, thread, listener):
                        continue
                    line = json_text(event) if json else _text(event)
                    if line:
                        await lines.put(line)

    return reporting(place, follow)


def _read(body: bytes) -> dict[str, Any] | None:
    """The event; anybody may publish there, so it may be anything."""
    try:
        event = json_module.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def _refuse(constant: str) -> None:
    """NaN and its kin are no JSON, and what is printed is to be."""
    raise ValueError(constant)


def _is_wanted(event: dict[str, Any], thread: str, listener: str) -> bool:
    if thread and thread not in (event.get("conversation_id"), event.get("thread_id")):
        return False
    return not listener or listener in (event.get("from_id"), event.get("to_id"), event.get("agent_name"))


def _text(event: dict[str, Any]) -> str:
    """The event in a line; empty for one that says nothing new."""
    from xml_pipeline.cli.mesh.output import one_line

    told = _told(event)
    if not told:
        return ""
    where = str(event.get("conversation_id") or "")[:8]
    return one_line(f"{_clock(event.get('time'))} {event.get('organism', '')} {where:8} {told}")


def _clock(at: Any) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(at))
    except (TypeError, ValueError, OverflowError, OSError):  # anything may stand there
        return "--:--:--"


def _told(event: dict[str, Any]) -> str:
    match event["event"]:
        case "MessageReceivedEvent":
            return f"{event.get('from_id')} -> {event.get('to_id')}  {event.get('payload_type')}"
        case "OutcomeEvent" if event.get("code"):
            return (
                f"{event.get('to_id') or '?'}  {event.get('outcome')}: {event.get('code')}"
                f"{' (' + str(event.get('detail')) + ')' if event.get('detail') else ''}"
            )
        case "ThreadEvent" if event.get("status") in ("created", "completed", "error", "killed"):
            error = event.get("error")
            return f"conversation {event.get('status')}{': ' + str(error) if error else ''}"
        case "ReloadEvent":
            return "reloaded" if event.get("success") else f"reload failed: {event.get('error')}"
        case "SourceEvent":
            return f"source {event.get('name')} {event.get('status')}"
        case _:
            return ""
