"""Text, numbers, truth, bytes, identifiers and paths: the scalars that are not moments in time.

The lexical forms are those of W3C XML Schema Part 2; where Python's own constructors read more (``1_000``, ``inf``,
Arabic digits), the text is checked before they see it.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Final
from uuid import UUID

from .errors import DecodeError, EncodeError, mismatch, show
from .scalar import Scalar
from .text import WHITE

__all__ = ["BASICS", "BOOL", "FLOAT", "INT", "STR", "integer_of"]

_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_DOUBLE = re.compile(_DECIMAL.pattern + r"(?:[eE][+-]?[0-9]+)?")
_NOT_FINITE: Final = {"INF": float("inf"), "-INF": float("-inf"), "NaN": float("nan")}
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}
_UUID = re.compile("-".join(f"[0-9a-fA-F]{{{digits}}}" for digits in (8, 4, 4, 4, 12)))
_BASE64: Final = (
    r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?"  # XML Schema part 2, 3.2.16
)
_MAX_EXPONENT: Final = 10_000  # a Decimal of ten characters, such as 1E+999999, must not become a megabyte of zeros


def integer_of(text: str) -> int:
    """Read an ``xs:integer``; `DecodeError` for any other text."""
    digits = text.strip(WHITE)
    if _INTEGER.fullmatch(digits):
        try:
            return int(digits)
        except ValueError:  # Python reads and writes 4,300 digits at most (sys.set_int_max_str_digits)
            raise DecodeError(f"found a number of {len(digits)} digits, more than Python converts") from None
    raise mismatch(DecodeError, text, "a whole number")


def _integer_text(value: int) -> str:
    try:
        return str(value)
    except ValueError:
        raise EncodeError("the number has more digits than Python converts") from None


def _integer_of_json(data: Any) -> int:
    if type(data) is int:
        return data
    # JSON has one kind of number: 3.0 is an integer to JSON Schema, and to peers that know only doubles.
    if type(data) is float and data.is_integer() and abs(data) <= 2**53:
        return int(data)
    raise mismatch(DecodeError, data, "a whole number")


def _float_text(value: float) -> str:
    number = _exact_float(value)
    if number != number:
        return "NaN"
    if number in (_NOT_FINITE["INF"], _NOT_FINITE["-INF"]):
        return "INF" if number > 0 else "-INF"
    return repr(number)


def _exact_float(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise EncodeError(f"the whole number {show(value)} is too large for a float") from None
    if isinstance(value, int) and number != value:
        raise EncodeError(f"the whole number {value} would lose digits as a float; declare the field as int")
    return number


def _float_of(text: str) -> float:
    number = text.strip(WHITE)
    if _DOUBLE.fullmatch(number):
        return float(number)
    if number in _NOT_FINITE:
        return _NOT_FINITE[number]
    raise mismatch(DecodeError, text, "a number")


def _float_json(value: float) -> float | str:
    number = _exact_float(value)
    return number if number - number == 0 else _float_text(number)  # RFC 8259 has no NaN and no infinity


def _float_of_json(data: Any) -> float:
    if type(data) is float:
        return data
    if type(data) is int:
        try:
            return float(data)
        except OverflowError:
            raise DecodeError(f"the whole number {show(data)} is too large for a float") from None
    if isinstance(data, str) and data in _NOT_FINITE:
        return _NOT_FINITE[data]
    raise mismatch(DecodeError, data, "a number")


def _truth_of(text: str) -> bool:
    try:
        return _TRUTH[text.strip(WHITE)]
    except KeyError:
        raise mismatch(DecodeError, text, "true or false") from None


def _json_exactly(python: type, expected: str) -> Callable[[Any], Any]:
    def value(data: Any) -> Any:
        if type(data) is python:
            return data
        raise mismatch(DecodeError, data, expected)

    return value


def _decimal_text(value: Decimal) -> str:
    if not value.is_finite():
        raise EncodeError(f"{value} has no xs:decimal form; declare the field as float if it may be infinite or NaN")
    if abs(value.adjusted()) > _MAX_EXPONENT or abs(int(value.as_tuple().exponent)) > _MAX_EXPONENT:
        raise EncodeError(f"an exponent beyond {_MAX_EXPONENT} would be written out in zeros")
    return format(value, "f")


def _decimal_of(text: str) -> Decimal:
    number = text.strip(WHITE)
    if _DECIMAL.fullmatch(number):
        return Decimal(number)
    raise mismatch(DecodeError, text, "a decimal number")


def _uuid_of(text: str) -> UUID:
    digits = text.strip(WHITE)
    if _UUID.fullmatch(digits):
        return UUID(digits)
    raise mismatch(DecodeError, text, "a UUID (8-4-4-4-12 hexadecimal digits)")


def _base64_text(value: bytes) -> str:
    return binascii.b2a_base64(value, newline=False).decode("ascii")


def _bytes_of(text: str) -> bytes:
    digits = text.translate(_WITHOUT_WHITE)
    try:
        value = binascii.a2b_base64(digits, strict_mode=True)
        # Python's strict mode lets ``===`` pass after complete groups, and bits behind the last byte, which must be 0
        # (RFC 4648, 3.5; XML Schema part 2, 3.2.16).
        if digits.endswith("=") and _base64_text(value) != digits:
            raise ValueError
        return value
    except ValueError:  # binascii.Error is one
        raise mismatch(DecodeError, text, "base64 text") from None


_WITHOUT_WHITE: Final = str.maketrans("", "", WHITE)


def _path(python: type[PurePath]) -> Scalar:
    return Scalar(
        python.__name__,
        python,
        expected="a path",
        xsd="xs:string",
        text=str,
        value=python,
        free=True,
        example="folder/file.txt",
    )


STR: Final = Scalar(
    "Str", str, expected="text", xsd="xs:string", text=str, value=str, free=True, exact=True, example="text"
)
INT: Final = Scalar(
    "Int",
    int,
    expected="a whole number",
    xsd="xs:integer",
    text=_integer_text,
    value=integer_of,
    exact=True,
    json=int,
    json_value=_integer_of_json,
    json_schema={"type": "integer"},
    example="1",
)
FLOAT: Final = Scalar(
    "Float",
    float,
    expected="a number",
    xsd="xs:double",
    text=_float_text,
    value=_float_of,
    also=(int,),
    unless=(bool,),
    json=_float_json,
    json_value=_float_of_json,
    json_schema={"type": "number"},
    example="1.5",
)
BOOL: Final = Scalar(
    "Bool",
    bool,
    expected="true or false",
    xsd="xs:boolean",
    text=lambda value: "true" if value else "false",
    value=_truth_of,
    json=bool,
    json_value=_json_exactly(bool, "true or false"),
    json_schema={"type": "boolean"},
    example="true",
)
DECIMAL: Final = Scalar(
    "Decimal",
    Decimal,
    expected="a decimal number",
    xsd="xs:decimal",
    text=_decimal_text,
    value=_decimal_of,
    json_pattern=_DECIMAL.pattern,
    example="1.50",
)
BYTES: Final = Scalar(
    "Bytes",
    bytes,
    expected="bytes",
    xsd="xs:base64Binary",
    pattern=r"[A-Za-z0-9+/=\s]*",  # libxml2 passes over other characters
    text=_base64_text,
    value=_bytes_of,
    json_schema={"contentEncoding": "base64"},
    json_pattern=_BASE64,
    example="Ynl0ZXM=",
)
IDENTIFIER: Final = Scalar(
    "UUID",
    UUID,
    expected="a UUID",
    xsd="xs:token",
    pattern=_UUID.pattern,
    text=str,
    value=_uuid_of,
    json_schema={"format": "uuid"},
    json_pattern=_UUID.pattern,
    example="3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11",
)

BASICS: Final[dict[type, Scalar]] = {
    **{scalar.python: scalar for scalar in (STR, INT, FLOAT, BOOL, DECIMAL, BYTES, IDENTIFIER)},
    **{python: _path(python) for python in (Path, PurePath, PurePosixPath, PureWindowsPath)},
}
"""The scalar of each Python type."""
