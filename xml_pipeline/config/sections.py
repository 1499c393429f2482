"""Where in the file a key belongs, for those who wrote it elsewhere."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel

from xml_pipeline.config.document import BackendSection, ListenerSection, OrganismDocument, OrganismSection
from xml_pipeline.config.llm import LLMBackendSection, LLMSection
from xml_pipeline.config.mesh import (
    ExposeConfig,
    KVConfig,
    MeshAgentConfig,
    MeshConfig,
    SubjectConfig,
    TrustConfig,
)
from xml_pipeline.config.peer_tables import PeerEntrySection, PeerTableSection

__all__ = ["place_of"]

_PLACES: Final[dict[type[BaseModel], str]] = {
    OrganismDocument: "at the top level of the file",
    OrganismSection: "under 'organism'",
    BackendSection: "under 'backend'",
    ListenerSection: "in an entry of 'listeners'",
    LLMSection: "under 'llm'",
    LLMBackendSection: "in an entry of 'llm.backends'",
    PeerTableSection: "in an entry of 'peer_tables'",
    PeerEntrySection: "in one of a peer table's 'entries'",
    MeshConfig: "under 'mesh'",
    ExposeConfig: "in an entry of 'mesh.expose'",
    MeshAgentConfig: "in an entry of 'mesh.agents'",
    KVConfig: "in an entry of 'mesh.kv'",
    SubjectConfig: "in an entry of 'mesh.subjects'",
    TrustConfig: "in an entry of 'mesh.trust'",
}
_MOST: Final = 2


def place_of(key: str, owner: type[BaseModel] | None) -> str | None:
    """In which sections of the file ``key`` is known.

    Args:
        key: a key that ``owner`` does not have.
        owner: the model of the section that it was found in.

    Returns:
        A phrase to follow "belongs", with the first places if there are many; ``None`` if no section has such a key, or
        ``owner`` is no section of the file.
    """
    if owner not in _PLACES:
        return None
    places = [place for model, place in _PLACES.items() if key in model.model_fields]
    return ", or ".join(places[:_MOST]) or None
