"""Options and arguments that several commands of the mesh have."""

from __future__ import annotations

from typing import Annotated

import typer

from xml_pipeline.cli.options import seconds

__all__ = ["AgentName", "Creds", "Patience", "Payload", "Url"]

Url = Annotated[
    str,
    typer.Option(
        "--url", metavar="URL", help="Where the mesh is. Default: OAM_URL, the nearest .oam-url, nats://localhost:4222."
    ),
]
Creds = Annotated[
    str, typer.Option("--creds", metavar="FILE", help="Who we are. Default: OAM_CREDS, `creds` in the .oam-url.")
]
AgentName = Annotated[str, typer.Argument(metavar="NAME", help="The agent's name.")]
Payload = Annotated[
    str | None,
    typer.Argument(metavar="JSON", help="What it is sent; - for stdin, which is also read if it is no terminal."),
]
Patience = Annotated[
    float, typer.Option("--timeout", "-t", metavar="SECONDS", parser=seconds, help="Seconds to wait for an answer.")
]
