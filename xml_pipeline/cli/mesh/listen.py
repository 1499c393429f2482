"""``xml-pipeline mesh listen``."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xml_pipeline.cli.exits import CommandFailed, Exit
from xml_pipeline.cli.mesh.options import Creds, Url
from xml_pipeline.cli.options import JsonFlag

if TYPE_CHECKING:
    from xml_pipeline.mesh.message import Message

__all__ = ["listen"]


def listen(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="Of NATS; * for one token, > for the rest.")],
    url: Url = "",
    creds: Creds = "",
    json: JsonFlag = False,
) -> int:
    """Show every message on a subject, with its headers, until Ctrl-C.

    With --json, each is an object on a line of its own: subject, reply, headers, and data (base64 of
    what is no text).

    \b
    Examples:
      xml-pipeline mesh listen 'mesh.agent.>'
      xml-pipeline mesh listen 'mesh.errors.>' --json | jq .data.code
    """
    from xml_pipeline.cli.mesh.lines import Lines
    from xml_pipeline.cli.mesh.output import json_text
    from xml_pipeline.cli.mesh.session import place_of, reporting
    from xml_pipeline.cli.mesh.tap import messages
    from xml_pipeline.mesh.subjects import check_filter

    try:
        check_filter(subject)
    except ValueError as error:
        raise CommandFailed(f"error: {error}", code=Exit.USAGE) from None
    place = place_of(url, creds)

    async def follow() -> None:
        with Lines() as lines:
            async with aclosing(messages(place, subject)) as found:
                async for message in found:
                    await lines.put(json_text(_facts(message)) if json else _text(message))

    return reporting(place, follow)


def _facts(message: Message) -> dict[str, Any]:
    from xml_pipeline.cli.mesh.output import value_of
    from xml_pipeline.mesh.payload import decode

    facts = {"subject": message.subject, "reply": message.reply or None, "headers": dict(message.headers or {})}
    try:
        return {**facts, "data": decode(message.data) if message.data else None}
    except ValueError:
        found = value_of(message.data)
        return {**facts, **({"data": found["value"]} if "value" in found else found)}


def _text(message: Message) -> str:
    from xml_pipeline.cli.mesh.output import one_line

    headers = (f"  {one_line(name)}: {one_line(value)}" for name, value in (message.headers or {}).items())
    body = one_line(message.data.decode("utf-8", "replace"), len(message.data))
    reply = [f"  reply to {one_line(message.reply)}"] if message.reply else []
    return "\n".join([f"[{one_line(message.subject)}] {body}".rstrip(), *reply, *headers])
