"""The ``mesh`` section: how an organism stands on the mesh.

The same models are the file format and what programs build; a class may be given ready, or by its import path. This
room only checks what is said; what is done with it is in `xml_pipeline.bridge`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, model_validator
from pydantic.config import JsonDict

from xml_pipeline.config.base import ConfigModel
from xml_pipeline.config.fields import (
    Count,
    Flag,
    Name,
    Seconds,
    SecondsOrNone,
    Text,
    WrittenText,
    _Json,
)
from xml_pipeline.config.names import name_fault
from xml_pipeline.config.paths import import_path_fault
from xml_pipeline.config.problems import InvalidConfiguration, KeyPath, Problem, quoted

__all__ = [
    "FILES",
    "ExposeConfig",
    "KVConfig",
    "MeshAgentConfig",
    "MeshConfig",
    "SubjectConfig",
    "TrustConfig",
    "agent_name_fault",
    "fields_in",
    "pattern_matches",
    "with_classes",
    "with_files",
]

_Entry = TypeVar("_Entry", bound=ConfigModel)

_SEGMENT: Final = re.compile(r"[a-zA-Z0-9_-]+")
_FIELD: Final = re.compile(r"\{([^\W\d]\w*)\}")
_DEAD: Final = "mesh.dead."
_SCHEMES: Final = ("nats", "tls", "ws", "wss")
_HOST: Final = re.compile(r"[^\s\"'<>\\/?#]+/?")
FILES: Final = ("creds", "tls_cert", "tls_key", "tls_ca")
"""Keys of the section that name files."""


def agent_name_fault(name: str, *, wildcards: bool = False, fields: bool = False) -> str | None:
    """Why ``name`` cannot be an agent's name, a subject or a key; ``None`` if it can.

    Args:
        name: segments of letters, digits, ``_`` and ``-``, joined by dots.
        wildcards: a segment may be ``*``, the last one ``>``.
        fields: a segment may hold ``{field}``.
    """
    segments = name.split(".")
    for index, segment in enumerate(segments):
        if wildcards and (segment == "*" or (segment == ">" and index == len(segments) - 1)):
            continue
        bare = _FIELD.sub("x", segment) if fields else segment
        if _SEGMENT.fullmatch(bare) is None:
            kinds = ", '*', '>'" * wildcards + ", '{field}'" * fields
            return f"{quoted(name)} is not made of segments of letters, digits, '_' and '-'{kinds}, joined by dots"
    return None


def pattern_matches(pattern: str, name: str) -> bool:
    """Whether a pattern fits a name: ``*`` stands for one segment, ``>`` at the end for one or more."""
    wanted, given = pattern.split("."), name.split(".")
    for index, segment in enumerate(wanted):
        if segment == ">":
            return len(given) > index
        if index >= len(given) or segment not in ("*", given[index]):
            return False
    return len(given) == len(wanted)


def _checked(**rules: bool) -> AfterValidator:
    def check(value: str) -> str:
        fault = (agent_name_fault(value, **rules) or _twice(value)) if value else None
        if fault is not None:
            raise ValueError(fault)
        return str(value)

    return AfterValidator(check)


def fields_in(template: str) -> list[str]:
    """The fields of the payload that a template names, in order."""
    return _FIELD.findall(template)


def _twice(name: str) -> str | None:
    """A field that is there twice could be given two values."""
    fields = fields_in(name)
    twice = [field for index, field in enumerate(fields) if field in fields[:index]]
    return f"{quoted(name)} has the field {quoted(twice[0])} twice" if twice else None


def _class(value: Any) -> type | str | None:
    if value is None or isinstance(value, type):
        return value
    if not isinstance(value, str):
        raise ValueError("must be an import path")
    fault = import_path_fault(value)
    if fault is not None:
        raise ValueError(fault)
    return str(value)


def _url(value: str) -> str:
    if value != "local" and not all(_is_address(part.strip()) for part in value.split(",")):
        # Not quoted: an address may hold a password.
        raise ValueError("must be 'local', or addresses like nats://host:4222 or tls://host:4222, separated by commas")
    return str(value)


def _is_address(text: str) -> bool:
    """Whether one could connect there: the mesh takes no others."""
    scheme, found, rest = text.partition("://")
    if not found or scheme not in _SCHEMES or _HOST.fullmatch(rest) is None:
        return False
    try:
        parts = urlsplit(text)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _public_key(value: str) -> str:
    # Late: only organisms that trust somebody pay for importing the library.
    from xml_pipeline.crypto import IdentityError, decode_public_key, encode_public_key

    try:
        return encode_public_key(decode_public_key(value))
    except IdentityError as error:
        raise ValueError(error.detail) from None  # which does not quote it: it may be a private key


def _organism(value: str) -> str:
    fault = name_fault(value) or ("an organism's name has no '*'" if "*" in value else None)
    if fault is not None:
        raise ValueError(fault)
    return str(value)


def _needs(*alternatives: list[str]) -> JsonDict:
    """What editors are told of the keys that belong together."""
    return {"anyOf": [{"required": [*keys]} for keys in alternatives]}


def _optional_name(value: str) -> str:
    fault = name_fault(value) if value else None
    if fault is not None:
        raise ValueError(fault)
    return str(value)


OptionalName = Annotated[str, AfterValidator(_optional_name)]
AgentName = Annotated[str, _checked()]
Pattern = Annotated[str, _checked(wildcards=True)]
KeyPattern = Annotated[str, _checked(wildcards=True, fields=True)]
Template = Annotated[str, _checked(fields=True)]
ClassOrPath = Annotated[
    type | str | None,
    PlainValidator(_class),
    _Json({"anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}]}),
]
"""A payload class, or its import path."""


class ExposeConfig(ConfigModel):
    """One entry of ``mesh.expose``: a listener that others may call."""

    model_config = ConfigDict(populate_by_name=True)

    listener: Name = Field(description="The listener.")
    name: AgentName = Field(
        default="",
        alias="as",
        description="What it is called on the mesh; the organism's name, a dot and the listener's if absent.",
    )
    description: Text = Field(default="", description="What others read; the listener's own if absent.")
    tags: list[WrittenText] = Field(default=[], description="Words to find it by.")
    version: Text = Field(default="", description="Its version; the organism's if absent.")
    timeout: SecondsOrNone = Field(
        default=None, description="How long a call may take here, in seconds; as long as its caller waits if absent."
    )
    max_concurrency: Count = Field(default=64, description="Calls that are handled at a time.")
    max_queue: Count = Field(default=1000, description="Calls that wait for one of those to end.")
    peer_table: Name | None = Field(default=None, description="The peer table that calls from the mesh run under.")
    invocable: Flag = Field(
        default=True,
        description="With false it is only shown, and nobody can call it: a watcher, which works on what 'kv' and "
        "'subjects' bring.",
    )

    @model_validator(mode="after")
    def _called_or_not(self) -> ExposeConfig:
        called = ("timeout", "max_concurrency", "max_queue", "peer_table")
        return _unless([] if self.invocable else _misplaced(self, called, "is only for what others may call"), self)


class MeshAgentConfig(ConfigModel):
    """One entry of ``mesh.agents``: agents of the mesh as peers of listeners, or a publisher as a source."""

    model_config = ConfigDict(
        populate_by_name=True,
        json_schema_extra=_needs(["name"], ["pattern"], ["subscribe", "to", "payload_class"]),
    )

    name: AgentName = Field(default="", description="An agent on the mesh.")
    local_name: OptionalName = Field(
        default="", alias="as", description="What listeners call it; its own name if absent."
    )
    pattern: Pattern = Field(
        default="", description="Every agent whose name fits, as it appears; its classes are made from its contract."
    )
    subscribe: AgentName = Field(default="", description="A publisher, whose events become messages.")
    to: Name | None = Field(default=None, description="With 'subscribe': the listener that gets them.")
    payload_class: ClassOrPath = Field(
        default=None, description="Import path of the class of what is sent; made from the agent's contract if absent."
    )
    output_class: ClassOrPath = Field(
        default=None, description="Import path of the class of what comes back; made from the contract if absent."
    )
    description: Text = Field(default="", description="What agents read; the contract's own if absent.")
    timeout: Seconds = Field(default=30.0, description="How long a call may take, or a stream be silent, in seconds.")
    idempotent: Flag = Field(default=False, description="Calls may be made again when the connection was lost.")

    @model_validator(mode="after")
    def _one_of_three(self) -> MeshAgentConfig:
        if _chosen(self, "name", "pattern", "subscribe") is None:
            raise ValueError("needs exactly one of 'name', 'pattern' and 'subscribe'")
        problems = []
        if self.subscribe and (self.to is None or self.payload_class is None):
            problems.append(Problem("'subscribe' needs 'to' and 'payload_class'"))
        if not self.subscribe:
            problems += _misplaced(self, ("to",), "is only for 'subscribe'")
        else:
            problems += _misplaced(
                self, ("local_name", "output_class", "description", "timeout", "idempotent"), "is not for 'subscribe'"
            )
        if self.pattern:
            problems += _misplaced(
                self, ("local_name", "payload_class", "output_class", "description"), "is not for a 'pattern'"
            )
        return _unless(problems, self)

    @property
    def listener_name(self) -> str:
        """What listeners call it; empty for a pattern or a source."""
        return self.local_name or self.name


class KVConfig(ConfigModel):
    """One entry of ``mesh.kv``: keys whose changes become messages, or messages that become a key's value."""

    model_config = ConfigDict(
        json_schema_extra=_needs(["watch", "to", "payload_class"], ["put", "listener", "payload_class"])
    )

    watch: KeyPattern = Field(
        default="",
        description="Keys whose values become messages; '*' and '>' are wildcards, '{field}' fills a field of the "
        "payload with that part of the key.",
    )
    to: Name | None = Field(default=None, description="With 'watch': the listener that gets them.")
    resume: AgentName = Field(
        default="",
        description="With 'watch': the name under which the server remembers what was handled; nodes that share it "
        "share the work. Without it, every node gets the present values at its start, and every change.",
    )
    echo: Flag = Field(
        default=False,
        description="With 'watch': also what this organism has put itself, on whichever node, by an entry with 'put'.",
    )
    put: Template = Field(default="", description="A key, with '{field}' for fields of the payload.")
    listener: Name | None = Field(default=None, description="With 'put': what listeners call it.")
    payload_class: ClassOrPath = Field(default=None, description="Import path of the values' class.")
    description: Text = Field(default="", description="With 'put': what agents read.")
    timeout: SecondsOrNone = Field(
        default=None,
        description="With 'put': how long it may take, in seconds; the organism's timeout if absent.",
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> KVConfig:
        inward, outward = ("watch", "to", "resume", "echo"), ("put", "listener", "description", "timeout")
        return _unless(_one_direction(self, inward, outward), self)


class SubjectConfig(ConfigModel):
    """One entry of ``mesh.subjects``: a subject whose messages become messages here, or the other way round."""

    model_config = ConfigDict(
        json_schema_extra=_needs(["subscribe", "to", "payload_class"], ["publish", "listener", "payload_class"])
    )

    subscribe: KeyPattern = Field(
        default="", description="A subject; '*' and '>' are wildcards, '{field}' fills a field of the payload."
    )
    to: Name | None = Field(default=None, description="With 'subscribe': the listener that gets them.")
    queue: AgentName = Field(default="", description="Of those that share this name, one gets each message.")
    durable: AgentName = Field(
        default="",
        description="At least once: a JetStream consumer of this name, acknowledged when the message is done.",
    )
    stream: AgentName = Field(
        default="", description="With 'durable': the stream that holds the subject; found, or made, if absent."
    )
    echo: Flag = Field(
        default=False,
        description="With 'subscribe': also what this organism has sent itself, on whichever node, e.g. by an entry "
        "with 'publish'.",
    )
    max_deliver: Count = Field(default=5, description="With 'durable': attempts before a message is given up.")
    max_in_flight: Count = Field(default=64, description="Messages that are under way at a time.")
    ack_wait: Seconds = Field(
        default=30.0, description="With 'durable': seconds after which the server takes a silent node for dead."
    )
    dead_letters: AgentName = Field(
        default="", description="With 'durable': where what was given up goes; mesh.dead.<durable> if absent."
    )
    publish: Template = Field(default="", description="A subject, with '{field}' for fields of the payload.")
    listener: Name | None = Field(default=None, description="With 'publish': what listeners call it.")
    payload_class: ClassOrPath = Field(default=None, description="Import path of the messages' class.")
    description: Text = Field(default="", description="With 'publish': what agents read.")
    timeout: SecondsOrNone = Field(
        default=None,
        description="With 'publish': how long it may take, in seconds; the organism's timeout if absent.",
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> SubjectConfig:
        durably = ("stream", "max_deliver", "ack_wait", "dead_letters")
        inward = ("subscribe", "to", "queue", "durable", *durably, "max_in_flight", "echo")
        problems = _one_direction(self, inward, ("publish", "listener", "description", "timeout"))
        if self.subscribe and self.durable and "queue" in self.model_fields_set:
            problems.append(
                Problem("has both 'queue' and 'durable'; nodes that share a 'durable' share the work anyway")
            )
        if self.subscribe and not self.durable:
            problems += _misplaced(self, durably, "is only for 'durable'")
        return _unless(problems, self)

    @property
    def dead_letter_subject(self) -> str:
        """Where what was given up goes; empty without ``durable``."""
        return self.dead_letters or (_DEAD + self.durable if self.durable else "")


class TrustConfig(ConfigModel):
    """One entry of ``mesh.trust``: a key whose signatures count."""

    key: Annotated[str, AfterValidator(_public_key)] = Field(
        description="The public key: 44 characters, or PEM, as `xml-pipeline keygen` shows it."
    )
    organism: Annotated[str, AfterValidator(_organism)] = Field(
        description="The organism that signs with it: it may speak for this name, and for those below it."
    )
    policy: Literal["require", "accept", "ignore"] = Field(
        default="require", description="Whether what says to be from it must be signed, may be, or is not looked at."
    )


class MeshConfig(ConfigModel):
    """How an organism stands on the mesh."""

    url: Annotated[str, AfterValidator(_url)] = Field(
        default="local", description="The server's address, or 'local' for a server of its own."
    )
    creds: Text = Field(default="", description="Path of a credentials file.")
    tls_cert: Text = Field(default="", description="Path of a client certificate.")
    tls_key: Text = Field(default="", description="Path of its key.")
    tls_ca: Text = Field(default="", description="Path of the authorities to trust.")
    expose: list[ExposeConfig] = Field(default=[], description="Listeners that others may call.")
    agents: list[MeshAgentConfig] = Field(default=[], description="Agents of the mesh that listeners may call.")
    kv: list[KVConfig] = Field(default=[], description="Keys that become messages, and messages that become keys.")
    subjects: list[SubjectConfig] = Field(default=[], description="Subjects to follow, and to publish to.")
    trust: list[TrustConfig] = Field(default=[], description="Keys of other organisms.")
    signatures: Literal["require", "accept", "ignore"] = Field(
        default="accept", description="What is done with envelopes of organisms that 'trust' does not name."
    )
    events: Flag = Field(default=False, description="Put the pump's events on the mesh.")

    @model_validator(mode="after")
    def _key_of_a_certificate(self) -> MeshConfig:
        if self.tls_key and not self.tls_cert:
            raise InvalidConfiguration(
                [Problem("needs 'tls_cert', the certificate that it is the key of", ("tls_key",))]
            )
        return self

    def class_paths(self) -> Iterator[tuple[KeyPath, str]]:
        """Where a class is named by its import path, and that path."""
        for key in ("agents", "kv", "subjects"):
            for index, entry in enumerate(getattr(self, key)):
                for name in ("payload_class", "output_class"):
                    value = getattr(entry, name, None)
                    if isinstance(value, str):
                        yield (key, index, name), value

    def listener_names(self) -> Iterator[tuple[KeyPath, str]]:
        """Where a listener of the bridge's own gets its name, and that name."""
        for index, agent in enumerate(self.agents):
            if agent.listener_name:
                yield ("agents", index, "as" if agent.local_name else "name"), agent.listener_name
        for key in ("kv", "subjects"):
            for index, entry in enumerate(getattr(self, key)):
                if entry.listener is not None:
                    yield (key, index, "listener"), entry.listener

    def targets(self) -> Iterator[tuple[KeyPath, str]]:
        """Where a listener of the organism is named, and that name."""
        for index, exposed in enumerate(self.expose):
            yield ("expose", index, "listener"), exposed.listener
        for key in ("agents", "kv", "subjects"):
            for index, entry in enumerate(getattr(self, key)):
                if entry.to is not None:
                    yield (key, index, "to"), entry.to


def with_classes(mesh: MeshConfig, classes: Mapping[KeyPath, type]) -> MeshConfig:
    """A copy with classes in the place of import paths.

    Args:
        mesh: stays as it is.
        classes: by the place of their path, see `MeshConfig.class_paths`.
    """
    lists: dict[str, list[Any]] = {}
    for (key, index, name), cls in classes.items():
        entries = lists.setdefault(str(key), list(getattr(mesh, str(key))))
        entries[int(index)] = entries[int(index)].model_copy(update={str(name): cls})
    return mesh.model_copy(update=lists)


def with_files(mesh: MeshConfig, directory: Path) -> tuple[MeshConfig, list[Problem]]:
    """A copy whose files are found from everywhere, and those that are not there.

    Args:
        mesh: stays as it is.
        directory: where paths begin that are not absolute: that of the organism's file.
    """
    paths = {key: directory / said for key in FILES if (said := getattr(mesh, key))}
    problems = [
        Problem(f"there is no file {quoted(getattr(mesh, key))}; paths begin at the directory of this file", (key,))
        for key, path in paths.items()
        if not path.is_file()
    ]
    return mesh.model_copy(update={key: str(path) for key, path in paths.items()}), problems


def _unless(problems: list[Problem], entry: _Entry) -> _Entry:
    """The entry, provided that nothing is wrong with it."""
    if problems:
        raise InvalidConfiguration(problems)
    return entry


def _one_direction(entry: KVConfig | SubjectConfig, inward: Sequence[str], outward: Sequence[str]) -> list[Problem]:
    """What is wrong with an entry that is not for one direction alone.

    Args:
        entry: it.
        inward: the keys for what comes in: that says what, that says whom to, and more.
        outward: the same for what goes out.
    """
    chosen = _chosen(entry, inward[0], outward[0])
    if chosen is None:
        return [Problem(f"needs either '{inward[0]}' or '{outward[0]}'")]
    own, other = (inward, outward) if chosen == inward[0] else (outward, inward)
    problems = []
    if getattr(entry, own[1]) is None:
        problems.append(Problem(f"'{own[0]}' needs '{own[1]}'"))
    problems += _misplaced(entry, other[1:], f"is only for '{other[0]}'")
    if entry.payload_class is None:
        problems.append(Problem("is missing", ("payload_class",)))
    return problems


def _chosen(entry: ConfigModel, *alternatives: str) -> str | None:
    """Which of the keys stands there; ``None`` where none says something, or another one stands beside it."""
    written = [key for key in alternatives if key in entry.model_fields_set]
    return written[0] if len(written) == 1 and getattr(entry, written[0]) else None


def _misplaced(entry: ConfigModel, keys: Iterable[str], fault: str) -> list[Problem]:
    """Keys that stand where they would not be heeded, whatever they say: whoever writes one takes it to count."""
    fields = type(entry).model_fields
    return [Problem(fault, (fields[key].alias or key,)) for key in keys if key in entry.model_fields_set]
