"""The configuration of an organism and its listeners, as programs build it and as the loader returns it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainValidator, model_validator

from xml_pipeline.config.agents import (
    DEFAULT_CLASSES,
    MODEL_CALL_KEYS,
    AgentFacts,
    ModelFacts,
    check_agent,
    check_models,
)
from xml_pipeline.config.base import ConfigModel
from xml_pipeline.config.crosscheck import ListenerFacts, check_listeners
from xml_pipeline.config.fields import (
    Broadcast,
    Count,
    CountOrNone,
    CountOrZero,
    Digest,
    ModulePath,
    Name,
    NotYet,
    Port,
    RateLimit,
    Seconds,
    Temperature,
    Text,
)
from xml_pipeline.config.limits import LimitFields, Limits
from xml_pipeline.config.llm import LLMConfig
from xml_pipeline.config.mesh import MeshConfig
from xml_pipeline.config.mesh_rules import check_mesh
from xml_pipeline.config.peer_tables import PeerTableConfig, check_peer_tables
from xml_pipeline.config.problems import Hints, InvalidConfiguration, KeyPath

__all__ = ["ListenerConfig", "OrganismConfig"]

_AGENT_KEYS: Final = ("model", "handler_sha256", *MODEL_CALL_KEYS)


def _paths(value: Any) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and all(isinstance(path, str) for path in value):
        return value[0] if len(value) == 1 else tuple(value)
    raise ValueError("must be an import path, or several of them")


def _classes(value: Any) -> type | tuple[type, ...] | None:
    if value is None or isinstance(value, type):
        return value
    if isinstance(value, list | tuple) and value and all(isinstance(cls, type) for cls in value):
        return value[0] if len(value) == 1 else tuple(value)
    raise ValueError("must be a class, or several of them")


def _names(value: Any) -> list[str] | None:
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ValueError("must be a list of names")
    names = list(value)
    if not all(isinstance(name, str) for name in names):
        raise ValueError("must be a list of names")
    return names


def _mapping(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


class ListenerConfig(ConfigModel):
    """One listener: the classes it accepts, its handler, and how it is run.

    Classes and handler are given by import path, or ready; a ready one wins over its path. An agent needs no handler:
    without one it is a `is_model_agent`.

    Args:
        name: unique in the organism, also when case is ignored; any text without control characters.
        payload_class_path: import path of the dataclass or pydantic model it accepts, or several.
        handler_path: import path of its async function.
        description: what it is for; its callers and agents read it.
        is_agent: it reaches only its peers, and is told how to call them; default ``False``.
        peers: names it may call. ``None``, the default: nobody for an agent, anybody for a tool. Empty: nobody.
        broadcast: its broadcast group; ``True`` for the group named by its own name up to the last dot.
        prompt: the agent's system prompt.
        model: the model that the agent uses; empty, the default, for that of `LLMConfig`.
        temperature: of the built-in model call, 0 to 2; ``None``, the default, for the provider's default.
        max_tokens: of one answer to the built-in model call; ``None``, the default, for the provider's default.
        max_model_calls: calls that the built-in model call makes on one frame; default 25.
        max_history_chars: characters of the agent's history in the conversation that the built-in model call tells the
            model; default 100,000; 0 for none.
        timeout: seconds its handler may run; default 30.0. See `OrganismConfig.timeout_of`.
        concurrency: how many of its handlers may run at a time; ``None`` for no limit of its own.
        rate: a `Rate`, a number per second, or text like ``"10/s"``; ``None`` for no limit.
        ordered: messages on one frame are handled one after another; default ``True``.
        joins: answers and errors of its calls are delivered to it whatever their class, as to an agent; default
            ``False``.
        cpu_bound: run in a process of its own; not supported in this version.
        output_class_path: import path of the class its answers are validated against.
        repair: ``"strict"`` (default) or ``"lenient"``, for malformed XML from outside.
        handler_sha256: SHA-256 of the source of the handler's module, in hexadecimal; empty for any.
        payload_class: the class it accepts, or a tuple of several.
        handler: its async function.
        output_class: the class its answers are validated against.

    Raises:
        InvalidConfiguration: an argument is unknown, missing, or wrong.
    """

    name: Name
    payload_class_path: Annotated[str | tuple[str, ...], PlainValidator(_paths)] = ""
    handler_path: str = ""
    description: Text = ""
    is_agent: bool = False
    peers: Annotated[list[str] | None, PlainValidator(_names)] = None
    broadcast: Broadcast = False
    prompt: Text = ""
    model: Text = ""
    temperature: Temperature = None
    max_tokens: CountOrNone = None
    max_model_calls: Count = 25
    max_history_chars: CountOrZero = 100_000
    timeout: Seconds = 30.0
    concurrency: CountOrNone = None
    rate: RateLimit = None
    ordered: bool = True
    joins: bool = False
    cpu_bound: NotYet = False
    output_class_path: str = ""
    repair: Literal["strict", "lenient"] = "strict"
    handler_sha256: Digest = ""
    payload_class: Annotated[type | tuple[type, ...] | None, PlainValidator(_classes)] = Field(default=None, repr=False)
    handler: Callable[..., Any] | None = Field(default=None, repr=False)
    output_class: type | None = Field(default=None, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _has_default_classes(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("is_agent") is not True:
            return values
        if values.get("handler_path") or values.get("handler") is not None:
            return values
        absent = [key for key in DEFAULT_CLASSES if not values.get(f"{key}_path") and values.get(key) is None]
        return {**values, **{f"{key}_path": DEFAULT_CLASSES[key] for key in absent}}

    @model_validator(mode="after")
    def _is_complete(self) -> ListenerConfig:
        if not self.payload_class_path and self.payload_class is None:
            raise ValueError("a listener needs payload_class or payload_class_path")
        if not self.handler_path and self.handler is None and not self.is_agent:
            raise ValueError("a listener needs handler or handler_path")
        problems = check_agent(self._agent_facts())
        if problems:
            raise InvalidConfiguration(problems)
        return self

    @property
    def is_model_agent(self) -> bool:
        """Whether it is an agent without Python: its handler is the built-in model call."""
        return self.is_agent and self.handler is None and not self.handler_path

    @property
    def payload_class_paths(self) -> tuple[str, ...]:
        """The import paths of the classes it accepts, always as a tuple."""
        path = self.payload_class_path
        return path if isinstance(path, tuple) else (path,) if path else ()

    @property
    def payload_classes(self) -> tuple[type, ...]:
        """The classes it accepts, always as a tuple; empty as long as they are not imported."""
        classes = self.payload_class
        return classes if isinstance(classes, tuple) else (classes,) if classes is not None else ()

    def _agent_facts(self, path: KeyPath = ()) -> AgentFacts:
        # A default that is passed on says nothing: copies of a configuration have it too.
        given = [name for name in _AGENT_KEYS if getattr(self, name) != ListenerConfig.model_fields[name].default]
        return AgentFacts(path, self.is_agent, not self.is_model_agent, self.prompt, given)

    def facts(self, index: int) -> ListenerFacts:
        """What rules between listeners look at; ``index`` is its position among them."""
        return ListenerFacts(
            index=index,
            name=self.name,
            is_agent=self.is_agent,
            peers=None if self.peers is None else tuple(self.peers),
            broadcast=self.broadcast,
            classes=self.payload_classes or self.payload_class_paths,
        )


class OrganismConfig(LimitFields, ConfigModel):
    """An organism: its name, its limits, its listeners, its model backends, its peer tables.

    Args:
        name: the organism's name.
        listeners: `ListenerConfig` objects.
        port: 1 to 65535; default 8765.
        identity_path: the private key that signs what leaves the organism; empty, the default, for none. A path that is
            not absolute begins at the directory of the organism's file, if there is one.
        llm_config: the model backends: a `LLMConfig`, or a mapping with the same names.
        peer_tables: `PeerTableConfig` objects.
        mesh: how it stands on the mesh; ``None``, the default, for not at all.
        description: what the organism is for.
        version: as its author counts; default ``"0.1.0"``.
        import_roots: packages that import paths may lead into; ``None`` for any.
        **limits: see `Limits`, with the same names and defaults.

    Raises:
        InvalidConfiguration: an argument is unknown, missing, or wrong; two listeners have one name, or a reserved
            name; a broadcast group or a peer table does not fit; an agent without a handler has no model.
    """

    name: Name
    listeners: list[ListenerConfig] = Field(default_factory=list)
    port: Port = 8765
    identity_path: Text = ""
    llm_config: Annotated[LLMConfig, BeforeValidator(_mapping)] = Field(default_factory=LLMConfig)
    peer_tables: list[PeerTableConfig] = Field(default_factory=list)
    mesh: MeshConfig | None = None
    description: Text = ""
    version: Text = "0.1.0"
    import_roots: list[ModulePath] | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> OrganismConfig:
        # Peers are not looked up here: a program may register further listeners before it starts.
        facts, hints = [listener.facts(index) for index, listener in enumerate(self.listeners)], Hints()
        problems, _ = check_listeners(facts, hints, known_names=None)
        agents = [listener._agent_facts(("listeners", index)) for index, listener in enumerate(self.listeners)]
        problems += check_models(agents, ModelFacts(bool(self.llm_config.backends), bool(self.llm_config.model)))
        tables = [table.facts(index) for index, table in enumerate(self.peer_tables)]
        problems += check_peer_tables(tables, facts, hints, known_names=None)
        if self.mesh is not None:
            of_mesh = check_mesh(self.mesh, self.name, facts, (), hints, complete=False)
            problems += [problem.under(("mesh",)) for problem in of_mesh]
        if problems:
            raise InvalidConfiguration(problems)
        return self

    @property
    def limits(self) -> Limits:
        """The limits on their own."""
        return Limits.of(**{name: getattr(self, name) for name in LimitFields.model_fields})

    def with_limits(self, **limits: Any) -> OrganismConfig:
        """A copy with some limits replaced; this configuration stays as it is.

        Args:
            **limits: see `Limits`.

        Raises:
            InvalidConfiguration: a name is unknown, or a value is wrong.
        """
        checked = Limits.of(**limits)
        changes: dict[str, Any] = {name: getattr(checked, name) for name in limits}
        return self.model_copy(update={**changes, "listeners": list(self.listeners)})

    def timeout_of(self, listener: ListenerConfig) -> float:
        """How long a handler of ``listener`` may run: its own timeout if it was given one, else the organism's.

        For an agent without a handler it is the model call's, which has a deadline for all its attempts.
        """
        if "timeout" in listener.model_fields_set:
            return listener.timeout
        return self.llm_config.timeout if listener.is_model_agent else self.timeout
