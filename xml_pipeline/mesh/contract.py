"""`AgentContract`: everything others need to know to use an agent, and the document it is stored as."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from xml_pipeline.mesh import tools
from xml_pipeline.mesh.card import agent_card
from xml_pipeline.mesh.catalog_entry import CatalogEntry
from xml_pipeline.mesh.errors import InvalidReply
from xml_pipeline.mesh.subjects import agent_subject

__all__ = ["AgentContract"]

_OURS = "x-agentmesh"


class AgentContract(BaseModel):
    """One agent's contract.

    Args:
        name: of the agent.
        description: what it does.
        version: of the agent.
        capabilities: ``invocable`` and ``streaming`` as they stand in the document.
        skills: as they stand in the document.
        subject: where requests go; for information, as it follows from the name.
        tags: words to find it by.
        invocable: whether it takes requests.
        streaming: whether what it sends are chunks or events.
        input_schema: JSON Schema of its input; ``None`` for no input.
        output_schema: JSON Schema of its answer; ``None`` where it has none, or streams.
        chunk_schema: JSON Schema of a chunk or event.
        registered_at: when it was registered, or, of one that was read, when it was read.
        mcp: whether it is to be offered to MCP clients; ``None`` where nothing was said.
    """

    name: str
    description: str
    version: str = "0.1.0"
    capabilities: dict[str, Any] = Field(default_factory=dict)
    skills: list[dict[str, Any]] = Field(default_factory=list)
    subject: str = ""
    tags: list[str] = Field(default_factory=list)
    invocable: bool = True
    streaming: bool = False
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None
    chunk_schema: dict[str, Any] | None = None
    registered_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    mcp: bool | None = None

    def model_post_init(self, context: Any) -> None:
        self.subject = self.subject or agent_subject(self.name)
        self.capabilities = self.capabilities or {"streaming": self.streaming, "invocable": self.invocable}
        self.skills = self.skills or [self._skill()]

    def _skill(self) -> dict[str, Any]:
        skill: dict[str, Any] = {
            "id": self.name,
            "name": self.name,
            "description": self.description,
            "tags": list(self.tags),
        }
        if self.input_schema:
            skill["inputSchema"] = self.input_schema
        if self.output_schema:
            skill["outputSchema"] = self.output_schema
        return skill

    # -- the document

    def to_registry_json(self) -> str:
        """The document under which the registry keeps it."""
        ours: dict[str, Any] = {
            "subject": self.subject,
            "tags": self.tags,
            "registered_at": self.registered_at.isoformat(),
        }
        if self.chunk_schema:
            ours["chunk_schema"] = self.chunk_schema
        if self.mcp is not None:
            ours["mcp"] = self.mcp
        document = {
            "name": self.name,
            "description": self.description,
            "version": self.version,
            "capabilities": {"streaming": self.streaming, "invocable": self.invocable},
            "skills": [self._skill()],
            _OURS: ours,
        }
        return json.dumps(document)

    @classmethod
    def from_registry_json(cls, name: str, document: bytes | str) -> AgentContract:
        """Read a document of the registry.

        Args:
            name: the key under which it was found, which is the agent's name whatever the document says.
            document: what was found.

        Raises:
            InvalidReply: it is no contract.
        """
        try:
            found = json.loads(document)
            ours = found.get(_OURS, {})
            capabilities = found.get("capabilities", {})
            skill = (found.get("skills") or [{}])[0]
            return cls(
                name=name,
                description=found.get("description", ""),
                version=found.get("version", "0.1.0"),
                capabilities=capabilities,
                skills=found.get("skills", []),
                subject=ours.get("subject", ""),
                tags=ours.get("tags", []),
                invocable=capabilities.get("invocable", True),
                streaming=capabilities.get("streaming", False),
                input_schema=skill.get("inputSchema"),
                output_schema=skill.get("outputSchema"),
                chunk_schema=ours.get("chunk_schema"),
                mcp=ours.get("mcp"),
            )
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidReply(f"The contract of {name} in the registry cannot be read: {error}", agent=name) from error

    # -- other forms

    def to_catalog_entry(self) -> CatalogEntry:
        """Its line of the catalog."""
        return CatalogEntry(
            name=self.name,
            description=self.description,
            version=self.version,
            tags=list(self.tags),
            invocable=self.invocable,
            streaming=self.streaming,
        )

    def to_tool_schema(self) -> dict[str, Any]:
        """Name, description and input schema, for a model that calls tools.

        The input schema is that of the agent, if that is one of an object. Other input (a number, a list, one of
        several models) is the property ``value`` of one, for providers take nothing else; `tool_payload` takes it out
        of the arguments again.

        Raises:
            ValueError: it takes no requests, or its name is too long for a tool.
        """
        if not self.invocable:
            raise ValueError(f"Agent {self.name!r} is not invocable, so it cannot be a tool")
        return tools.tool_schema(self.name, self.description, self.input_schema, self.output_schema)

    def to_openai_tool(self, *, api: Literal["chat", "responses"] = "chat", strict: bool = False) -> dict[str, Any]:
        """It as a tool of OpenAI's APIs.

        Args:
            api: nested for ``chat``, flat for ``responses``.
            strict: whether the model must keep to the schema; then it gives ``null`` for what it leaves out, and
                `tool_payload` must have its arguments.

        Raises:
            ValueError: as `to_tool_schema`; or ``strict``, and the input has what cannot be said there, such as a
                dictionary.
        """
        return tools.openai_tool(self.to_tool_schema(), api, strict)

    def to_anthropic_tool(self) -> dict[str, Any]:
        """It as a tool of Anthropic's API.

        Raises:
            ValueError: as `to_tool_schema`; or a property has a name that is not taken there.
        """
        return tools.anthropic_tool(self.to_tool_schema())

    def tool_payload(self, arguments: dict[str, Any] | str) -> Any:
        """What to call the agent with, of what a model gave as the arguments of one of these tools.

        Args:
            arguments: the object, or its JSON.

        Raises:
            ValueError: that is no object, or lacks the one property there is.
        """
        return tools.payload_of(arguments, self.input_schema)

    def to_agent_card(
        self, url: str | None = None, *, binding: str = "JSONRPC", protocol_version: str = "1.0"
    ) -> dict[str, Any]:
        """It as an agent card of the A2A protocol, versions 1.0 and 0.3.

        It has what the document of the registry has, except for what only the mesh knows (``x-agentmesh``), and

        * where to reach the agent by A2A, if that is given: the mesh does not speak A2A, a gateway in front of it may.
          Without it, the card is one to show, and no client can be made from it;
        * ``defaultInputModes`` and ``defaultOutputModes``, which are JSON;
        * the name for a description, and the first part of the name for a tag, where there is none: a card must have
          both. The version is ``0.0.0`` where the agent has an empty one.

        Readers of cards ignore what is the mesh's own in it: ``capabilities.invocable``, and the schemas of the skill.

        Args:
            url: where a gateway serves the agent.
            binding: how, there: ``JSONRPC``, ``HTTP+JSON`` or ``GRPC``.
            protocol_version: of A2A, there.
        """
        return agent_card(self, url, binding, protocol_version)
