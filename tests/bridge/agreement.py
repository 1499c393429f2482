"""Payload classes made at random, with JSON for them, right and wrong, and the XML that says the same as the JSON.

What a value is in XML is written down here a second time, without the codec, so that the two can be compared.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from pathlib import PurePosixPath
from random import Random
from typing import Any, Literal
from uuid import UUID
from xml.sax.saxutils import escape

import pydantic

from third_party.xmlable.names import pascal

__all__ = ["Made", "NotCarried", "made_class"]


class NotCarried(Exception):
    """A JSON value that XML has no text for, or only one that is another value, too."""


@dataclasses.dataclass
class Made:
    """What can stand somewhere: a type, and its values.

    Args:
        annotation: in Python.
        name: of its element as an item.
        right: makes JSON that is one.
        near: makes JSON that may be one.
        xml: gives the XML inside of its element for any JSON; raises `NotCarried`.
        is_text: it is the text of its element.
    """

    annotation: Any
    name: str
    right: Callable[[Random], Any]
    near: Callable[[Random], Any]
    xml: Callable[[Any], str]
    json_types: frozenset[str]
    is_hashable: bool = True


# -- JSON of any kind -------------------------------------------------------------------------------------------------

_TEXTS = ["", "a", " a ", "1", "true", "ä☃", "a&b<c>", "]]>", "\r\n\t", "2025-01-31", "null", "x" * 50]
_NUMBERS = [0, -0.0, 1, -1, 1.0, 2.5, 1e-7, 10**20, 2**53, 1e-308, -3]  # not 1e300: see the decoder


def kind_of(data: Any) -> str:
    """The JSON type."""
    names = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
    return names.get(type(data), "object")


def anything(rng: Random, depth: int = 0) -> Any:
    """Any JSON."""
    which = rng.randrange(8 if depth < 2 else 5)
    if which < 5:
        return [None, rng.random() < 0.5, rng.choice(_NUMBERS), rng.choice(_TEXTS), rng.choice(_TEXTS)][which]
    if which == 5:
        return {rng.choice(["zz", "key", "value", "Str"]): anything(rng, depth + 1) for _ in range(rng.randrange(3))}
    return [anything(rng, depth + 1) for _ in range(rng.randrange(3))]


def number_text(data: float) -> str:
    """A JSON number; 3.0 and 3 are the same."""
    return str(int(data)) if isinstance(data, float) and data.is_integer() and abs(data) <= 2**53 else repr(data)


def written(data: Any) -> str:
    """Any JSON as XML, where nothing says how."""
    if isinstance(data, dict):
        return "".join(f"<zz>{written(value)}</zz>" for value in data.values())
    if isinstance(data, list):
        return "".join(f"<zz>{written(value)}</zz>" for value in data)
    if isinstance(data, str):
        return escape(data).replace("\r", "&#13;")
    if isinstance(data, bool) or data is None:
        return json.dumps(data)
    return number_text(data)


def foreign(data: Any, looks: str = "") -> str:
    """JSON of another type than it must be. In XML nothing but its text says which type it is.

    Args:
        data: the JSON.
        looks: a pattern of texts that are right.
    """
    if data is None or data in ([], {}):
        raise NotCarried
    text = written(data)
    if not isinstance(data, list | dict) and re.fullmatch(looks, text.replace("&#13;", "\r"), re.DOTALL):
        raise NotCarried
    return text


# -- values that are a text -------------------------------------------------------------------------------------------

_SPACED = r"[ \t\n\r]*(?:{})[ \t\n\r]*"


def leaf(
    annotation: Any,
    name: str,
    right: Callable[[Random], Any],
    near: list[Any],
    looks: str,
    kind: str = "string",
) -> Made:
    """A value that is the text of its element."""

    def xml(data: Any) -> str:
        if kind_of(data) != kind:
            return foreign(data, looks)
        if isinstance(data, str) and looks != ".*" and re.search(r"[ \t\n\r]", data):
            raise NotCarried  # white space that is not part of the value in XML
        return written(data)

    def somewhat(rng: Random) -> Any:
        return rng.choice(near) if near and rng.random() < 0.8 else garbled(rng, right(rng))

    return Made(annotation, name, right, somewhat, xml, frozenset({kind}))


def garbled(rng: Random, data: Any) -> Any:
    """Text with one character more, less, or another one; any other JSON as it is."""
    if not isinstance(data, str):
        return data
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(["", *"0123456789+-.:TZPDHMS=Aa/ \n"]) + data[at + rng.randrange(2) :]


def text(rng: Random) -> str:
    return rng.choice([*_TEXTS, "".join(rng.choice("abc é\n<&>\"'{}") for _ in range(rng.randrange(12)))])


def whole(rng: Random) -> Any:
    number = rng.choice([0, 1, -1, 7, 2**53, 10**20, -(10**19), rng.randrange(-1000, 1000)])
    return float(number) if abs(number) <= 2**53 and rng.random() < 0.2 else number


def real(rng: Random) -> Any:
    return rng.choice([0.0, -0.0, 1, 2.5, 1e-7, 1e300, 5e-324, rng.uniform(-1e6, 1e6), rng.gauss(0, 1e-10)])


def truth(rng: Random) -> bool:
    return rng.random() < 0.5


def moment(rng: Random) -> datetime:
    zone = rng.choice([None, UTC, timezone(timedelta(minutes=rng.randrange(-840, 841)))])
    return datetime(rng.randrange(1, 9999), rng.randrange(1, 13), rng.randrange(1, 29), tzinfo=zone) + timedelta(
        seconds=rng.randrange(86400), microseconds=rng.choice([0, rng.randrange(10**6)])
    )


def iso(value: datetime | time) -> str:
    return value.isoformat().replace("+00:00", "Z")


def duration(rng: Random) -> str:
    parts = [f"{rng.randrange(100)}{unit}" for unit in "HM" if rng.random() < 0.5]
    parts += rng.choice([[], [f"{rng.randrange(100)}S"], [f"{rng.randrange(100)}.{rng.randrange(1000)}S"]])
    days = f"{rng.randrange(1000)}D" if rng.random() < 0.5 or not parts else ""
    return rng.choice(["", "-"]) + "P" + days + ("T" + "".join(parts) if parts else "")


def encoded(rng: Random) -> str:
    return base64.b64encode(rng.randbytes(rng.randrange(8))).decode()


_DATES = [
    *("2024-02-29", "2023-02-29", "2000-02-29", "1900-02-29", "2023-04-31", "2023-13-01", "2023-00-10", "0000-01-01"),
    *("2023-01-00", "2023-1-1", "20230101", "12023-01-01", "-2023-01-01", "2023-01-01Z", "2023-01-01+01:00", "2023-01"),
    *(" 2023-01-01 ", "2023-01-01T00:00:00", "００２３-01-01", "0001-01-01", "9999-12-31", "2023-12-32", "", "x"),
]
_TIMES = [
    *("24:00:00", "24:00:00.0", "24:00:01", "24:00:00.1", "23:59:60", "12:60:00", "12:00", "1:00:00", "12:00:00Z"),
    *("12:00:00+14:00", "12:00:00-14:00", "12:00:00+14:01", "12:00:00+1400", "12:00:00+13:60", "12:00:00z", ""),
    *("12:00:00.1234567", "12:00:00.", "12:00:00,5", " 12:00:00 ", "12:00:00 Z", "25:00:00", "12:00:00+15:00"),
]
_DURATIONS = [
    *("P", "PT", "P1DT", "PT.5S", "PT5.S", "PT.S", "P1Y", "P1M", "PT1M", "P1DT1M", "P1Y2D", "P1M1D", "P1W", "-P1D"),
    *("+P1D", "P-1D", "PT1H1H", "PT1M1H", "PT1S1M", "P1D1D", "P1.5D", "PT1.5H", "pt1s", " PT1S ", "P1DT2H3M4.5S", ""),
    *("PT0S", "P0D", "1D", "PD", "PTS", "PT1", "P1", "PT1.000S", "P1TD", "P1DT0S", "P1H", "PT1D", "P1S"),
]
_DECIMALS = [
    *("1", "1.", ".5", ".", "", "+1", "-1", "--1", "1e5", "INF", "NaN", "1,5", " 1.50 ", "\n1", "1 2", "0x1", "٣"),
    *("00.00", "-.5", "+.", "1_000", "1" * 30, "-0"),
]
_BASE64 = [
    *(
        "",
        "YQ==",
        "YWI=",
        "YWJj",
        "YQ=",
        "YQ",
        "YQ===",
        "=",
        "====",
        "YR==",
        "YWJ=",
        "Y Q = =",
        "YWJj====",
        "YWJj=",
        "A",
    ),
    *("YQ==YQ==", "YW-_", "YWJj\nYWJj", " YWJj ", "Y=Q=", "YWé=", "//++", "YWIx=", "Zg==\r\n"),
]
_UUIDS = [
    *(
        "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11",
        "3E1F2D0C-5B1A-4C60-8F0A-6A2F2B7D9C11",
        "3e1f2d0c5b1a4c608f0a6a2f2b7d9c11",
    ),
    *("{3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11}", " 3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11\n", "3e1f2d0c-5b1a", "", "x"),
    *("urn:uuid:3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11", "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c1g"),
]


class Color(enum.Enum):
    RED = "red"
    DARK = "dark red"


class Level(enum.IntEnum):
    LOW = -1
    HIGH = 10


class Shape(enum.Enum):
    SQUARE = (1, 2)
    ROUND = None


def choice(annotation: Any, name: str, forms: list[Any]) -> Made:
    """One of a few values, which in XML are told by their texts."""
    texts = {" ".join(written(form).split()) for form in forms}
    kinds = frozenset(kind_of(form) for form in forms)

    def xml(data: Any) -> str:
        text = foreign(data)
        is_one = any(type(form) is type(data) and form == data for form in forms)
        is_whole = kind_of(data) == "number" and any(kind_of(form) == "number" and form == data for form in forms)
        if not is_one and not is_whole and not isinstance(data, list | dict) and " ".join(text.split()) in texts:
            raise NotCarried  # another type, or white space that XML does not keep here
        if not isinstance(data, str) and "number" in kinds and re.fullmatch(r"[+-]?0*[0-9]+", text) and not is_whole:
            return "zz"
        return text

    def near(rng: Random) -> Any:
        form = rng.choice(forms)
        same = [float(form)] if kind_of(form) == "number" else []
        return rng.choice(
            [form, *same, str(form), f" {form}", "RED", "Red", 1, True, 1.0, 0, False, -1.0, garbled(rng, form)]
        )

    return Made(annotation, name, lambda rng: rng.choice(forms), near, xml, kinds)


def leaves() -> list[Made]:
    """All types whose values are a text."""

    digits = _SPACED.format(r"[+-]?[0-9]+")
    decimals = _SPACED.format(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
    doubles = _SPACED.format(r"-?INF|NaN|[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]*)?")
    return [
        leaf(str, "Str", text, [*_TEXTS], ".*"),
        leaf(PurePosixPath, "PurePosixPath", text, [*_TEXTS], ".*"),
        leaf(int, "Int", whole, [1.5, -0.5, 1e-9, 0.1, -0.0, 3.0, "1", "x", True], digits, "number"),
        leaf(float, "Float", real, ["x", "1", True, 10**20, "1.5"], doubles, "number"),
        leaf(
            bool, "Bool", lambda rng: rng.random() < 0.5, [0, 1, "true", "no", 1.0, "TRUE"], "true|false|0|1", "boolean"
        ),
        leaf(Decimal, "Decimal", lambda rng: str(Decimal(rng.randrange(10**9)).scaleb(-3)), _DECIMALS, decimals),
        leaf(bytes, "Bytes", encoded, _BASE64, "[A-Za-z0-9]*"),
        leaf(UUID, "UUID", lambda rng: str(UUID(int=rng.getrandbits(128))), _UUIDS, ""),
        leaf(date, "Date", lambda rng: moment(rng).date().isoformat(), _DATES, ""),
        leaf(time, "Time", lambda rng: iso(moment(rng).timetz()), _TIMES, ""),
        leaf(
            datetime,
            "Datetime",
            lambda rng: iso(moment(rng)),
            [
                *(f"{each}T12:00:00" for each in _DATES),
                *(f"2023-05-31T{each}" for each in _TIMES),
                "2023-05-31 12:00:00",
            ],
            "",
        ),
        leaf(timedelta, "Timedelta", duration, _DURATIONS, ""),
        choice(Color, "Color", ["red", "dark red"]),
        choice(Level, "Level", [-1, 10]),
        choice(Shape, "Shape", ["SQUARE", "ROUND"]),
        choice(Literal["a", 2, False], "Literal", ["a", 2, False]),
        choice(Literal["x y"], "Literal", ["x y"]),
    ]


# -- values that hold others ------------------------------------------------------------------------------------------


def mixed(made: Made) -> Callable[[Random], Any]:
    """JSON for a place, more often right than not."""

    def make(rng: Random) -> Any:
        which = rng.random()
        return made.right(rng) if which < 0.75 else made.near(rng) if which < 0.95 else anything(rng)

    return make


def series(python: Any, item: Made) -> Made:
    """A list, or a tuple of any length."""
    inside = mixed(item)

    def xml(data: Any) -> str:
        if not isinstance(data, list):
            return foreign(data, "[ \t\n\r]*")
        return "".join(f"<{item.name}>{item.xml(each)}</{item.name}>" for each in data)

    def some(make: Callable[[Random], Any], rng: Random) -> list[Any]:
        return [make(rng) for _ in range(rng.randrange(4))]

    annotation = list[item.annotation] if python is list else tuple[item.annotation, ...]
    return Made(
        annotation,
        python.__name__.capitalize(),
        partial(some, item.right),
        partial(some, inside),
        xml,
        frozenset({"array"}),
        python is tuple and item.is_hashable,
    )


def members(python: Any, item: Made) -> Made:
    """A set. That none is in it twice only the decoder knows."""
    listed = series(list, item)

    def once(make: Callable[[Random], Any], rng: Random) -> list[Any]:
        return _without_doubles(make(rng))

    return Made(
        python[item.annotation],
        python.__name__.capitalize(),
        partial(once, listed.right),
        partial(once, listed.near),
        listed.xml,
        frozenset({"array"}),
        python is frozenset,
    )


def row(items: list[Made]) -> Made:
    """A tuple of fixed length."""
    insides = [mixed(item) for item in items]

    def xml(data: Any) -> str:
        if not isinstance(data, list):
            return foreign(data, "[ \t\n\r]*" if not items else "")
        written_out = []
        for index, each in enumerate(data):
            inside = items[index].xml(each) if index < len(items) else written(each)
            written_out.append(f"<Item-{index + 1}>{inside}</Item-{index + 1}>")
        return "".join(written_out)

    def near(rng: Random) -> list[Any]:
        found = [make(rng) for make in insides]
        return found[: rng.choice([len(found), len(found), len(found) - 1])] + [1] * (rng.random() < 0.2)

    return Made(
        tuple[tuple(item.annotation for item in items)],  # type: ignore[misc]
        "Tuple",
        lambda rng: [item.right(rng) for item in items],
        near,
        xml,
        frozenset({"array"}),
        all(item.is_hashable for item in items),
    )


def mapping(key: Made, value: Made) -> Made:
    """A dict. That no key is in it twice only the decoder knows, where they are no keys of a JSON object."""
    is_object = key.json_types == {"string"}
    keys, values = mixed(key), mixed(value)

    def xml(data: Any) -> str:
        if not isinstance(data, dict if is_object else list):
            return foreign(data, "[ \t\n\r]*")
        pairs = data.items() if isinstance(data, dict) else [_pair(each) for each in data]
        return "".join(f"<Item><Key>{key.xml(one)}</Key><Val>{value.xml(other)}</Val></Item>" for one, other in pairs)

    def some(make_key: Callable[[Random], Any], make: Callable[[Random], Any], rng: Random) -> Any:
        pairs = [(make_key(rng), make(rng)) for _ in range(rng.randrange(4))]
        if is_object:
            return {one: other for one, other in pairs if isinstance(one, str)}
        once = _without_doubles([one for one, _ in pairs])
        return [{"key": one, "value": other} for one, (_, other) in zip(once, pairs, strict=False)]

    return Made(
        dict[key.annotation, value.annotation],  # type: ignore[name-defined]
        "Dict",
        partial(some, key.right, value.right),
        partial(some, keys, values),
        xml,
        frozenset({"object" if is_object else "array"}),
        False,
    )


def _without_doubles(found: list[Any]) -> list[Any]:
    return [each for index, each in enumerate(found) if each not in found[:index]]


def _pair(data: Any) -> tuple[Any, Any]:
    if not isinstance(data, dict) or data.keys() != {"key", "value"}:
        raise NotCarried
    return data["key"], data["value"]


def union(items: list[Made]) -> Made:
    """One of several; in JSON told apart by the type there, or by an object that names it."""
    types = [each for item in items for each in (item.json_types | ({"string"} if item.name == "Float" else set()))]
    is_tagged = len(set(types)) < len(types)
    by_name = {item.name: item for item in items}

    def xml(data: Any) -> str:
        if is_tagged:
            if not isinstance(data, dict):
                return foreign(data, "[ \t\n\r]*")
            return "".join(
                f"<{name}>{by_name[name].xml(each) if name in by_name else written(each)}</{name}>"
                for name, each in data.items()
            )
        for item in items:
            if kind_of(data) in item.json_types:
                return f"<{item.name}>{item.xml(data)}</{item.name}>"
        return "<zz></zz>"

    def of(make: Callable[[Made], Callable[[Random], Any]], rng: Random) -> Any:
        item = rng.choice(items)
        data = make(item)(rng)
        return {item.name: data} if is_tagged else data

    annotation = items[0].annotation
    for item in items[1:]:
        annotation = annotation | item.annotation
    return Made(
        annotation,
        "Union",
        partial(of, lambda item: item.right),
        partial(of, mixed),
        xml,
        frozenset({"object"}) if is_tagged else frozenset(types),
        all(item.is_hashable for item in items),
    )


def _nothing(data: Any) -> str:
    return "" if data is None else foreign(data, "[ \t\n\r]*")


NOTHING = Made(type(None), "NoneType", lambda rng: None, lambda rng: None, _nothing, frozenset({"null"}))


# -- classes ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Field:
    made: Made
    need: str
    """``needed``, ``default`` or ``absent``."""

    def right(self, rng: Random) -> Any:
        return None if self.need == "absent" and rng.random() < 0.3 else self.made.right(rng)


def record(name: str, fields: dict[str, _Field], is_model: bool) -> Made:
    """A class with fields."""
    cls = _model(name, fields) if is_model else _dataclass(name, fields)

    def right(rng: Random) -> Any:
        return {key: field.right(rng) for key, field in fields.items() if field.need == "needed" or rng.random() < 0.6}

    def near(rng: Random) -> Any:
        found = right(rng)
        for key in rng.sample(sorted(fields), min(len(fields), rng.choice([1, 1, 2]))):
            if rng.random() < 0.15:
                found.pop(key, None)
            else:
                found[key] = mixed(fields[key].made)(rng) if rng.random() < 0.5 else fields[key].made.near(rng)
        if rng.random() < 0.08:
            found["zz_unknown"] = anything(rng)
        return found

    def xml(data: Any) -> str:
        if not isinstance(data, dict):
            return foreign(data, "[ \t\n\r]*" if all(field.need != "needed" for field in fields.values()) else "")
        parts = [_element(key, field, data[key]) for key, field in fields.items() if key in data]
        parts += [f"<ZzUnknown>{written(each)}</ZzUnknown>" for key, each in data.items() if key not in fields]
        return "".join(parts)

    return Made(cls, pascal(name), right, near, xml, frozenset({"object"}), False)


def _element(key: str, field: _Field, data: Any) -> str:
    if data is None and field.need == "absent":
        return ""
    return f"<{pascal(key)}>{field.made.xml(data)}</{pascal(key)}>"


def _dataclass(name: str, fields: dict[str, _Field]) -> type:
    said: list[Any] = []
    for key, field in fields.items():
        made = field.made.annotation
        if field.need == "needed":
            said.append((key, made))
        elif field.need == "absent":
            said.append((key, made | None, dataclasses.field(default=None)))
        else:
            said.append((key, made, dataclasses.field(default_factory=_default)))
    return dataclasses.make_dataclass(name, said, kw_only=True)


def _model(name: str, fields: dict[str, _Field]) -> type:
    said: dict[str, Any] = {}
    for key, field in fields.items():
        made = field.made.annotation
        if field.need == "needed":
            said[key] = (made, ...)
        elif field.need == "absent":
            said[key] = (made | None, None)
        else:
            said[key] = (made, pydantic.Field(default_factory=_default))
    model: type = pydantic.create_model(name, **said)
    return model


def _default() -> str:
    """Of whatever type: it is not looked at."""
    return "default"


_NAMES = ["text", "user_id", "count", "camelCase", "größe", "x_", "URL", "items", "value_of", "kind"]


class _Maker:
    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._classes = 0
        self._leaves = leaves()
        self._plain = [made for made in self._leaves if made.name in ("Str", "Int", "Bool", "Color", "Level", "Shape")]

    def made(self, depth: int) -> Made:
        rng = self._rng
        which = rng.randrange(14) if depth < 3 else 0
        if which < 6:
            return rng.choice(self._leaves)
        if which < 9:
            return series(rng.choice([list, tuple]), self.made(depth + 1))
        if which == 9:
            return members(rng.choice([set, frozenset]), rng.choice(self._plain))
        if which == 10:
            return row([self.made(depth + 1) for _ in range(rng.randrange(1, 4))])
        if which == 11:
            return mapping(rng.choice(self._plain), self.made(depth + 1))
        if which == 12:
            return self._union(depth)
        return self.record(depth + 1)

    def _union(self, depth: int) -> Made:
        rng = self._rng
        found: dict[str, Made] = {}
        for made in [*rng.sample(self._leaves, 2), self.made(depth + 1), NOTHING][: rng.randrange(2, 5)]:
            if made.name not in ("Union", *found):
                found[made.name] = made
        return union(list(found.values())) if len(found) > 1 else rng.choice(self._leaves)

    def record(self, depth: int) -> Made:
        rng = self._rng
        self._classes += 1
        fields = {
            key: self._field(depth)
            for key in rng.sample(_NAMES, rng.randrange(1 if depth else 2, 6 if depth == 0 else 4))
        }
        return record(f"Made{self._classes}", fields, rng.random() < 0.4)

    def _field(self, depth: int) -> _Field:
        made = self.made(depth + 1)
        need = self._rng.choice(["needed", "needed", "default", "absent"])
        if need == "absent" and (made.name == "Union" or made is NOTHING):
            need = "needed"
        return _Field(made, need)


def made_class(rng: Random) -> Made:
    """A payload class."""
    return _Maker(rng).record(0)
