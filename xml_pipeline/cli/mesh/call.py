"""``xml-pipeline mesh call``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xml_pipeline.cli.console import write
from xml_pipeline.cli.mesh.options import AgentName, Creds, Patience, Payload, Url
from xml_pipeline.cli.options import JsonFlag

if TYPE_CHECKING:
    from xml_pipeline.mesh import AgentMesh

__all__ = ["call"]


def call(
    name: AgentName,
    payload: Payload = None,
    timeout: Patience = 30.0,
    url: Url = "",
    creds: Creds = "",
    json: JsonFlag = False,
) -> int:
    """Call an agent, and print its answer: JSON on one line, or, with --json, laid out and sorted.

    A payload that begins with a minus comes after --.

    \b
    Examples:
      xml-pipeline mesh call hello.greeter '"Ada"'
      echo '{"text": "..."}' | xml-pipeline mesh call nlp.summarizer --timeout 120 --json
    """
    from xml_pipeline.cli.mesh.output import json_text
    from xml_pipeline.cli.mesh.session import on_mesh, place_of
    from xml_pipeline.cli.mesh.stdin import read_json

    place = place_of(url, creds)
    body = read_json(payload)

    async def ask(mesh: AgentMesh) -> None:
        answer = await mesh.call(name, body, timeout)
        write(json_text(answer, indent=2 if json else None, is_sorted=json))

    return on_mesh(place, ask, agent=name)
