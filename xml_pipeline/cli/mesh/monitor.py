"""``xml-pipeline mesh monitor``."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from xml_pipeline.cli.console import say, write
from xml_pipeline.cli.exits import CommandFailed, Exit
from xml_pipeline.cli.mesh.options import Creds, Url
from xml_pipeline.cli.mesh.output import json_text, one_line
from xml_pipeline.cli.options import JsonFlag

if TYPE_CHECKING:
    from xml_pipeline.mesh.place import Place

__all__ = ["monitor"]


def monitor(
    system_url: Annotated[
        str, typer.Option("--sys-url", metavar="URL", help="Where the system account connects. Default: as --url.")
    ] = "",
    system_creds: Annotated[str, typer.Option("--sys-creds", metavar="FILE", help="Who it is there.")] = "",
    url: Url = "",
    creds: Creds = "",
    json: JsonFlag = False,
) -> int:
    """Take hosts that are gone out of the catalog, on any server, until Ctrl-C, and print each.

    `xml-pipeline mesh up` has its own. Without any monitor, agents do it for each other; that takes longer. The server
    must have a system account, with a user that --sys-url or --sys-creds names.

    \b
    Examples:
      xml-pipeline mesh monitor --sys-url nats://oam-sys:PASSWORD@mesh.example.org:4222
      xml-pipeline mesh monitor --sys-creds sys.creds
    """
    if not (system_url or system_creds):
        raise CommandFailed(
            "error: the system account is needed: say --sys-url with its user and password, or --sys-creds",
            code=Exit.USAGE,
        )
    from xml_pipeline.cli.mesh.session import place_of, reporting

    place = place_of(url, creds)
    # Whoever we are as a member of the mesh, we are not in the system account.
    system = replace(place_of(system_url or place.url, system_creds), creds=system_creds)
    with contextlib.suppress(KeyboardInterrupt):  # which is how it is meant to end
        return reporting(place, lambda: _watch(place, system, json=json))
    return Exit.OK


async def _watch(place: Place, system: Place, *, json: bool) -> None:
    import asyncio

    from xml_pipeline.mesh.monitor import Monitor
    from xml_pipeline.mesh.options import ConnectionOptions
    from xml_pipeline.mesh.subjects import new_id

    def tell(instance_id: str, agents: set[str]) -> None:
        if json:
            write(json_text({"instance_id": instance_id, "agents": sorted(agents)}))
            return
        left = ", ".join(sorted(agents)) or "none, others serve them"
        say(one_line(f"the host {instance_id} is gone; agents that left with it: {left}"))

    logging.getLogger("xml_pipeline.mesh.burial").setLevel(logging.ERROR)  # it warns of what is told here
    name = f"oam-monitor-{new_id()}"
    options = ConnectionOptions(url=place.url, creds=place.creds, name=name)
    async with Monitor(options, ConnectionOptions(url=system.url, creds=system.creds, name=name), tell):
        if not json:
            say(f"watching {options.place}; Ctrl-C ends it")
        await asyncio.Event().wait()
