"""Who sent what came over the mesh, as listeners see it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from xml_pipeline.config import name_fault
from xml_pipeline.mesh import headers as h

__all__ = ["ANONYMOUS", "claimed_by", "proven_sender", "sender_of"]

ANONYMOUS: Final = "mesh:anonymous"
_LONGEST_NAME: Final = 512
_INSTANCE: Final = re.compile(r"[0-9a-fA-F]{1,64}")


def sender_of(instance_id: str) -> str:
    """The sender for a mesh object. Nobody vouches for that it is that one; but it can be no listener."""
    return f"mesh:{instance_id}" if _INSTANCE.fullmatch(instance_id) else ANONYMOUS


def proven_sender(name: str) -> str | None:
    """The sender for a listener of another organism, of which a signature has proven that it is that one.

    Args:
        name: ``<organism>.<listener>``.

    Returns:
        ``None`` for a name that could be taken for something else: only names with a dot in them are organisms'.
    """
    if "." not in name or len(name) > _LONGEST_NAME or name_fault(name) is not None:
        return None
    return f"mesh:{name}"


def claimed_by(headers: Mapping[str, str] | None) -> str:
    """The mesh object that a message says to be from; empty for none."""
    return (headers or {}).get(h.INSTANCE_ID, "")
