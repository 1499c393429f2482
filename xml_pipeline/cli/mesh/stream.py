"""``xml-pipeline mesh stream``."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from xml_pipeline.cli.mesh.options import AgentName, Creds, Patience, Payload, Url
from xml_pipeline.cli.options import JsonFlag

if TYPE_CHECKING:
    from xml_pipeline.mesh import AgentMesh

__all__ = ["stream"]


def stream(
    name: AgentName,
    payload: Payload = None,
    timeout: Patience = 60.0,
    url: Url = "",
    creds: Creds = "",
    json: JsonFlag = False,
) -> int:
    """Call an agent that answers in chunks, and print each as it comes: JSON, a line each.

    --timeout is for each chunk. With --json, keys are sorted. Ctrl-C tells the agent to stop.

    \b
    Examples:
      xml-pipeline mesh stream hello.counter '{"to": 5}'
      xml-pipeline mesh stream nlp.writer '"a poem"' | jq -r .delta
    """
    from xml_pipeline.cli.mesh.lines import Lines
    from xml_pipeline.cli.mesh.output import json_text
    from xml_pipeline.cli.mesh.session import on_mesh, place_of
    from xml_pipeline.cli.mesh.stdin import read_json

    place = place_of(url, creds)
    body = read_json(payload)

    async def follow(mesh: AgentMesh) -> None:
        with Lines() as lines:
            async with aclosing(mesh.stream(name, body, timeout)) as chunks:
                async for chunk in chunks:
                    await lines.put(json_text(chunk, is_sorted=json))

    return on_mesh(place, follow, agent=name)
