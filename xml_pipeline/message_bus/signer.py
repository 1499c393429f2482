"""Who signs what leaves the organism: its identity, from the file that the configuration names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xml_pipeline.config import InvalidConfiguration, OrganismConfig, Problem

if TYPE_CHECKING:
    from xml_pipeline.crypto import Identity

__all__ = ["load_identity"]


def load_identity(config: OrganismConfig, config_path: str = "") -> Identity | None:
    """The identity of an organism; ``None`` if none is configured.

    Args:
        config: names the file.
        config_path: of the organism's own file, at whose directory a path that is not absolute begins; empty for a
            program's, whose paths begin at the working directory.

    Raises:
        InvalidConfiguration: the identity cannot be used. An organism that is to sign never goes on without.
    """
    if not config.identity_path:
        return None
    # Late: only organisms that sign pay for importing the library.
    from xml_pipeline.crypto import Identity, IdentityError

    try:
        return Identity.load(Path(config_path).parent / config.identity_path)
    except IdentityError as error:
        raise InvalidConfiguration([Problem(error.detail, ("organism", "identity"))]) from error
