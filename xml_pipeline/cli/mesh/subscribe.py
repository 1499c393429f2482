"""``xml-pipeline mesh subscribe``."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from xml_pipeline.cli.mesh.options import Creds, Url
from xml_pipeline.cli.options import JsonFlag, seconds

if TYPE_CHECKING:
    from xml_pipeline.mesh import AgentMesh

__all__ = ["subscribe"]


def subscribe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A publisher's name.")],
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", "-t", metavar="SECONDS", parser=seconds, help="Seconds to wait for each event."),
    ] = None,
    url: Url = "",
    creds: Creds = "",
    json: JsonFlag = False,
) -> int:
    """Follow an agent that publishes, and print each event as it comes: JSON, a line each.

    It ends with the publisher, or with Ctrl-C. With --json, keys are sorted.

    \b
    Examples:
      xml-pipeline mesh subscribe finance.price-feed
      xml-pipeline mesh subscribe finance.price-feed --timeout 60 | jq .price
    """
    from xml_pipeline.cli.mesh.lines import Lines
    from xml_pipeline.cli.mesh.output import json_text
    from xml_pipeline.cli.mesh.session import on_mesh, place_of

    async def follow(mesh: AgentMesh) -> None:
        with Lines() as lines:
            async with aclosing(mesh.subscribe(agent=name, timeout=timeout)) as events:
                async for event in events:
                    await lines.put(json_text(event, is_sorted=json))

    return on_mesh(place_of(url, creds), follow, agent=name)
