"""The types of configuration values, shared by the file format and the Python models.

Numbers and booleans are strict: ``true`` is no number, ``"5"`` neither. The one text they take is a value that was
wholly ``${...}`` in the file, read as YAML would read it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, PlainValidator, SecretStr
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from xml_pipeline.config.interpolation import Interpolated, reread
from xml_pipeline.config.names import name_fault, text_fault
from xml_pipeline.config.paths import import_path_fault, module_path_fault
from xml_pipeline.config.problems import quoted
from xml_pipeline.config.rate import Rate

__all__ = [
    "Address",
    "Broadcast",
    "ClassPaths",
    "Count",
    "CountOrNone",
    "CountOrZero",
    "Digest",
    "Flag",
    "ImportPath",
    "ModulePath",
    "Name",
    "NotYet",
    "Peers",
    "Port",
    "RateLimit",
    "Retention",
    "Seconds",
    "SecondsOrNone",
    "Secret",
    "Temperature",
    "Text",
    "VariableName",
    "Whole",
    "WrittenText",
]

_REFERENCE_SCHEMA: Final = {"type": "string", "pattern": r"^\$\{[A-Za-z_][^{}]*\}$"}
_MOST: Final = 1_000_000_000
_DIGEST_LENGTH: Final = 64
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_VARIABLE_SCHEMA: Final = r"^(([A-Za-z_][A-Za-z0-9_]*)?|.*\$\{[A-Za-z_][^{}]*\}.*)$"
_HOTTEST: Final = 2


class _FromVariable:
    """Marks a type whose value may be ``${...}`` in the file, so that editors accept it."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [handler(core), _REFERENCE_SCHEMA]}


class _Json:
    """Marks a type with the JSON Schema that describes it in the file."""

    def __init__(self, schema: JsonSchemaValue) -> None:
        self._schema = schema

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return dict(self._schema)


def _fault_free(fault: str | None) -> None:
    if fault is not None:
        raise ValueError(fault)


def _name(value: str) -> str:
    _fault_free(name_fault(value))
    return str(value)


def _text(value: str) -> str:
    _fault_free(text_fault(value))
    return str(value)


def _written_text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return _text(value)


def _import_path(value: str) -> str:
    _fault_free(import_path_fault(value))
    return str(value)


def _module_path(value: str) -> str:
    _fault_free(module_path_fault(value))
    return str(value)


def _port(value: int) -> int:
    if not 1 <= value <= 65535:
        raise ValueError(f"Invalid port {value}: ports are 1 to 65535")
    return value


def _broadcast(value: Any) -> bool | str:
    value = reread(value)
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ValueError("must be true, false or the name of a group")
    return _name(value)


def _class_paths(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_import_path(value),)
    if not isinstance(value, list | tuple) or not all(isinstance(path, str) for path in value):
        raise ValueError("must be an import path, or a list of import paths")
    if not value:
        raise ValueError("must name at least one class")
    paths = tuple(_import_path(path) for path in value)
    if len(set(paths)) < len(paths):
        raise ValueError(f"lists {quoted(next(path for path in paths if paths.count(path) > 1))} twice")
    return paths


def _rate(value: Any) -> Rate | None:
    value = reread(value)
    return None if value is None else Rate.parse(value)


def _not_yet(value: bool) -> bool:
    if value:
        raise ValueError("not supported in this version")
    return value


def _digest(value: str) -> str:
    if value and (len(value) != _DIGEST_LENGTH or not set(value.lower()) <= set("0123456789abcdef")):
        raise ValueError(f"must be {_DIGEST_LENGTH} hexadecimal digits, the SHA-256 of the handler's source file")
    return value.lower()


def _secret(value: Any) -> Any:
    """Like pydantic's own check, but nothing of the value gets into a problem."""
    if value is None or isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError("must be text")
    if not value and not isinstance(value, Interpolated):  # a variable may be empty where it is not needed
        raise ValueError("must not be empty")
    if not value.isprintable() or value != value.strip():
        raise ValueError("must be one line without white space around it")
    return SecretStr(str(value))


def _variable_name(value: str) -> str:
    # Not quoted: what is written here by mistake is the key itself.
    if value and _VARIABLE.fullmatch(value) is None:
        raise ValueError(
            "must be the name of an environment variable (letters, digits, underscores), not the key itself"
        )
    return str(value)


def _address(value: str) -> str:
    """Not quoted either: an address may hold a password."""
    if not value:
        return ""
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        sound = False
    if not sound or not value.isprintable() or " " in value:
        raise ValueError("must be the address of a server, http://host:port/path or https://...")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password; put the key into api_key_env")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or fragment: the path of a request is put after it")
    return str(value)


Flag = Annotated[bool, BeforeValidator(reread), _FromVariable()]
"""A boolean."""
NotYet = Annotated[bool, BeforeValidator(reread), AfterValidator(_not_yet), _Json({"const": False})]
"""A boolean that can only be false: what it would turn on comes later."""
_Natural = Annotated[int, Field(ge=1, le=_MOST)]
Count = Annotated[_Natural, BeforeValidator(reread), _FromVariable()]
"""A positive number of things."""
CountOrNone = Annotated[_Natural | None, BeforeValidator(reread), _FromVariable()]
"""A positive number of things, or ``None`` for any number."""
_Number = Annotated[int, Field(ge=0, le=_MOST)]
CountOrZero = Annotated[_Number, BeforeValidator(reread), _FromVariable()]
"""A number of things; zero for none."""
Whole = Annotated[Annotated[int, Field(ge=-_MOST, le=_MOST)], BeforeValidator(reread), _FromVariable()]
"""A whole number."""
_Positive = Annotated[float, Field(gt=0, le=_MOST, allow_inf_nan=False)]
Seconds = Annotated[_Positive, BeforeValidator(reread), _FromVariable()]
"""A length of time that is not zero."""
SecondsOrNone = Annotated[_Positive | None, BeforeValidator(reread), _FromVariable()]
"""A length of time that is not zero, or ``None`` for no end."""
_NotNegative = Annotated[float, Field(ge=0, le=_MOST, allow_inf_nan=False)]
Retention = Annotated[_NotNegative, BeforeValidator(reread), _FromVariable()]
"""A length of time; zero for not at all."""
Temperature = Annotated[
    Annotated[float, Field(ge=0, le=_HOTTEST, allow_inf_nan=False)] | None, BeforeValidator(reread), _FromVariable()
]
"""How freely a model chooses its words, 0 to 2; ``None`` for the provider's default."""
Port = Annotated[
    int,
    BeforeValidator(reread),
    Field(json_schema_extra={"minimum": 1, "maximum": 65535}),
    AfterValidator(_port),
    _FromVariable(),
]
"""A TCP port."""
Name = Annotated[str, AfterValidator(_name), Field(min_length=1)]
"""The name of a listener or group."""
Peers = Annotated[list[Name] | None, BeforeValidator(lambda value: [] if value is None else value)]
"""Names. A blank value is an empty list, so that forgetting to fill it in allows nobody."""
Text = Annotated[str, AfterValidator(_text)]
"""Text that can be written into XML."""
WrittenText = Annotated[str, AfterValidator(_written_text), Field(min_length=1)]
"""Text that can be written into XML and says something."""
ImportPath = Annotated[str, AfterValidator(_import_path), Field(min_length=1)]
"""``package.module.attr`` or ``package.module:attr``."""
ModulePath = Annotated[str, AfterValidator(_module_path), Field(min_length=1)]
"""A package or module, dotted."""
Digest = Annotated[str, AfterValidator(_digest), _Json({"type": "string", "pattern": "^([0-9a-fA-F]{64})?$"})]
"""A SHA-256 in hexadecimal, or empty."""
Broadcast = Annotated[
    bool | str,
    PlainValidator(_broadcast),
    _Json({"anyOf": [{"type": "boolean"}, {"type": "string", "minLength": 1}]}),
]
"""``True``, ``False`` or the name of a broadcast group."""
ClassPaths = Annotated[
    tuple[str, ...],
    PlainValidator(_class_paths),
    _Json(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "array",
                    "items": {"type": "string", "minLength": 1},
                    "minItems": 1,
                    "uniqueItems": True,
                },
            ]
        }
    ),
]
"""One import path or a list of them; always a tuple once it is read."""
RateLimit = Annotated[
    Rate | None,
    BeforeValidator(_rate),
    _Json(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0},
                {"type": "string", "pattern": r"^(\s*[0-9]+(\.[0-9]+)?\s*/\s*[a-z]+\s*|\$\{[A-Za-z_][^{}]*\})$"},
                {"type": "null"},
            ]
        }
    ),
]
"""A `Rate`, a number per second, text like ``"10/s"``, or ``None`` for no limit."""
Secret = Annotated[
    SecretStr | None,
    BeforeValidator(_secret),
    _Json({"anyOf": [{"type": "string", "minLength": 1}, {"type": "null"}]}),
]
"""Text that is never shown, or ``None``."""
VariableName = Annotated[str, AfterValidator(_variable_name), _Json({"type": "string", "pattern": _VARIABLE_SCHEMA})]
"""The name of an environment variable, or empty."""
Address = Annotated[str, AfterValidator(_address)]
"""Where a server is, http or https, without user, query and fragment; or empty."""
