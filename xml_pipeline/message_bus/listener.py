"""A listener: a named handler with the payload classes it accepts and the limits it runs under."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from third_party.xmlable import Codec, XError, codec_of
from xml_pipeline.config import Rate, broadcast_group, handler_fault, name_fault, reserved_fault
from xml_pipeline.envelope import escape_text
from xml_pipeline.errors import ConfigurationError
from xml_pipeline.message_bus.message_state import HandlerMetadata, HandlerResponse, SystemError

if TYPE_CHECKING:
    from lxml.etree import XMLSchema

__all__ = ["Handler", "HandlerResult", "Listener", "check_name", "make_generic_listener", "make_listener"]

HandlerResult: TypeAlias = HandlerResponse | Sequence[HandlerResponse] | bytes | None
Handler: TypeAlias = Callable[[Any, HandlerMetadata], Awaitable[HandlerResult] | AsyncIterator[HandlerResponse]]

RepairMode: TypeAlias = Literal["strict", "lenient"]


@dataclass(slots=True, eq=False)
class Listener:
    """A registered listener. Records are not changed after registration: a reload makes new ones.

    Attributes:
        name: matched exactly; unique also when compared in lower case.
        payload_class: the first accepted class (``object`` for a generic listener).
        handler: ``async (payload, metadata) -> HandlerResult``, or an async generator function.
        peers: names it may call; ``None`` when not declared, which means nobody for an agent, everybody for a tool.
        broadcast: ``True`` for the group named by its own name up to the last dot, or the group's name.
        schema: of the first accepted class; ``None`` for a generic listener.
        root_tag: ``lower(name).lower(class)`` of the first accepted class; ``*`` for a generic listener.
        usage: for agents: gives `usage_instructions`.
        output_class: the class it answers with, where declared.
        joins: answers and errors of its calls are delivered to it whatever their class, as to an agent; always so for
            a generic listener, which gets them as lxml elements.
        timeout: seconds a handler call may take; for a generator, each item.
        concurrency: how many of its handlers may run at once; ``None`` for no limit of its own.
        rate: how often it may be called; ``None`` for no limit.
        ordered: messages of one frame are handled one at a time, in order.
        model: the model that an agent uses; empty for the one of the organism.
        repair: how external bytes addressed to it are parsed, see `steps.repair`.
        codecs: codec by element name.
        streams: the handler is an async generator.
        group: the broadcast group's name, or empty.
        is_system: registered by the pump itself; untouched by reloads.
        is_trusted: its handler is ours: a `PipelineError` that it raises is the outcome, as it is.
        is_attached: it belongs to an `Attachment`, which says what a reload makes of it.
        configured: came from organism.yaml, so that a reload may change or remove it.
    """

    name: str
    payload_class: type
    handler: Handler
    description: str = ""
    is_agent: bool = False
    peers: list[str] | None = None
    broadcast: bool | str = False
    cpu_bound: bool = False
    handler_path: str = ""
    schema: XMLSchema | None = None
    root_tag: str = ""
    output_class: type | None = None
    timeout: float = 30.0
    payload_classes: tuple[type, ...] = ()
    concurrency: int | None = None
    rate: Rate | None = None
    ordered: bool = True
    prompt: str = ""
    model: str = ""
    repair: RepairMode = "strict"
    codecs: dict[str, Codec[Any]] = field(default_factory=dict)
    output_codec: Codec[Any] | None = None
    streams: bool = False
    is_generic: bool = False
    joins: bool = False
    is_system: bool = False
    is_trusted: bool = False
    is_attached: bool = False
    configured: bool = False
    group: str = ""
    key: str = ""
    xml_name: str = ""
    usage: Callable[[], str] | None = field(default=None, repr=False)

    @property
    def usage_instructions(self) -> str:
        """For agents: how to call each peer; empty for others."""
        return "" if self.usage is None else self.usage()

    def accepts(self, element: str) -> bool:
        """Whether an answer named ``element`` is delivered to it rather than passed on to its own caller."""
        return self.is_agent or self.joins or element in self.codecs

    @property
    def accepts_errors(self) -> bool:
        """Whether a `SystemError` is delivered to it rather than passed on to its own caller."""
        return self.accepts("SystemError")

    @property
    def route_keys(self) -> list[str]:
        """Its keys in the routing table, one per accepted class."""
        return [f"{self.key}.{element.lower()}" for element in self.codecs]


def make_listener(
    name: str,
    handler: Handler,
    payload_class: type | Sequence[type],
    *,
    description: str = "",
    agent: bool = False,
    peers: Sequence[str] | None = None,
    broadcast: bool | str = False,
    prompt: str = "",
    model: str = "",
    timeout: float = 30.0,
    concurrency: int | None = None,
    rate: Rate | str | float | None = None,
    ordered: bool = True,
    cpu_bound: bool = False,
    output_class: type | None = None,
    repair: RepairMode = "strict",
    joins: bool = False,
    system: bool = False,
    configured: bool = False,
    trusted: bool = False,
    attached: bool = False,
) -> Listener:
    """Check everything and build a `Listener`. The arguments are those of `StreamPump.register`, and these:

    Args:
        system: it is one of the pump's own, and may be called like one.
        configured: it comes from the configuration, and goes with it.
        trusted: its handler is ours: a `PipelineError` that it raises is the outcome, as it is.
        attached: it belongs to an `Attachment`, which says what becomes of it.

    Raises:
        TypeError: the handler is not async, or a payload class is neither a dataclass nor a pydantic model.
        ConfigurationError: there is no payload class, or a name or a value is not acceptable.
    """
    check_name(name, system=system)
    _check_handler(name, handler)
    if cpu_bound:
        raise ConfigurationError(f"listener {name!r}: cpu_bound is not supported in this version")
    _check_numbers(name, timeout, concurrency)
    if repair not in ("strict", "lenient"):
        raise ConfigurationError(f"listener {name!r}: repair must be 'strict' or 'lenient', not {repair!r}")
    if isinstance(peers, str):
        raise TypeError(f"listener {name!r}: peers must be a list of names, not the string {peers!r}")
    classes = _classes(name, payload_class)
    codecs = _codecs(name, classes)
    first = next(iter(codecs.values()))
    return Listener(
        name=name,
        payload_class=classes[0],
        payload_classes=classes,
        handler=handler,
        description=description,
        is_agent=agent,
        peers=None if peers is None else list(peers),
        broadcast=broadcast,
        group=_group_of(name, broadcast),
        handler_path=_path_of(handler),
        schema=first.schema,
        root_tag=f"{name.lower()}.{first.name.lower()}",
        output_class=output_class,
        output_codec=None if output_class is None else _codec(name, output_class),
        timeout=float(timeout),
        concurrency=concurrency,
        rate=rate if rate is None or isinstance(rate, Rate) else Rate.parse(rate),
        ordered=ordered,
        prompt=prompt,
        model=model,
        repair=repair,
        joins=joins,
        codecs=codecs,
        streams=_is_generator(handler),
        is_system=system,
        is_trusted=trusted,
        is_attached=attached,
        configured=configured,
        key=name.lower(),
        xml_name=escape_text(name),
    )


def make_generic_listener(name: str, handler: Handler, description: str = "", *, timeout: float = 30.0) -> Listener:
    """Build a listener that receives any payload, as an lxml element.

    Raises:
        TypeError: the handler is not async.
        ConfigurationError: the name is not acceptable.
    """
    check_name(name)
    _check_handler(name, handler)
    return Listener(
        name=name,
        payload_class=object,
        handler=handler,
        description=description,
        handler_path=_path_of(handler),
        root_tag="*",
        timeout=timeout,
        streams=_is_generator(handler),
        is_generic=True,
        joins=True,
        key=name.lower(),
        xml_name=escape_text(name),
    )


def check_name(name: str, *, system: bool = False) -> None:
    """Refuse a listener name that could not be addressed, or that would pass for somebody else.

    Raises:
        ConfigurationError: empty, padded with white space, not expressible in XML 1.0, or reserved.
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"a listener's name must be text, not {name!r}")
    fault = name_fault(name) or (None if system else reserved_fault(name))
    if fault is not None:
        raise ConfigurationError(f"listener: {fault}")


def _check_handler(name: str, handler: Handler) -> None:
    fault = handler_fault(handler)
    if fault is not None:
        raise TypeError(f"listener {name!r}: {fault}")


def _is_generator(handler: object) -> bool:
    return inspect.isasyncgenfunction(_unwrap(handler))


def _unwrap(handler: object) -> object:
    while isinstance(handler, functools.partial):
        handler = handler.func
    if inspect.isroutine(handler) or inspect.isclass(handler) or not callable(handler):
        return handler
    return type(handler).__call__


def _path_of(handler: object) -> str:
    target = _unwrap(handler)
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', repr(target))}"


def _group_of(name: str, broadcast: bool | str) -> str:
    group = broadcast_group(name, broadcast)
    if broadcast is True and group is None:
        raise ConfigurationError(
            f"listener {name!r}: 'broadcast: true' takes the group from the name up to its last dot; there is none, so "
            "write the group's name instead"
        )
    if group:
        fault = name_fault(group) or reserved_fault(group)
        if fault is not None:
            raise ConfigurationError(f"listener {name!r}, broadcast group: {fault}")
    return group or ""


def _classes(name: str, given: type | Sequence[type]) -> tuple[type, ...]:
    if isinstance(given, type):
        return (given,)
    if isinstance(given, str | bytes) or not isinstance(given, Sequence):
        raise TypeError(
            f"listener {name!r}: payload_class must be a class, or a list or tuple of classes, not {given!r:.80}"
        )
    if not given:
        raise ConfigurationError(f"listener {name!r} needs at least one payload class")
    for index, each in enumerate(given):
        if not isinstance(each, type):
            raise TypeError(f"listener {name!r}: payload_class[{index}] must be a class, not {each!r:.80}")
    return tuple(given)


def _codecs(name: str, classes: tuple[type, ...]) -> dict[str, Codec[Any]]:
    codecs: dict[str, Codec[Any]] = {}
    keys: dict[str, str] = {}
    for cls in classes:
        codec = _codec(name, cls)
        # Elements match exactly, but each class has a route of its own, and the key of a route is in lower case.
        taken = keys.setdefault(codec.name.lower(), codec.name)
        if codec.name in codecs or taken != codec.name:
            but = "" if taken == codec.name else f" and {taken!r}, which is the same but for case"
            raise ConfigurationError(f"listener {name!r} accepts two payload classes named {codec.name!r}{but}")
        codecs[codec.name] = codec
    return codecs


def _codec(name: str, cls: type) -> Codec[Any]:
    try:
        codec: Codec[Any] = codec_of(cls)
    except XError as exc:
        raise TypeError(f"listener {name!r}: {exc}") from exc
    # Either would be taken for the pump's own: an envelope in model output, or a failure.
    if codec.name == "message" or (codec.name == "SystemError" and cls is not SystemError):
        raise ConfigurationError(f"listener {name!r}: a payload class cannot be called {codec.name!r}")
    return codec


def _check_numbers(name: str, timeout: float, concurrency: int | None) -> None:
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise ConfigurationError(f"listener {name!r}: timeout must be a number of seconds above 0, not {timeout!r}")
    if concurrency is not None and (
        isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1
    ):
        raise ConfigurationError(f"listener {name!r}: concurrency must be a whole number above 0, not {concurrency!r}")
