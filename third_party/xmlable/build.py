"""From annotations to kinds."""

from __future__ import annotations

import enum
import functools
import types
import typing
from typing import Any, Final

from .basics import BASICS
from .choices import of_enum, of_literal
from .errors import XError
from .fields import fields_of, is_record
from .kind import Kind
from .mapping import Mapping
from .moments import MOMENTS
from .record import Record
from .series import Row, Series
from .union import NOTHING, Union

__all__ = ["kind_of", "record_of"]

_RECORD: Final = "__xmlable_record__"
_SCALARS: Final = {**BASICS, **MOMENTS}


def record_of(cls: type) -> Record:
    """Return the kind of a dataclass or pydantic model, the same one for each call.

    It is kept on the class itself: a table beside it would keep classes alive that nobody else uses any more.
    """
    record: Record | None = vars(cls).get(_RECORD)
    if record is None or record.cls is not cls:  # `@dataclass(slots=True)` copies a class with all it has
        record = Record(cls, functools.partial(fields_of, cls, kind_of))
        setattr(cls, _RECORD, record)
    return record


def kind_of(annotation: Any) -> Kind:
    """Return the kind of an annotation.

    Raises:
        XError: the type is not supported; the message says what to use instead.
    """
    return _kind_of(annotation, ())


def _kind_of(annotation: Any, aliases: tuple[Any, ...]) -> Kind:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Annotated, typing.Final):
        return _kind_of(args[0], aliases)
    if isinstance(annotation, typing.NewType):
        return _kind_of(annotation.__supertype__, aliases)
    alias = annotation if origin is None else origin
    if hasattr(alias, "__value__"):  # a `type X = ...` statement, or typing_extensions.TypeAliasType
        if any(alias is outer for outer in aliases):
            raise XError(f"the type alias {alias} contains itself; use a dataclass for the recursive part")
        return _kind_of(_substituted(alias, args), (*aliases, alias))
    if annotation is None or annotation is types.NoneType:
        return NOTHING
    if origin is typing.Literal:
        return _literal(args)
    if origin in (typing.Union, types.UnionType):
        return Union(tuple(_kind_of(part, aliases) for part in args))
    if origin is not None:
        return _container(annotation, origin, args, aliases)
    return _class(annotation)


def _substituted(alias: Any, args: tuple[Any, ...]) -> Any:
    """Return what a type alias stands for, its type parameters replaced by ``args``."""
    arguments = dict(zip(alias.__type_params__, args, strict=False))
    parameters = getattr(alias.__value__, "__parameters__", ())
    return alias.__value__[tuple(arguments.get(each, each) for each in parameters)] if arguments else alias.__value__


def _literal(values: tuple[Any, ...]) -> Kind:
    rest = tuple(value for value in values if value is not None)
    if not rest:
        return NOTHING
    return of_literal(rest) if len(rest) == len(values) else Union((of_literal(rest), NOTHING))


def _container(annotation: Any, origin: Any, args: tuple[Any, ...], aliases: tuple[Any, ...]) -> Kind:
    if origin is tuple and (not args or args[-1] is not Ellipsis):
        if not args and annotation is typing.Tuple:  # noqa: UP006
            raise _unsupported(annotation)
        return Row(tuple(_kind_of(part, aliases) for part in args))
    if not args:
        raise _unsupported(annotation)
    if origin in (list, set, frozenset, tuple):
        return Series(origin, _kind_of(args[0], aliases))
    if origin is dict:
        return Mapping(_kind_of(args[0], aliases), _kind_of(args[1], aliases))
    raise _unsupported(annotation)


def _class(annotation: Any) -> Kind:
    if not isinstance(annotation, type):
        raise _unsupported(annotation)
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if issubclass(annotation, enum.Enum):
        return of_enum(annotation)
    if is_record(annotation):
        return record_of(annotation)
    raise _unsupported(annotation)


_INSTEAD: Final[dict[Any, str]] = {
    Any: "the schema must say what may come; use a union, dict[str, str], or a dataclass",
    object: "the schema must say what may come; use a union, dict[str, str], or a dataclass",
    list: "say of what, as in list[str]",
    set: "say of what, as in set[str]",
    frozenset: "say of what, as in frozenset[str]",
    tuple: "say of what, as in tuple[int, str] or tuple[int, ...]",
    dict: "say of what, as in dict[str, int]",
    bytearray: "use bytes",
    memoryview: "use bytes",
}


def _unsupported(annotation: Any) -> XError:
    origin = typing.get_origin(annotation) or annotation
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    if isinstance(annotation, typing.TypeVar):
        return XError(f"the type variable {name} stands for no type; use a class without type parameters")
    try:
        instead = _INSTEAD[origin]
    except (KeyError, TypeError):
        instead = "use a supported type, a dataclass or a pydantic model (see third_party.xmlable)"
    return XError(f"the type {name} is not supported: {instead}")
