"""`xmlify` and `codec_of`."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, Final, TypeVar

from .build import record_of
from .codec import Codec
from .errors import Unresolved, XError
from .fields import is_record
from .members import MEMBER_NAMES, members

__all__ = ["codec_of", "xmlify"]

T = TypeVar("T")

_CODEC: Final = "__xmlable_codec__"
_RESERVED: Final = ("get_xobject", "xsd_forward", "xsd_dependencies", "comment")
"""Refused as fields and as attributes; the other member names as fields only."""


def xmlify(cls: type[T]) -> type[T]:
    """Map a class to XML. Goes above ``@dataclass``, or on a pydantic model; may also be called.

    The class gets the members `xsd`, `xml`, `xml_value`, `parse`, and a few more (see `members`). One of the first
    four that the class defines itself stays as it is.

    Args:
        cls: a dataclass or a pydantic model.

    Returns:
        The same class.

    Raises:
        XError: ``cls`` is something else; a field's type is not supported; two fields have one element name; a name
            the mapping needs is taken. Annotations that name classes not defined yet are looked at on first use.
    """
    if not is_record(cls):
        raise XError(_not_a_record(cls))
    if _kept(cls) is not None:
        return cls
    _refuse_reserved(cls)
    codec: Codec[T] = Codec(record_of(cls))
    with contextlib.suppress(Unresolved):  # of a class written further down, perhaps: the first use looks again
        codec.resolve()
    for name, member in _MEMBERS.items():
        if name not in vars(cls):
            setattr(cls, name, member)
    setattr(cls, _CODEC, codec)
    return cls


def codec_of(cls: type[T]) -> Codec[T]:
    """Return the codec of a class, the same one each time. A class without `xmlify` is given to it first.

    Raises:
        XError: as `xmlify`.
    """
    try:
        codec = _kept(cls)
    except TypeError:  # not a class; xmlify says so
        codec = None
    return codec or vars(xmlify(cls))[_CODEC]


def _kept(cls: type[T]) -> Codec[T] | None:
    """Return the codec kept on the class itself, neither inherited nor copied by ``@dataclass(slots=True)``."""
    codec: Codec[T] | None = vars(cls).get(_CODEC)
    return codec if codec is not None and codec.cls is cls else None


_MEMBERS: Final = members(codec_of)


def _not_a_record(cls: Any) -> str:
    name = getattr(cls, "__name__", None) or repr(cls)
    if not isinstance(cls, type):
        return f"{name} is not a class; expected a dataclass or a pydantic model"
    return f"{name} is neither a dataclass nor a pydantic model; decorate it with @dataclass, and @xmlify above that"


def _refuse_reserved(cls: type) -> None:
    fields = set(getattr(cls, "model_fields", ()))
    if dataclasses.is_dataclass(cls):
        fields |= {field.name for field in dataclasses.fields(cls)}
    for name in (*_RESERVED, *MEMBER_NAMES):
        if name in fields or (name in _RESERVED and _own(cls, name)):
            raise XError(f"the name {name!r} is reserved by xmlify; rename it").at(f"{cls.__name__}.{name}")


def _own(cls: type, name: str) -> bool:
    """Whether the class has an attribute of that name which is not a member that `xmlify` put on a base."""
    return any(name in vars(base) and vars(base)[name] is not _MEMBERS.get(name) for base in cls.__mro__)
