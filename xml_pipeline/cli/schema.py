"""``xml-pipeline schema``: of a listener's payloads, and of ``organism.yaml``."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xml_pipeline.cli.console import write
from xml_pipeline.cli.exits import CommandFailed
from xml_pipeline.cli.options import FileOption

if TYPE_CHECKING:
    from third_party.xmlable import Codec

__all__ = ["app"]

app = typer.Typer(
    help="Write a schema: of what a listener takes, or of organism.yaml.", no_args_is_help=True, rich_markup_mode=None
)

Listener = Annotated[str, typer.Argument(metavar="LISTENER", help="A listener's or a broadcast group's name.")]
ClassName = Annotated[
    str | None, typer.Option("--class", metavar="NAME", help="Which class, for a listener that takes several.")
]
Output = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file instead of stdout.")
]


@app.command()
def xsd(listener: Listener, class_name: ClassName = None, file: FileOption = None, output: Output = None) -> None:
    """Write the XML Schema of what a listener takes.

    \b
    Examples:
      xml-pipeline schema xsd greeter
      xml-pipeline schema xsd desk.clerk --class Order --output order.xsd
    """
    from lxml import etree

    document = _codec(file, listener, class_name).xsd()
    _put(etree.tostring(document, pretty_print=True, encoding="unicode"), output)


@app.command()
def json(listener: Listener, class_name: ClassName = None, file: FileOption = None, output: Output = None) -> None:
    """Write the JSON Schema of what a listener takes.

    \b
    Examples:
      xml-pipeline schema json greeter
      xml-pipeline schema json greeter | jq '.properties'
    """
    _put(json_module.dumps(_codec(file, listener, class_name).json_schema(), indent=2), output)


@app.command()
def organism(output: Output = None) -> None:
    """Write the JSON Schema of organism.yaml, for editors.

    \b
    Examples:
      xml-pipeline schema organism --output organism.schema.json
      and as the first line of organism.yaml:
        # yaml-language-server: $schema=organism.schema.json
    """
    from xml_pipeline.config import organism_json_schema

    _put(json_module.dumps(organism_json_schema(), indent=2), output)


def _codec(file: str | None, target: str, class_name: str | None) -> Codec[Any]:
    from xml_pipeline.cli.organism_file import load_organism
    from xml_pipeline.cli.targets import codec_named, codecs_of

    _, pump = load_organism(file)
    codecs = codecs_of(pump, target)
    if class_name is not None:
        return codec_named(codecs, target, class_name)
    if len(codecs) > 1:
        raise CommandFailed(f"error: {target!r} takes {' and '.join(codecs)}; say which with --class NAME")
    return next(iter(codecs.values()))


def _put(text: str, output: str | None) -> None:
    if output is None:
        write(text)
        return
    try:
        Path(output).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CommandFailed(f"error: {output} cannot be written: {reason}") from None
