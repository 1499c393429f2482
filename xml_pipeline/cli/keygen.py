"""``xml-pipeline keygen``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xml_pipeline.cli.console import print_json, say
from xml_pipeline.cli.exits import CommandFailed, Exit
from xml_pipeline.cli.options import JsonFlag

__all__ = ["keygen"]


def keygen(
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="Where the private key goes; the public one beside it."),
    ] = "identity.key",
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite keys, if they exist.")] = False,
    json: JsonFlag = False,
) -> int:
    """Make an identity: a private key that signs what leaves an organism, and the public key that others trust.

    \b
    Examples:
      xml-pipeline keygen
      xml-pipeline keygen --output keys/shop.key --json
    """
    from xml_pipeline.crypto import Identity, IdentityError

    private = Path(output)
    public = private.with_suffix(".pub") if private.name else private
    identity = Identity.generate()
    try:
        identity.save(private, public, overwrite=force)
    except IdentityError as error:
        hint = "; --force overwrites" if "exists already" in error.detail else ""
        raise CommandFailed(f"error: {error.detail}{hint}") from None
    facts = {
        "private": str(private),
        "public": str(public),
        "public_key": identity.get_public_key_base64(),
        "key_id": identity.key_id,
    }
    if json:
        print_json(facts)
        return Exit.OK
    say(f"wrote {private}, which only you can read, and {public}")
    say(f"public key: {facts['public_key']}")
    say(f"key id: {facts['key_id']}")
    return Exit.OK
