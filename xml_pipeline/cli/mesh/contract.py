"""``xml-pipeline mesh contract``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from xml_pipeline.cli.console import write
from xml_pipeline.cli.mesh.options import AgentName, Creds, Url

if TYPE_CHECKING:
    from xml_pipeline.mesh import AgentContract, AgentMesh

__all__ = ["contract"]


def contract(
    name: AgentName,
    json: Annotated[bool, typer.Option("--json/--text", help="As JSON, which is the default, or for people.")] = True,
    url: Url = "",
    creds: Creds = "",
) -> int:
    """Show what an agent takes and gives.

    \b
    Examples:
      xml-pipeline mesh contract hello.greeter --text
      xml-pipeline mesh contract hello.greeter | jq .input_schema
    """
    from xml_pipeline.cli.mesh.output import json_text
    from xml_pipeline.cli.mesh.session import on_mesh, place_of

    async def show(mesh: AgentMesh) -> None:
        found = await mesh.contract(name)
        write(json_text(found.model_dump(mode="json"), indent=2, is_sorted=True) if json else _text(found))

    return on_mesh(place_of(url, creds), show, agent=name)


def _text(found: AgentContract) -> str:
    from xml_pipeline.cli.mesh.output import json_text, one_line

    facts: dict[str, Any] = {
        "name": found.name,
        "description": one_line(found.description),
        "version": one_line(found.version),
        "streaming": "yes" if found.streaming else "no",
        "invocable": "yes" if found.invocable else "no",
        "tags": one_line(", ".join(found.tags)),
        "input": json_text(found.input_schema) if found.input_schema else "",
        "output": json_text(found.output_schema) if found.output_schema else "",
        "chunks": json_text(found.chunk_schema) if found.chunk_schema else "",
        "use": _use(found),
    }
    return "\n".join(f"{label + ':':12} {fact}" for label, fact in facts.items() if fact)


def _use(found: AgentContract) -> str:
    if not found.invocable:
        return f"xml-pipeline mesh subscribe {found.name}" if found.streaming else ""
    payload = " JSON" if found.input_schema else ""
    return f"xml-pipeline mesh {'stream' if found.streaming else 'call'} {found.name}{payload}"
