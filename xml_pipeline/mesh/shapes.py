"""What a handler is, from its signature.

================================================== ========= ========= ==========
Signature                                          invocable streaming shape
================================================== ========= ========= ==========
``async def f(x: T) -> R``                         yes       no        responder
``async def f(x: T) -> AsyncIterator[R]``, yields  yes       yes       streamer
``async def f() -> R``                             yes       no        trigger
``async def f() -> AsyncIterator[R]``, yields      no        yes       publisher
``async def f()``                                  no        no        background
================================================== ========= ========= ==========

A generator's return annotation may also be ``R`` itself. Only the first parameter counts; others need defaults. A first
parameter without an annotation takes any JSON.

A handler that takes a `KVEntry` or a `MeshMessage` is a background task, whatever it returns: nobody can ask for what
only a source can give. If it yields, it is refused, for there is nobody who would get that.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from xml_pipeline.mesh.errors import InvalidInput
from xml_pipeline.mesh.kv_entry import KVEntry
from xml_pipeline.mesh.mesh_message import MeshMessage
from xml_pipeline.mesh.payload import json_safe

__all__ = ["Envelope", "Handler", "Shape", "read_handler"]

_STREAMS = (AsyncIterator, AsyncGenerator, AsyncIterable)
_MOST_ERRORS = 100
_SHOWN_ERRORS = 5


class Shape(Enum):
    """The five shapes of a handler; the value is (invocable, streaming)."""

    RESPONDER = (True, False, "responder")
    STREAMER = (True, True, "streamer")
    TRIGGER = (True, False, "trigger")
    PUBLISHER = (False, True, "publisher")
    BACKGROUND = (False, False, "background task")

    @property
    def invocable(self) -> bool:
        """Whether it takes requests."""
        return self.value[0]

    @property
    def streaming(self) -> bool:
        """Whether it yields."""
        return self.value[1]


class Envelope(Enum):
    """What the value of the parameter comes in; the value is its name."""

    VALUE = "value"
    KV_ENTRY = "KVEntry"
    MESH_MESSAGE = "MeshMessage"


@dataclass(frozen=True)
class Handler:
    """A handler with what its signature says.

    Args:
        function: what is called, with one argument or none.
        shape: see there.
        title: how it is called in messages.
        input: of its parameter; ``None`` if it has none.
        optional: whether it can be called without an argument.
        nullable: whether ``None`` is a value of its parameter.
        output: of what it returns or yields; ``None`` if nothing was said.
        envelope: what the value of its parameter comes in.
        content: of the value; that of ``input`` where it comes in nothing.
        raw: ``bytes`` or ``str`` where a source gives the value as it is, ``None`` where it is read as JSON.
    """

    function: Callable[..., Any]
    shape: Shape
    title: str
    input: TypeAdapter[Any] | None
    optional: bool
    nullable: bool
    output: TypeAdapter[Any] | None
    envelope: Envelope = Envelope.VALUE
    content: TypeAdapter[Any] | None = None
    raw: type | None = None

    @property
    def doc(self) -> str:
        """Its docstring, as one description."""
        return inspect.cleandoc(getattr(_inner(self.function), "__doc__", None) or "")

    def arguments(self, body: bytes) -> tuple[Any, ...]:
        """What to call it with.

        Args:
            body: of the request; empty, and ``null`` where that is no value of its own, stand for no argument.

        Raises:
            InvalidInput: the body is not JSON of the parameter's type, or there is none and there must be.
        """
        if self.input is None:
            return ()
        if not body:
            return self._without(None)
        value = _validated(self.input.validator.validate_json, body)
        return self._without(value) if value is None else (value,)

    def read(self, body: bytes) -> Any:
        """The value that a source gives.

        Raises:
            InvalidInput: it is not of the parameter's type.
        """
        if self.content is None:
            return body
        if self.raw is None:
            return _validated(self.content.validator.validate_json, body)
        return _validated(self.content.validator.validate_python, body if self.raw is bytes else _text(body))

    def _without(self, value: None) -> tuple[Any, ...]:
        if self.optional:
            return ()
        if self.nullable:
            return (value,)
        raise InvalidInput("The agent needs a payload, and there is none.", details={"errors": []})

    def body_of(self, result: Any) -> bytes:
        """The body of an answer or a chunk; ``{}`` for ``None``.

        Raises:
            TypeError: the result is not what was declared, or cannot be put into JSON.
        """
        if result is None:
            return b"{}"
        try:
            if self.output is None:
                return to_json(result, inf_nan_mode="null")
            return self._declared(self.output, result)
        except (PydanticSerializationError, ValidationError, ValueError, RecursionError) as error:
            raise TypeError(f"what {self.title} returned is not what it declared, or not JSON: {error}") from error

    def _declared(self, output: TypeAdapter[Any], result: Any) -> bytes:
        try:
            return output.serializer.to_json(result, warnings="error")
        except PydanticSerializationError:
            # E.g. a dict where a model was declared: taken if it is one in another form.
            return output.serializer.to_json(output.validate_python(result), warnings="error")


def read_handler(function: Callable[..., Any]) -> Handler:
    """What a handler is.

    Args:
        function: a coroutine function, an async generator function, an object with such a ``__call__``, a method, or a
            partial of these.

    Raises:
        TypeError: it is none of these, takes more than one argument, yields although it takes an envelope, or a type
            has no JSON Schema; the text names the parameter and the type.
    """
    inner = _inner(function)
    title = getattr(inner, "__qualname__", type(function).__name__)
    if not (inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)):
        raise TypeError(f"the handler {title} must be `async def`")
    hints = _hints(inner, title)
    parameter = _parameter(function, title)
    generator = inspect.isasyncgenfunction(inner)
    returned = hints.get("return", inspect.Parameter.empty)
    hint = hints.get(parameter.name, Any) if parameter else None
    envelope, content = _unwrapped(hint)
    if envelope is not Envelope.VALUE:
        return _reaction(function, title, generator, parameter, envelope, content)
    if generator:
        returned = _chunk(returned)
    silent = returned in (inspect.Parameter.empty, None, type(None))
    takes = _adapter(hint, f"parameter {parameter.name!r}", title) if parameter else None
    shape = _shape(takes is not None, generator, silent)
    return Handler(
        function=function,
        shape=shape,
        title=title,
        input=takes,
        optional=parameter is None or parameter.default is not inspect.Parameter.empty,
        nullable=takes is not None and _takes_none(takes),
        output=None if silent else _adapter(returned, "the return value", title),
        content=takes,
        raw=_raw(hint),
    )


def _reaction(
    function: Callable[..., Any],
    title: str,
    generator: bool,
    parameter: inspect.Parameter | None,
    envelope: Envelope,
    content: Any,
) -> Handler:
    """A handler of what sources give, with all that came with it. What it returns is nobody's."""
    what = f"parameter {parameter.name!r}" if parameter else ""
    if generator:
        raise TypeError(
            f"{title} takes a {envelope.value} and yields: only sources call it, and nobody would get what it yields. "
            "Make it `async def` without `yield`, and publish from it, with mesh.publish(...) or mesh.kv.put(...)"
        )
    return Handler(
        function=function,
        shape=Shape.BACKGROUND,
        title=title,
        input=None,
        optional=False,
        nullable=False,
        output=None,
        envelope=envelope,
        content=_adapter(content, what, title),
        raw=_raw(content),
    )


def _bare(hint: Any) -> Any:
    """The type without annotations, and without that it may be ``None``."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _bare(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        some = [one for one in typing.get_args(hint) if one is not type(None)]
        return _bare(some[0]) if len(some) == 1 else hint
    return hint


def _raw(hint: Any) -> type | None:
    bare = _bare(hint)
    return bare if bare in (bytes, str) else None


def _unwrapped(hint: Any) -> tuple[Envelope, Any]:
    """The envelope, and the type of the value in it: bytes where nothing was said."""
    hint = _bare(hint)
    origin = typing.get_origin(hint)
    for kind, envelope in ((KVEntry, Envelope.KV_ENTRY), (MeshMessage, Envelope.MESH_MESSAGE)):
        if hint is kind or origin is kind:
            return envelope, next(iter(typing.get_args(hint)), bytes)
    return Envelope.VALUE, hint


def _shape(takes: bool, generator: bool, silent: bool) -> Shape:
    if generator:
        return Shape.STREAMER if takes else Shape.PUBLISHER
    if takes:
        return Shape.RESPONDER
    return Shape.BACKGROUND if silent else Shape.TRIGGER


def _inner(function: Any) -> Any:
    """The function that is run in the end."""
    while isinstance(function, functools.partial):
        function = function.func
    if not (inspect.isfunction(function) or inspect.ismethod(function)) and callable(function):
        called = getattr(type(function), "__call__", None)  # noqa: B004  # it is read, not asked for
        return called if inspect.isfunction(called) else function
    return function


def _hints(inner: Any, title: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(inner, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise TypeError(f"an annotation of {title} cannot be resolved: {error}") from error


def _parameter(function: Any, title: str) -> inspect.Parameter | None:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    first = None
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            continue
        if first is None and parameter.kind in positional and parameter.name != "self":
            first = parameter
        elif parameter.default is inspect.Parameter.empty and parameter.name != "self":
            raise TypeError(
                f"{title} has the parameter {parameter.name!r} without a default: a handler gets one argument at most"
            )
    return first


def _chunk(returned: Any) -> Any:
    origin = typing.get_origin(returned)
    if origin in _STREAMS:
        return typing.get_args(returned)[0]
    return inspect.Parameter.empty if returned in _STREAMS else returned


def _adapter(hint: Any, what: str, title: str) -> TypeAdapter[Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
        adapter.json_schema()
    except (PydanticUserError, TypeError, NameError, RecursionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise TypeError(
            f"{what} of {title} is of type {_name(hint)}, for which there is no JSON Schema: {reason}"
        ) from error
    return adapter


def _name(hint: Any) -> str:
    return hint.__qualname__ if isinstance(hint, type) else str(hint)


def _takes_none(adapter: TypeAdapter[Any]) -> bool:
    try:
        adapter.validate_python(None)
    except Exception:  # a validator of the user's may raise anything
        return False
    return True


def _validated(validate: Callable[[Any], Any], value: Any) -> Any:
    try:
        return validate(value)
    except ValidationError as error:
        raise _invalid(error) from error


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The value is not text: {error}", details={"errors": []}) from error


def _invalid(error: ValidationError) -> InvalidInput:
    count = error.error_count()
    if count > _MOST_ERRORS:
        return InvalidInput(f"The payload has {count} errors.", details={"errors": []})
    errors = json_safe(error.errors(include_url=False))
    shown = [
        f"{'.'.join(str(step) for step in one['loc']) or 'payload'}: {one['msg']}" for one in errors[:_SHOWN_ERRORS]
    ]
    more = "; ..." if count > _SHOWN_ERRORS else ""
    return InvalidInput(f"The payload is not valid. {'; '.join(shown)}{more}", details={"errors": errors})
