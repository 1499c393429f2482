"""An agent's contract as an agent card of the A2A protocol, for those who list agents of all kinds.

A card says where the agent is reached by A2A, which is something over HTTP in front of the mesh; the mesh itself does
not speak it. So the address is the caller's to give.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xml_pipeline.mesh.contract import AgentContract

__all__ = ["agent_card"]

_JSON = ["application/json"]


def agent_card(contract: AgentContract, url: str | None, binding: str, protocol_version: str) -> dict[str, Any]:
    """The card; see `AgentContract.to_agent_card`."""
    card: dict[str, Any] = {
        "name": contract.name,
        "description": contract.description or contract.name,
        "version": contract.version or "0.0.0",
        "capabilities": {"streaming": contract.streaming, "invocable": contract.invocable},
        "defaultInputModes": list(_JSON),
        "defaultOutputModes": list(_JSON),
        "skills": [_skill(contract)],
    }
    if url:
        # What 1.0 asks for, and what 0.3 and the SDK of the mesh asked for, which later readers pass over.
        card["supportedInterfaces"] = [{"url": url, "protocolBinding": binding, "protocolVersion": protocol_version}]
        card.update(url=url, preferredTransport=binding, protocolVersion=protocol_version)
    return card


def _skill(contract: AgentContract) -> dict[str, Any]:
    """The one thing an agent can do. It must be described, and have a tag."""
    skill: dict[str, Any] = {
        "id": contract.name,
        "name": contract.name,
        "description": contract.description or contract.name,
        "tags": list(contract.tags) or [contract.name.split(".", maxsplit=1)[0]],
    }
    for name, schema in (("inputSchema", contract.input_schema), ("outputSchema", contract.output_schema)):
        if schema:
            skill[name] = copy.deepcopy(schema)
    return skill
