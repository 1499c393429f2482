"""The file format: the keys of ``organism.yaml``, their types, defaults and descriptions.

The JSON Schema for editors is made from these models, and so are the problems of a file that does not fit them. What
programs work with is in `xml_pipeline.config.model`.
"""

from __future__ import annotations

import copy
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from xml_pipeline.config.agents import MODEL_CALL_KEYS
from xml_pipeline.config.base import StrictModel
from xml_pipeline.config.fields import (
    Broadcast,
    ClassPaths,
    Count,
    CountOrNone,
    CountOrZero,
    Digest,
    Flag,
    ImportPath,
    ModulePath,
    Name,
    NotYet,
    Peers,
    Port,
    RateLimit,
    SecondsOrNone,
    Temperature,
    Text,
    WrittenText,
)
from xml_pipeline.config.limits import LimitFields
from xml_pipeline.config.llm import LLMSection
from xml_pipeline.config.mesh import MeshConfig
from xml_pipeline.config.peer_tables import PeerTableSection
from xml_pipeline.config.problems import InvalidConfiguration, Problem

__all__ = ["BackendSection", "ListenerSection", "OrganismDocument", "OrganismSection"]


def _only_memory(value: str) -> str:
    if value != "memory":
        later = value in ("manager", "redis")
        raise ValueError("not supported in this version" if later else "unknown backend, 'memory' is the only one")
    return str(value)


class OrganismSection(StrictModel):
    """The ``organism`` section."""

    name: Name = Field(description="The organism's name.")
    port: Port = Field(default=8765, description="The organism's TCP port, 1 to 65535.")
    description: Text = Field(default="", description="What the organism is for.")
    version: Text = Field(default="0.1.0", description="The version of the organism, as its author counts.")
    identity: Text = Field(
        default="",
        description="Path of the private key that signs what leaves the organism, from the file's directory on; it "
        "signs nothing if absent.",
    )
    max_tokens_per_thread: CountOrNone = Field(
        default=None, description="The same as max_tokens_per_thread at the top level."
    )


class BackendSection(StrictModel):
    """The ``backend`` section: where state is kept."""

    type: Annotated[str, AfterValidator(_only_memory)] = Field(
        default="memory",
        description="The kind of store; this version has 'memory'.",
        json_schema_extra={"const": "memory"},
    )


def _no_default(schema: dict[str, Any]) -> None:
    """For a key that has to be there, but for one kind of listener; see `_KINDS`."""
    del schema["default"]


def _is(value: bool) -> dict[str, Any]:
    return {"anyOf": [{"const": value}, {"type": "string"}]}  # text: a variable


_WITHOUT_MODEL_CALL: Final[dict[str, Any]] = dict.fromkeys(MODEL_CALL_KEYS, False)
_KINDS: Final[list[dict[str, Any]]] = [
    {
        "description": "A tool.",
        "required": ["payload_class", "handler"],
        "properties": {"agent": _is(False), "model": False, **_WITHOUT_MODEL_CALL},
    },
    {
        "description": "An agent with a handler.",
        "required": ["payload_class", "handler", "agent"],
        "properties": {"agent": _is(True), **_WITHOUT_MODEL_CALL},
    },
    {
        "description": "An agent without Python: its handler is the built-in model call.",
        "required": ["agent", "prompt"],
        "properties": {"agent": _is(True), "handler": False, "handler_sha256": False, "prompt": {"minLength": 1}},
    },
]


class ListenerSection(StrictModel):
    """One entry of ``listeners``."""

    # What its kind needs is checked by `agents.check_agent` and the parser.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema.update(anyOf=copy.deepcopy(_KINDS)))

    name: Name = Field(description="The listener's name, unlike every other, also when case is ignored.")
    payload_class: ClassPaths = Field(
        default=(),
        description="Import path of the dataclass or pydantic model it accepts, or a list of several; text in, for an "
        "agent without a handler that does not say.",
        json_schema_extra=_no_default,
    )
    handler: ImportPath = Field(
        default="",
        description="Import path of its async function: package.module.attr or package.module:attr. An agent without "
        "one has the built-in model call.",
        json_schema_extra=_no_default,
    )
    description: WrittenText = Field(description="What it is for, in a sentence that callers and agents read.")
    agent: Flag = Field(default=False, description="It is an agent: it reaches only its peers, and is told how.")
    peers: Peers = Field(
        default=None,
        description="Whom it may call: names of listeners, broadcast groups and built-in listeners. Empty: nobody. "
        "Absent: nobody for an agent, anybody for a tool.",
    )
    broadcast: Broadcast = Field(
        default=False,
        description="The broadcast group it belongs to; true for the group named by its own name up to the last dot.",
    )
    prompt: Text = Field(default="", description="The agent's system prompt.")
    model: Text = Field(default="", description="The model that the agent uses; llm.model if absent.")
    temperature: Temperature = Field(
        default=None,
        description="How freely the built-in model call chooses its words, 0 to 2; the provider's default if absent.",
    )
    max_tokens: CountOrNone = Field(
        default=None, description="Tokens of one answer to the built-in model call; the provider's default if absent."
    )
    max_model_calls: Count = Field(default=25, description="Calls that the built-in model call makes on one frame.")
    max_history_chars: CountOrZero = Field(
        default=100_000,
        description="Characters of the agent's history in the conversation that the built-in model call tells the "
        "model, the latest; 0 for none.",
    )
    timeout: SecondsOrNone = Field(
        default=None,
        description="How long its handler may run, in seconds; the organism's timeout if absent, llm.timeout for an "
        "agent without a handler.",
    )
    timeout_seconds: SecondsOrNone = Field(default=None, description="The same as timeout.")
    concurrency: CountOrNone = Field(default=None, description="How many of its handlers may run at a time.")
    rate: RateLimit = Field(
        default=None, description="How often it is called: a number per second, or like '10/s', '100/min', '5/h'."
    )
    ordered: Flag = Field(default=True, description="Messages on one frame are handled one after another.")
    joins: Flag = Field(
        default=False,
        description="Answers and errors of its calls are delivered to it whatever their class, as to an agent; for a "
        "tool that waits for several calls.",
    )
    cpu_bound: NotYet = Field(
        default=False,
        description="Run in a process of its own; not supported in this version.",
    )
    output_class: ImportPath | None = Field(
        default=None, description="Import path of the class its answers are validated against."
    )
    repair: Literal["strict", "lenient"] = Field(
        default="strict", description="Whether malformed XML sent to it is refused (strict) or mended (lenient)."
    )
    handler_sha256: Digest = Field(
        default="", description="SHA-256 of the source file of the handler's module, in hexadecimal; empty for any."
    )

    @model_validator(mode="after")
    def _one_timeout(self) -> ListenerSection:
        if self.timeout is not None and self.timeout_seconds is not None:
            raise ValueError("has both 'timeout' and 'timeout_seconds', which mean the same")
        return self


class OrganismDocument(LimitFields):
    """The whole file."""

    organism: OrganismSection = Field(description="Who the organism is.")
    llm: LLMSection = Field(default=LLMSection(), description="The model backends, and how they are called.")
    listeners: list[ListenerSection] = Field(default=[], description="The listeners, in any order.")
    peer_tables: list[PeerTableSection] = Field(
        default=[], description="Narrower lists of peers, for conversations that are begun under them."
    )
    mesh: MeshConfig | None = Field(
        default=None, description="How the organism stands on the mesh; absent for not at all."
    )
    backend: BackendSection = Field(default=BackendSection(), description="Where state is kept.")
    import_roots: list[ModulePath] | None = Field(
        default=None, description="Packages that import paths may lead into; absent for any."
    )

    @model_validator(mode="after")
    def _one_budget(self) -> OrganismDocument:
        within, here = self.organism.max_tokens_per_thread, self.max_tokens_per_thread
        if within is not None and within != here and "max_tokens_per_thread" in self.model_fields_set:
            text = f"is {within:,}, but max_tokens_per_thread at the top level is {here:,}; keep one"
            raise InvalidConfiguration([Problem(text, ("organism", "max_tokens_per_thread"))])
        return self

    @property
    def token_budget(self) -> int:
        """``max_tokens_per_thread``, wherever it stands."""
        return self.organism.max_tokens_per_thread or self.max_tokens_per_thread
