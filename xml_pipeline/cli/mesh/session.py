"""One command's time on the mesh: where it is, who waits for what, and what is said when it goes wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from xml_pipeline.cli.exits import CommandFailed, Exit

if TYPE_CHECKING:
    from xml_pipeline.mesh import AgentMesh, MeshError
    from xml_pipeline.mesh.place import Place

__all__ = ["failure", "on_mesh", "place_of", "reporting"]


def place_of(url: str, creds: str) -> Place:
    """Where the mesh is, and as whom to join it.

    Args:
        url: what ``--url`` says; empty for nothing.
        creds: what ``--creds`` says.

    Raises:
        CommandFailed: somebody said something that makes no sense.
    """
    from xml_pipeline.cli.mesh.output import one_line
    from xml_pipeline.mesh.credentials import read_credentials
    from xml_pipeline.mesh.errors import ConnectionFailed
    from xml_pipeline.mesh.place import find_place

    try:
        place = find_place(url, creds)
        if place.creds:
            read_credentials(Path(place.creds).expanduser())
    except (ValueError, ConnectionFailed) as error:
        raise CommandFailed(f"error: {one_line(str(error))}", code=Exit.USAGE) from None
    return place


def on_mesh(place: Place, work: Callable[[AgentMesh], Awaitable[object]], *, agent: str = "") -> Exit:
    """Join the mesh, do something, and leave.

    Args:
        place: where, and as whom.
        work: what to do.
        agent: the agent that it is about, for hints.

    Returns:
        `Exit.OK` if nothing went wrong.
    """
    from xml_pipeline.mesh import AgentMesh

    async def main() -> None:
        async with AgentMesh(place.url, creds=place.creds) as mesh:
            await work(mesh)

    return reporting(place, main, agent=agent)


def reporting(place: Place, main: Callable[[], Awaitable[object]], *, agent: str = "") -> Exit:
    """Run a coroutine; an error of the mesh that ends it becomes a few lines and an exit code.

    Raises:
        CommandFailed: with these.
    """
    from xml_pipeline.cli.loop import run_coroutine
    from xml_pipeline.cli.mesh.output import log_to_stderr
    from xml_pipeline.mesh.errors import MeshError

    log_to_stderr()

    async def run() -> Exit:
        try:
            await main()
        except MeshError as error:
            raise failure(error, place, agent) from None
        return Exit.OK

    return run_coroutine(run())


def failure(error: MeshError, place: Place, agent: str = "") -> CommandFailed:
    """What is told of an error: its code, its message, its details as JSON, and what might help.

    Args:
        error: what happened.
        place: where the mesh was thought to be.
        agent: the agent that was meant; empty where none was.
    """
    from xml_pipeline.cli.mesh.output import json_text, one_line
    from xml_pipeline.mesh.errors import MeshTimeout

    lines = [f"Error [{one_line(error.code, 100)}] {one_line(str(error))}"]
    if error.details:
        lines += json_text(error.details, indent=2, is_sorted=True).splitlines()
    hint = _hint(error, place, agent)
    if hint:
        lines.append(f"Try: {hint}")
    return CommandFailed(*lines, code=Exit.TIMEOUT if isinstance(error, MeshTimeout) else Exit.FAILED)


def _hint(error: MeshError, place: Place, agent: str) -> str:
    from xml_pipeline.mesh.errors import ConnectionFailed, ConnectionLost, InvocationMismatch, NotFound

    if isinstance(error, InvocationMismatch) and agent:
        return _other_verb(error.message.lower(), agent)
    if isinstance(error, NotFound):
        return "xml-pipeline mesh catalog"
    if isinstance(error, ConnectionFailed) and not isinstance(error, ConnectionLost):
        return _other_place(place)
    return ""


def _other_place(place: Place) -> str:
    from xml_pipeline.mesh.url import is_loopback

    said = f" (this one is from {place.source})" if place.source else ""
    return f"{'xml-pipeline mesh up, or ' if is_loopback(place.url) else ''}another --url{said}"


def _other_verb(message: str, agent: str) -> str:
    """The message says how the agent is used; its words are the same for every peer."""
    for words, verb in (("subscribe", "subscribe"), ("stream()", "stream"), ("call()", "call")):
        if words in message:
            return f"xml-pipeline mesh {verb} {agent}" + ("" if verb == "subscribe" else " [JSON]")
    return ""
