"""``xml-pipeline mesh kv``."""

from __future__ import annotations

import os
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xml_pipeline.cli.console import say, write
from xml_pipeline.cli.exits import CommandFailed, Exit
from xml_pipeline.cli.mesh.options import Creds, Url
from xml_pipeline.cli.options import JsonFlag

if TYPE_CHECKING:
    from collections.abc import Callable

    from xml_pipeline.mesh import AgentMesh, KVEntry

__all__ = ["app"]

app = typer.Typer(help="Share keys and values with everybody on the mesh.", no_args_is_help=True, rich_markup_mode=None)

_LONGEST_CELL = 80

Key = Annotated[str, typer.Argument(metavar="KEY", help="Letters, digits and -/_= in segments joined by single dots.")]
Pattern = Annotated[
    str, typer.Argument(metavar="PATTERN", help="A key; * for any one segment, > for the rest.", show_default=False)
]


@app.command(short_help="Print the value of a key.")
def get(key: Key, url: Url = "", creds: Creds = "", json: JsonFlag = False) -> int:
    """Print the value of a key: exactly its bytes; on a terminal, with what it would act on escaped.

    With --json: an object with key, value and revision, and base64 instead of value for what is no text.

    \b
    Examples:
      xml-pipeline mesh kv get plans.today
      xml-pipeline mesh kv get images.logo > logo.png
    """
    from xml_pipeline.cli.mesh.output import json_text
    from xml_pipeline.cli.mesh.session import on_mesh, place_of

    _check_key(key)

    async def show(mesh: AgentMesh) -> None:
        entry = await mesh.kv.entry(key)
        if json:
            write(json_text(_facts(entry), indent=2))
        else:
            _write_value(entry.value)

    return on_mesh(place_of(url, creds), show)


@app.command(short_help="Give a key a value.")
def put(
    key: Key,
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="Text; - for stdin, which is also read if it is no terminal.")
    ] = None,
    url: Url = "",
    creds: Creds = "",
    json: JsonFlag = False,
) -> int:
    """Give a key a value, whatever it had, and print its revision.

    A value that begins with a minus comes after --.

    \b
    Examples:
      xml-pipeline mesh kv put plans.today 'tidy up'
      xml-pipeline mesh kv put images.logo < logo.png
    """
    from xml_pipeline.cli.mesh.output import json_text
    from xml_pipeline.cli.mesh.session import on_mesh, place_of
    from xml_pipeline.cli.mesh.stdin import given_bytes

    _check_key(key)
    place = place_of(url, creds)
    data = given_bytes(value)
    if data is None:
        raise CommandFailed("error: a VALUE is missing; - reads it from standard input", code=Exit.USAGE)

    async def store(mesh: AgentMesh) -> None:
        revision = await mesh.kv.put(key, data)
        write(json_text({"key": key, "revision": revision}) if json else f"{key}: revision {revision}")

    return on_mesh(place, store)


@app.command("list", short_help="List keys.")
def list_keys(pattern: Pattern = ">", url: Url = "", creds: Creds = "", json: JsonFlag = False) -> int:
    """List the keys that have a value, in the order of their last changes.

    With --json: objects as those of `kv get --json`, with the whole values.

    \b
    Examples:
      xml-pipeline mesh kv list
      xml-pipeline mesh kv list 'plans.*' --json
    """
    from xml_pipeline.cli.mesh.output import json_text
    from xml_pipeline.cli.mesh.session import on_mesh, place_of

    _check_pattern(pattern)

    async def show(mesh: AgentMesh) -> None:
        entries = await mesh.kv.list(pattern)
        write(json_text([_facts(entry) for entry in entries], indent=2) if json else _table(entries))

    return on_mesh(place_of(url, creds), show)


@app.command(short_help="Follow keys.")
def watch(
    pattern: Pattern = ">",
    once: Annotated[bool, typer.Option("--once", help="End after the first value.")] = False,
    resume: Annotated[
        str, typer.Option("--resume", metavar="NAME", help="Go on where the last one of this name was.")
    ] = "",
    url: Url = "",
    creds: Creds = "",
    json: JsonFlag = False,
) -> int:
    """Show the values that there are, then every change, until Ctrl-C.

    With --json, each is an object on a line of its own: as that of `kv get --json`, and operation: PUT, DEL or PURGE.
    With --once, it waits until there is a value, shows it, and ends. With --resume, the server remembers what was
    shown; several with the same name share the changes.

    \b
    Examples:
      xml-pipeline mesh kv watch
      xml-pipeline mesh kv watch 'pipeline.*.done' --json | jq -r .key
      xml-pipeline mesh kv watch results.42 --once
    """
    from xml_pipeline.cli.mesh.lines import Lines
    from xml_pipeline.cli.mesh.output import json_text
    from xml_pipeline.cli.mesh.session import on_mesh, place_of

    _check_pattern(pattern)
    if resume:
        _check_name(resume, pattern)

    async def follow(mesh: AgentMesh) -> None:
        with Lines() as lines:
            async with aclosing(mesh.kv.watch_entries(pattern, resume=resume)) as entries:
                async for entry in entries:
                    if once and entry.is_deleted:
                        continue
                    facts = {**_facts(entry), "operation": entry.operation}
                    await lines.put(json_text(facts) if json else _line(entry))
                    if once:
                        return

    return on_mesh(place_of(url, creds), follow)


@app.command(short_help="Take the value of a key away.")
def delete(key: Key, url: Url = "", creds: Creds = "", json: JsonFlag = False) -> int:
    """Take the value of a key away; no error if it has none.

    \b
    Examples:
      xml-pipeline mesh kv delete plans.today
    """
    from xml_pipeline.cli.mesh.output import json_text
    from xml_pipeline.cli.mesh.session import on_mesh, place_of

    _check_key(key)

    async def remove(mesh: AgentMesh) -> None:
        await mesh.kv.delete(key)
        if json:
            write(json_text({"key": key}))
        else:
            say(f"{key}: deleted")

    return on_mesh(place_of(url, creds), remove)


def _check_key(key: str) -> None:
    from xml_pipeline.mesh.bucket import check_key

    _check(check_key, key)


def _check_pattern(pattern: str) -> None:
    from xml_pipeline.mesh.kv_value import check_pattern

    _check(check_pattern, pattern)


def _check(checked: Callable[[str], object], text: str) -> None:
    """A key that is none is a wrong command line, and no error of the mesh."""
    from xml_pipeline.mesh.errors import KVInvalidKey

    try:
        checked(text)
    except KVInvalidKey as error:
        raise CommandFailed(f"error: {error}", code=Exit.USAGE) from None


def _check_name(resume: str, pattern: str) -> None:
    from xml_pipeline.mesh.kv_cursor import consumer_name

    try:
        consumer_name(resume, pattern)
    except ValueError as error:
        raise CommandFailed(f"error: {error}", code=Exit.USAGE) from None


def _facts(entry: KVEntry[bytes]) -> dict[str, Any]:
    from xml_pipeline.cli.mesh.output import value_of

    return {"key": entry.key, **value_of(entry.value), "revision": entry.revision}


def _table(entries: list[KVEntry[bytes]]) -> str:
    from xml_pipeline.cli.mesh.output import one_line, table

    rows = [[one_line(entry.key), str(entry.revision), _cell(entry.value)] for entry in entries]
    return table(["KEY", "REVISION", "VALUE"], rows)


def _cell(value: bytes) -> str:
    from xml_pipeline.cli.mesh.output import one_line

    return one_line(value.decode("utf-8", "replace"), _LONGEST_CELL)


def _line(entry: KVEntry[bytes]) -> str:
    from xml_pipeline.cli.mesh.output import one_line

    head = f"{entry.operation:5} {one_line(entry.key)}  {entry.revision}"
    return head if entry.is_deleted else f"{head}  {one_line(entry.value.decode('utf-8', 'replace'), len(entry.value))}"


def _write_value(value: bytes) -> None:
    from xml_pipeline.cli.mesh.output import shown

    if sys.stdout.isatty():
        write(shown(value.decode("utf-8", "backslashreplace")))
        return
    rest = memoryview(value)
    sys.stdout.flush()
    while rest:
        rest = rest[os.write(sys.stdout.fileno(), rest) :]
