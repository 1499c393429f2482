"""`Field`: one field of a class, as a dataclass or a pydantic model declares it."""

from __future__ import annotations

import dataclasses
import inspect
import keyword
import types
import typing
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeGuard

import pydantic
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from .errors import XError
from .hints import enclosing_names, hints_of
from .kind import Kind
from .names import checked, pascal

__all__ = ["NO_DEFAULT", "Field", "fields_of", "init_only_fields", "is_model", "is_record"]

NO_DEFAULT: Final = object()
"""Says that a field has no default, or one that is made afresh each time."""

_INIT_VAR: Final = dataclasses._FIELD_INITVAR  # type: ignore[attr-defined]  # no public function tells them apart

KindOf = Callable[[Any], Kind]


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One field of a class.

    Args:
        name: the attribute.
        key: the constructor's argument; differs from ``name`` for an aliased field of a pydantic model.
        element: the element.
        kind: its type, without ``None`` where absence means that.
        required: there is no default.
        absent_is_none: the default is ``None``, so ``None`` is written by leaving the element out.
        keyword_only: the constructor takes it by keyword only.
        default: the default, or `NO_DEFAULT`.
        example: a value for examples, or `NO_DEFAULT`: the author's, or the default.
        description: what it means, in the author's words; may be empty.
    """

    name: str
    key: str
    element: str
    kind: Kind
    required: bool
    absent_is_none: bool
    keyword_only: bool
    default: Any
    example: Any
    description: str


def is_model(cls: type) -> TypeGuard[type[pydantic.BaseModel]]:
    """Whether ``cls`` is a pydantic model."""
    return issubclass(cls, pydantic.BaseModel) and cls is not pydantic.BaseModel


def is_record(cls: object) -> TypeGuard[type]:
    """Whether ``cls`` is a dataclass or a pydantic model."""
    return isinstance(cls, type) and (dataclasses.is_dataclass(cls) or is_model(cls))


def fields_of(cls: type, kind_of: KindOf) -> tuple[Field, ...]:
    """Return the fields of ``cls`` that are written, in declaration order.

    Left out are fields the constructor does not take (``init=False``): the class derives them itself; and fields of a
    pydantic model with ``exclude=True``.

    Raises:
        XError: a field of an unsupported type, two fields with one element name, a field that could not be read back.
        NameError: an annotation names something that does not exist yet.
    """
    fields = _of_model(cls, kind_of) if is_model(cls) else _of_dataclass(cls, kind_of)
    owner: dict[str, str] = {}
    for field in fields:
        if field.element in owner:
            raise XError(
                f"the fields {owner[field.element]!r} and {field.name!r} would both be the element "
                f"<{field.element}>; rename one, or set its xml_name"
            )
        owner[field.element] = field.name
    return fields


def _of_dataclass(cls: type, kind_of: KindOf) -> tuple[Field, ...]:
    if "__dataclass_fields__" not in vars(cls) and inspect.get_annotations(cls):
        raise XError("it has annotations, but only its base is a dataclass; put @dataclass below @xmlify")
    infos: Mapping[str, FieldInfo] = getattr(cls, "__pydantic_fields__", {})  # those of a pydantic dataclass
    for init_only in init_only_fields(cls):
        if _is_required(init_only):
            raise XError("an InitVar without a default cannot be read back: its value is not kept").at(
                f".{init_only.name}"
            )
    items = [item for item in dataclasses.fields(cls) if item.init]
    hints = hints_of(cls, {item.name for item in items})
    fields = []
    for item in items:
        hint, by_keyword = hints[item.name], bool(item.kw_only)
        if item.name in infos:
            fields.append(_from_info(cls, item.name, infos[item.name], hint, kind_of, by_keyword))
            continue
        fields.append(
            _field(
                item.name,
                hint,
                kind_of,
                required=_is_required(item),
                default=NO_DEFAULT if item.default is dataclasses.MISSING else item.default,
                keyword_only=by_keyword,
                extra=item.metadata,
            )
        )
    return tuple(fields)


def _is_required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def init_only_fields(cls: type) -> list[dataclasses.Field[Any]]:
    """Return the ``InitVar`` pseudo-fields of a dataclass: arguments of the constructor that are not kept."""
    everything: Mapping[str, dataclasses.Field[Any]] = getattr(cls, "__dataclass_fields__", {})
    return [item for item in everything.values() if getattr(item, "_field_type", None) is _INIT_VAR]


def _of_model(cls: type[pydantic.BaseModel], kind_of: KindOf) -> tuple[Field, ...]:
    if issubclass(cls, pydantic.RootModel):
        raise XError("a RootModel has no fields; use a model with one field")
    if not cls.__pydantic_complete__:
        cls.model_rebuild(raise_errors=False, _types_namespace={**enclosing_names(cls), cls.__name__: cls})
        if not cls.__pydantic_complete__:
            raise NameError(f"an annotation of {cls.__name__} names something that is not defined")
    fields = []
    for name, info in cls.model_fields.items():
        if info.exclude:
            if info.is_required():
                raise XError("excluded and required: it could not be read back").at(f".{name}")
            continue
        fields.append(_from_info(cls, name, info, info.annotation, kind_of, True))
    return tuple(fields)


def _from_info(cls: type, name: str, info: FieldInfo, annotation: Any, kind_of: KindOf, keyword_only: bool) -> Field:
    extra = dict(info.json_schema_extra) if isinstance(info.json_schema_extra, Mapping) else {}
    field = _field(
        name,
        annotation,
        kind_of,
        required=info.is_required(),
        default=NO_DEFAULT if info.default is PydanticUndefined else info.default,
        keyword_only=keyword_only,
        extra={"description": info.description, **extra},
    )
    example = info.examples[0] if info.examples else field.example
    return dataclasses.replace(field, key=_key(cls, name, info), example=example)


def _key(cls: type, name: str, info: FieldInfo) -> str:
    """Return the name under which the model's constructor takes the field."""
    config: Mapping[str, Any] = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", {})
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    alias = info.validation_alias
    if alias is None or by_name or config.get("validate_by_alias") is False:
        return name
    choices = alias.choices if isinstance(alias, pydantic.AliasChoices) else [alias]
    for choice in choices:
        if isinstance(choice, str):
            return choice
    raise XError("its only alias is an AliasPath; give it a plain alias, or set validate_by_name").at(f".{name}")


def _field(
    name: str,
    annotation: Any,
    kind_of: KindOf,
    *,
    required: bool,
    default: Any,
    keyword_only: bool,
    extra: Mapping[Any, Any],
) -> Field:
    try:
        # Compiled encoders contain the name as code. The compiler would fold it to NFKC, and read another attribute.
        if not name.isidentifier() or keyword.iskeyword(name) or unicodedata.normalize("NFKC", name) != name:
            raise XError("it is no Python identifier in normal form")
        element = checked(str(extra.get("xml_name") or pascal(name)), of="its element")
        absent_is_none = default is None
        kind = kind_of(_without_none(annotation) if absent_is_none else annotation)
    except XError as error:
        error.at(f".{name}")
        raise
    return Field(
        name=name,
        key=name,
        element=element,
        kind=kind,
        required=required,
        absent_is_none=absent_is_none,
        keyword_only=keyword_only,
        default=default,
        example=default if default is not None else NO_DEFAULT,
        description=inspect.cleandoc(str(extra.get("description") or "")).strip(),
    )


def _without_none(annotation: Any) -> Any:
    """Take ``None`` out of a union, and out of a literal."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _without_none(typing.get_args(annotation)[0])
    if origin not in (typing.Union, types.UnionType, typing.Literal):
        return annotation
    rest = tuple(part for part in typing.get_args(annotation) if part not in (None, types.NoneType))
    if not rest:
        return None
    return typing.Literal[rest] if origin is typing.Literal else typing.Union[rest]  # noqa: UP007
