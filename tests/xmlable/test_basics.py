from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum, StrEnum
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID

import pytest

from third_party.xmlable import DecodeError, EncodeError, codec_of

from .helpers import accepts, survives


@dataclass
class Text:
    value: str


@dataclass
class Whole:
    value: int


@dataclass
class Real:
    value: float


@dataclass
class Truth:
    value: bool


@dataclass
class Price:
    value: Decimal


@dataclass
class Blob:
    value: bytes


@dataclass
class Identity:
    value: UUID


@dataclass
class Place:
    value: Path


@dataclass
class Places:
    pure: PurePath
    posix: PurePosixPath
    windows: PureWindowsPath


def element(cls: type, text: str) -> str:
    return f"<{cls.__name__}><Value>{text}</Value></{cls.__name__}>"


def read(cls: type, text: str) -> Any:
    """Read, and check that the schema agrees that it can be read."""
    codec = codec_of(cls)
    assert accepts(codec, element(cls, text))
    value: Any = codec.decode_text(element(cls, text))
    return value.value


def refused(cls: type, text: str, message: str) -> None:
    """Check that neither the decoder nor the schema takes the text."""
    codec = codec_of(cls)
    assert not accepts(codec, element(cls, text))
    with pytest.raises(DecodeError, match=re.escape(message)):
        codec.decode_text(element(cls, text))


TEXTS = [
    "",
    " ",
    "007",
    "true",
    "1.50",
    "NaN",
    "-0",
    "  both ends \n",
    "\r",
    "\r\n",
    "\t",
    "<&>]]>",
    "日本",
    "🙂",
    "x" * 500,
]


@pytest.mark.parametrize("text", TEXTS)
def test_strings_come_back_as_they_went_in(text: str) -> None:
    survives(Text(text))


class Named(StrEnum):
    A = "a"


@pytest.mark.parametrize("value", [None, 1, b"x", Named.A, ["x"]])
def test_str_is_exactly_str(value: Any) -> None:
    for write in (codec_of(Text).encode, codec_of(Text).encode_payload, codec_of(Text).to_json):
        with pytest.raises(EncodeError, match=r"^Text.value: found .*, expected text(; convert it with str\(\))?$"):
            write(Text(value))


def test_a_subclass_of_str_is_refused_with_a_way_out() -> None:
    with pytest.raises(EncodeError, match=r"found <Named.A: 'a'> \(Named\), expected text; convert it with str\(\)$"):
        codec_of(Text).encode(Text(Named.A))


@pytest.mark.parametrize("number", [0, 1, -1, 10**17, 10**18 - 1, 10**18, -(10**18), 10**400])
def test_whole_numbers_of_any_size(number: int) -> None:
    survives(Whole(number))


@pytest.mark.parametrize(("text", "number"), [(" 5\n", 5), ("+5", 5), ("-0", 0), ("007", 7), ("0" * 30 + "1", 1)])
def test_whole_numbers_of_every_form(text: str, number: int) -> None:
    assert read(Whole, text) == number


@pytest.mark.parametrize("text", ["", " ", "1.0", "1_000", "٣", "0x1", "x", "1e3", "+", "1 2", "³"])
def test_other_texts_are_no_whole_numbers(text: str) -> None:
    refused(Whole, text, f"Whole.value: found {text!r}, expected a whole number")


class Rank(IntEnum):
    FIRST = 1


@pytest.mark.parametrize("value", [True, 1.0, "1", None, Rank.FIRST])
def test_int_is_exactly_int(value: Any) -> None:
    for write in (codec_of(Whole).encode, codec_of(Whole).to_json):
        with pytest.raises(
            EncodeError, match=r"^Whole.value: found .*, expected a whole number(; convert it with int\(\))?$"
        ):
            write(Whole(value))


def test_numbers_longer_than_python_converts_are_refused() -> None:
    with pytest.raises(EncodeError, match=r"Whole.value: the number has more digits than Python converts"):
        codec_of(Whole).encode(Whole(10**5000))
    with pytest.raises(DecodeError, match=r"Whole.value: found a number of 5000 digits"):
        codec_of(Whole).decode_text(element(Whole, "9" * 5000))


@pytest.mark.parametrize("number", [0.0, -0.0, 1e-7, 1e22, 5e-324, 1.7976931348623157e308, float("inf"), float("-inf")])
def test_floats(number: float) -> None:
    survives(Real(number))


@pytest.mark.parametrize(
    ("text", "number"),
    [(" 1 ", 1.0), ("+.5", 0.5), ("5.", 5.0), ("1E5", 1e5), ("1e400", float("inf")), ("-INF", float("-inf"))],
)
def test_floats_of_every_form(text: str, number: float) -> None:
    assert read(Real, text) == number


@pytest.mark.parametrize("text", ["", "inf", "nan", "infinity", "1_0", "0x1p3", "+INF", "٣", "1,5", "."])
def test_other_texts_are_no_floats(text: str) -> None:
    refused(Real, text, f"Real.value: found {text!r}, expected a number")


def test_libxml2_takes_an_exponent_without_digits_and_we_do_not() -> None:
    assert accepts(codec_of(Real), element(Real, "1e"))
    with pytest.raises(DecodeError):
        codec_of(Real).decode_text(element(Real, "1e"))


def test_a_float_field_takes_whole_numbers_that_it_can_hold() -> None:
    assert codec_of(Real).encode(Real(3)) == element(Real, "3.0")
    assert codec_of(Real).to_json(Real(3)) == {"value": 3.0}
    with pytest.raises(EncodeError, match=r"Real.value: the whole number 9007199254740993 would lose digits"):
        codec_of(Real).encode(Real(2**53 + 1))
    with pytest.raises(EncodeError, match=r"Real.value: the whole number 1000.* is too large for a float"):
        codec_of(Real).encode(Real(10**400))


@pytest.mark.parametrize("value", [True, "1", None, Decimal(1)])
def test_a_float_field_takes_nothing_else(value: Any) -> None:
    for write in (codec_of(Real).encode, codec_of(Real).to_json):
        with pytest.raises(EncodeError, match=r"^Real.value: found .*, expected a number$"):
            write(Real(value))


def test_a_subclass_of_float_is_written_as_float() -> None:
    class Half(float):
        def __repr__(self) -> str:
            return "np.float64(0.5)"

    assert codec_of(Real).encode(Real(Half(0.5))) == element(Real, "0.5")


@pytest.mark.parametrize(
    ("text", "truth"), [("true", True), ("1", True), ("false", False), ("0", False), (" true ", True)]
)
def test_truth(text: str, truth: bool) -> None:
    assert read(Truth, text) is truth
    survives(Truth(truth))


@pytest.mark.parametrize("text", ["", "True", "yes", "on", "2"])
def test_other_texts_are_no_truth(text: str) -> None:
    refused(Truth, text, f"Truth.value: found {text!r}, expected true or false")


@pytest.mark.parametrize("value", [1, 0, "true", None])
def test_bool_is_exactly_bool(value: Any) -> None:
    for write in (codec_of(Truth).encode, codec_of(Truth).to_json):
        with pytest.raises(EncodeError, match=r"^Truth.value: found .*, expected true or false$"):
            write(Truth(value))


@pytest.mark.parametrize(
    "text", ["0", "-0", "1.50", "0.000001", "123456789012345678901234567890.123456789", "1E+5", "1E-9"]
)
def test_decimals_keep_their_digits(text: str) -> None:
    survives(Price(Decimal(text)))


def test_a_decimal_keeps_its_trailing_zeros() -> None:
    assert str(codec_of(Price).decode_text(codec_of(Price).encode(Price(Decimal("1.50")))).value) == "1.50"


@pytest.mark.parametrize("text", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_decimals_are_finite(text: str) -> None:
    with pytest.raises(EncodeError, match=r"Price.value: .* has no xs:decimal form; declare the field as float"):
        codec_of(Price).encode(Price(Decimal(text)))
    refused(Price, text, f"Price.value: found {text!r}, expected a decimal number")


@pytest.mark.parametrize("text", ["1E+10001", "1E-10001", "0E-99999"])
def test_decimals_are_not_blown_up(text: str) -> None:
    with pytest.raises(EncodeError, match="exponent beyond 10000"):
        codec_of(Price).encode(Price(Decimal(text)))


@pytest.mark.parametrize(("text", "number"), [(" +.5 ", "0.5"), ("5.", "5"), ("-1.0", "-1.0")])
def test_decimals_of_every_form(text: str, number: str) -> None:
    assert read(Price, text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "1e5", "1_0", "٣", "."])
def test_other_texts_are_no_decimals(text: str) -> None:
    refused(Price, text, f"Price.value: found {text!r}, expected a decimal number")


@pytest.mark.parametrize("data", [b"", b"\x00\xff", bytes(range(256))])
def test_bytes(data: bytes) -> None:
    survives(Blob(data))


@pytest.mark.parametrize(
    ("text", "data"), [(" AAAA ", b"\0\0\0"), ("AA AA", b"\0\0\0"), ("A A = =", b"\0"), ("AAAA\nAAAA", bytes(6))]
)
def test_base64_may_be_broken_into_lines(text: str, data: bytes) -> None:
    assert read(Blob, text) == data


@pytest.mark.parametrize("text", ["A", "A===", "AAAA====", "=AAA", "AA==AAAA", "é", "AAA!", "AA-_", "AB==", "AAB="])
def test_other_texts_are_no_base64(text: str) -> None:
    refused(Blob, text, f"Blob.value: found {text!r}, expected base64 text")


@pytest.mark.parametrize("value", ["x", bytearray(b"x"), None])
def test_bytes_are_bytes(value: Any) -> None:
    with pytest.raises(EncodeError, match=r"^Blob.value: found .*, expected bytes$"):
        codec_of(Blob).encode(Blob(value))


def test_uuids() -> None:
    survives(Identity(UUID(int=0)))
    assert read(Identity, " 3E1F2D0C-5B1A-4c60-8f0a-6a2f2b7d9c11 ") == UUID("3e1f2d0c5b1a4c608f0a6a2f2b7d9c11")


@pytest.mark.parametrize(
    "text", ["", "3e1f2d0c5b1a4c608f0a6a2f2b7d9c11", "{3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11}", "x"]
)
def test_other_texts_are_no_uuids(text: str) -> None:
    refused(Identity, text, f"Identity.value: found {text!r}, expected a UUID")


@pytest.mark.parametrize("path", [Path(), Path("/a b/c"), Path("ü & <x>"), Path("a\r\n")])
def test_paths(path: Path) -> None:
    survives(Place(path))


def test_pure_paths() -> None:
    survives(Places(PurePath("a"), PurePosixPath("/b"), PureWindowsPath(r"C:\x")))


def test_a_path_with_bytes_that_are_no_text_is_refused() -> None:
    with pytest.raises(EncodeError, match=r"Place.value: character U\+DCFF"):
        codec_of(Place).encode(Place(Path("\udcff")))


@pytest.mark.parametrize(
    ("cls", "data", "message"),
    [
        (Text, 1, "Text.value: found 1 (int), expected text, as a string"),
        (Whole, True, "Whole.value: found True (bool), expected a whole number"),
        (Whole, 1.5, "Whole.value: found 1.5 (float), expected a whole number"),
        (Whole, "1", "Whole.value: found '1', expected a whole number"),
        (Whole, 1e300, "Whole.value: found 1e+300 (float), expected a whole number"),
        (Real, True, "Real.value: found True (bool), expected a number"),
        (Real, "1.5", "Real.value: found '1.5', expected a number"),
        (Real, 10**400, "Real.value: the whole number 1000"),
        (Truth, 1, "Truth.value: found 1 (int), expected true or false"),
        (Price, 1.5, "Price.value: found 1.5 (float), expected a decimal number, as a string"),
        (Price, "x", "Price.value: found 'x', expected a decimal number"),
        (Blob, "A", "Blob.value: found 'A', expected base64 text"),
        (Identity, "x", "Identity.value: found 'x', expected a UUID"),
        (Place, None, "Place.value: found None (NoneType), expected a path, as a string"),
    ],
)
def test_json_types_are_strict(cls: type, data: Any, message: str) -> None:
    with pytest.raises(DecodeError, match=re.escape(message)):
        codec_of(cls).from_json({"value": data})


def test_json_numbers() -> None:
    assert type(codec_of(Real).from_json({"value": 3}).value) is float
    assert type(codec_of(Whole).from_json({"value": 3.0}).value) is int
    assert codec_of(Real).to_json(Real(float("-inf"))) == {"value": "-INF"}
