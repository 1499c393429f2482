"""The compiler: writers and readers as Python functions made for one class.

Encoding and decoding are the hot path of whoever uses this package, and a loop over fields costs several times what
straight-line code does. So each class gets functions of its own, generated from its fields: attribute access, type
test and escape test are written out for the common scalars, and everything else is a call of the field's kind.

Nothing foreign becomes code. What is put into the source are element names, which are XML names and so contain no
quote, brace or backslash (`names.checked`), and attribute names, which are identifiers in normal form
(`fields.fields_of`); every value stands in the function's globals.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lxml.etree import _Element

from .construct import refused
from .errors import DecodeError, XError, unreadable, unwritable
from .source import indented, read_lines, return_line, write_lines

if TYPE_CHECKING:
    from .record import Record

__all__ = ["Compiled", "compiled"]


@dataclass(frozen=True, slots=True)
class Compiled:
    """The functions of one class.

    Args:
        write: instance to the content of its element.
        encode: instance to its element.
        encode_payload: the same with ``xmlns=""`` on the element.
        read: element of any name to instance.
        decode: element named after the class to instance.
    """

    write: Callable[[Any], str]
    encode: Callable[[Any], str]
    encode_payload: Callable[[Any], str]
    read: Callable[[_Element], Any]
    decode: Callable[[_Element], Any]


def compiled(record: Record) -> Compiled:
    """Compile a class; `Unresolved` if its annotations cannot be resolved yet."""
    root = record.root
    writing, reading = write_lines(record), read_lines(record)
    bare = [*writing, return_line(record, "", "")]
    whole = [*writing, return_line(record, f"<{root}>", f"</{root}>")]
    payload = [*writing, return_line(record, f'<{root} xmlns="">', f"</{root}>")]
    named = [f'if element.tag != "{root}":', "    misnamed(element)", *reading]
    source = [
        *_function("write", "value", bare),
        *_function("encode", "value", _guarded(whole, "(AttributeError, RecursionError)", "unwritable")),
        *_function("encode_payload", "value", _guarded(payload, "(AttributeError, RecursionError)", "unwritable")),
        *_function("read", "element", reading),
        *_function("decode", "element", _guarded(named, "RecursionError", "unreadable")),
    ]
    scope = _globals(record)
    exec("\n".join(source), scope)
    return Compiled(**{name: scope[name] for name in Compiled.__slots__})


def _globals(record: Record) -> dict[str, Any]:
    scope: dict[str, Any] = {
        "__name__": f"{__name__} of {record.cls.__qualname__}",
        "CLASS": record.cls,
        "ROOT": record.root,
        "TRUTH": {"true": True, "false": False, "1": True, "0": False},
        "XError": XError,
        "check": record.check,
        "loosely": record.read_loosely,
        "misnamed": _misnamed(record),
        "refused": refused,
        "unreadable": unreadable,
        "unwritable": unwritable,
        "validate": getattr(record.cls, "model_validate", None),
    }
    for number, field in enumerate(record.fields):
        scope[f"kind{number}"] = field.kind
        scope[f"path{number}"] = f".{field.name}"
        scope[f"key{number}"] = field.key
    return scope


def _function(name: str, argument: str, lines: list[str]) -> list[str]:
    return [f"def {name}({argument}):", *indented(lines)]


def _guarded(lines: list[str], foreign: str, translate: str) -> list[str]:
    """Put the class's name before the path of an error, and ``translate`` errors that are not ours."""
    return [
        "try:",
        *indented(lines),
        "except XError as error:",
        "    error.at(ROOT)",
        "    raise",
        f"except {foreign} as error:",
        f"    raise {translate}(error).at(ROOT) from error",
    ]


def _misnamed(record: Record) -> Callable[[_Element], None]:
    def refuse(element: _Element) -> None:
        raise DecodeError(f"found the element <{element.tag}>, expected <{record.root}>")

    return refuse
