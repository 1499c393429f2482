"""Source text of compiled functions: the statements that write and read the fields of one class.

Every statement below is about one field, number ``n``: ``vn`` is its value or text, ``en`` its element, ``kindn`` its
kind, ``keyn`` its constructor argument and ``pathn`` its step in an error's path. See `compile` for what may be put
into the source and why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .basics import BOOL, INT, STR
from .fields import Field, init_only_fields
from .scalar import Scalar

if TYPE_CHECKING:
    from .record import Record

__all__ = ["indented", "read_lines", "return_line", "write_lines"]

_LONG: Final = 200
"""Characters from which on `text.escape` is quicker than `str.isprintable` (measured: 2 ns a character)."""

_FAST_DIGITS: Final = 18
"""Whole numbers of so many digits are formatted and read without a look at Python's limit of 4,300."""


def indented(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]


def _attempt(number: int, line: str) -> list[str]:
    """Run ``line``; an error passes on with the field's name."""
    return [
        "try:",
        f"    {line}",
        "except XError as error:",
        f"    error.at(path{number})",
        "    raise",
    ]


def write_lines(record: Record) -> list[str]:
    test = "type(value) is not CLASS"
    if record.is_model and getattr(record.cls, "model_config", {}).get("extra") == "allow":
        test += " or value.__pydantic_extra__"
    lines = [f"if {test}:", "    check(value)"]
    for number, field in enumerate(record.fields):
        lines += _write_field(number, field)
    return lines


def _write_field(number: int, field: Field) -> list[str]:
    lines = _write_value(number, field)
    if field.absent_is_none:
        element = field.element
        lines = [
            f"if v{number} is None:",
            f'    v{number} = ""',
            "else:",
            *indented([*lines, f'v{number} = f"<{element}>{{v{number}}}</{element}>"']),
        ]
    return [f"v{number} = value.{field.name}", *lines]


def _write_value(number: int, field: Field) -> list[str]:
    v = f"v{number}"
    general = _attempt(number, f"{v} = kind{number}.write({v})")
    if field.kind is STR:
        # Printable text contains nothing that XML cannot carry, and no carriage return.
        test = (
            f"type({v}) is not str or len({v}) > {_LONG} or not {v}.isprintable()"
            f' or "&" in {v} or "<" in {v} or ">" in {v}'
        )
        return [f"if {test}:", *indented(general)]
    if field.kind is INT:
        limit = 10**_FAST_DIGITS
        return [f"if type({v}) is not int or not -{limit} < {v} < {limit}:", *indented(general)]
    if field.kind is BOOL:
        return [
            f"if {v} is True:",
            f'    {v} = "true"',
            f"elif {v} is False:",
            f'    {v} = "false"',
            "else:",
            *indented(general),
        ]
    return general


def return_line(record: Record, opening: str, closing: str) -> str:
    content = "".join(
        f"{{v{number}}}" if field.absent_is_none else f"<{field.element}>{{v{number}}}</{field.element}>"
        for number, field in enumerate(record.fields)
    )
    return f"return f'{opening}{content}{closing}'"


def read_lines(record: Record) -> list[str]:
    """Expect all fields in their order and nothing else, comments included; read loosely where that is not so."""
    fields = record.fields
    if not fields:
        return ["return loosely(element)"]
    targets = "".join(f"e{number}, " for number in range(len(fields)))
    surprises = [f'e{number}.tag != "{field.element}"' for number, field in enumerate(fields)]
    surprises += [f"len(e{number})" for number, field in enumerate(fields) if isinstance(field.kind, Scalar)]
    lines = [
        "try:",
        f"    {targets}= element[:]",
        "except ValueError:",
        "    return loosely(element)",
        f"if {' or '.join(surprises)}:",
        "    return loosely(element)",
    ]
    for number, field in enumerate(fields):
        lines += _read_value(number, field)
    return [
        *lines,
        "try:",
        f"    return {_construct(record)}",
        "except Exception as error:",
        "    raise refused(error) from error",
    ]


def _read_value(number: int, field: Field) -> list[str]:
    v, kind = f"v{number}", f"kind{number}"
    text = f"e{number}.text"
    if field.kind is STR:
        return [f'{v} = {text} or ""']
    if field.kind is INT:
        return [
            f'{v} = {text} or ""',
            f"if len({v}) <= {_FAST_DIGITS} and {v}.isascii() and {v}.isdecimal():",
            f"    {v} = int({v})",
            "else:",
            *indented(_attempt(number, f"{v} = {kind}.value({v})")),
        ]
    if field.kind is BOOL:
        return [
            f"{v} = TRUTH.get({text})",
            f"if {v} is None:",
            *indented(_attempt(number, f'{v} = {kind}.value({text} or "")')),
        ]
    if isinstance(field.kind, Scalar):
        return _attempt(number, f'{v} = {kind}.value({text} or "")')
    return _attempt(number, f"{v} = {kind}.read(e{number})")


def _construct(record: Record) -> str:
    fields = record.fields
    if record.is_model:
        return f"validate({{{', '.join(f'key{number}: v{number}' for number in range(len(fields)))}}})"
    if any(field.key != field.name for field in fields):
        return f"CLASS(**{{{', '.join(f'key{number}: v{number}' for number in range(len(fields)))}}})"
    # By position only where positions are the fields: not with an own __init__, nor with an InitVar among them.
    in_order = record.cls.__dataclass_params__.init and not init_only_fields(record.cls)  # type: ignore[attr-defined]
    arguments = [
        f"v{number}" if in_order and not field.keyword_only else f"{field.name}=v{number}"
        for number, field in enumerate(fields)
    ]
    return f"CLASS({', '.join(sorted(arguments, key=lambda argument: '=' in argument))})"
