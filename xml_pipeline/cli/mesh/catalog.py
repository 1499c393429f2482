"""``xml-pipeline mesh catalog``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from xml_pipeline.cli.console import write
from xml_pipeline.cli.mesh.options import Creds, Url
from xml_pipeline.cli.options import JsonFlag

if TYPE_CHECKING:
    from xml_pipeline.mesh import AgentMesh, CatalogEntry

__all__ = ["catalog"]


def catalog(
    channel: Annotated[
        str, typer.Option("--channel", metavar="NAME", help="Only the agents of this name, or below it.")
    ] = "",
    url: Url = "",
    creds: Creds = "",
    json: JsonFlag = False,
) -> int:
    """List the agents on the mesh.

    \b
    Examples:
      xml-pipeline mesh catalog
      xml-pipeline mesh catalog --channel nlp
      xml-pipeline mesh catalog --json | jq -r '.[].name'
    """
    from xml_pipeline.cli.mesh.output import json_text
    from xml_pipeline.cli.mesh.session import on_mesh, place_of

    async def show(mesh: AgentMesh) -> None:
        entries = await mesh.catalog(channel=channel or None)
        if json:
            write(json_text([entry.model_dump(mode="json") for entry in entries], indent=2, is_sorted=True))
        else:
            write(_table(entries))

    return on_mesh(place_of(url, creds), show)


def _table(entries: list[CatalogEntry]) -> str:
    from xml_pipeline.cli.mesh.output import one_line, table

    rows = [
        [
            one_line(entry.name),
            "yes" if entry.streaming else "no",
            one_line(entry.description.strip().partition("\n")[0]),
        ]
        for entry in entries
    ]
    return table(["NAME", "STREAMING", "DESCRIPTION"], rows)
