"""``xml-pipeline mesh``: a mesh on this machine, and the agents, subjects and keys of any."""

from __future__ import annotations

import typer

from xml_pipeline.cli.mesh import call, catalog, contract, down, kv, listen, monitor, stream, subscribe, up

__all__ = ["app"]

app = typer.Typer(
    help="Start a mesh, see who is on it, call agents, follow what happens, share keys and values.",
    epilog="Begin with: xml-pipeline mesh up && xml-pipeline mesh catalog",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command(short_help="Start a mesh on this machine.")(up.up)
app.command(short_help="Stop it.")(down.down)
app.command(short_help="List the agents.")(catalog.catalog)
app.command(short_help="Show what an agent takes and gives.")(contract.contract)
app.command(short_help="Call an agent.")(call.call)
app.command(short_help="Call an agent that answers in chunks.")(stream.stream)
app.command(short_help="Follow an agent that publishes.")(subscribe.subscribe)
app.command(short_help="Show every message on a subject.")(listen.listen)
app.add_typer(kv.app, name="kv", short_help="Keys and values.")
app.command(short_help="Take hosts that are gone out of the catalog.")(monitor.monitor)
