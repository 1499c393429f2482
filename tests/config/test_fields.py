from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from xml_pipeline.config import Rate, fields
from xml_pipeline.config.interpolation import interpolate


def variable(text: str) -> Any:
    return interpolate("${A}", {"A": text})[0]


def read(kind: Any, value: Any) -> Any:
    return TypeAdapter(kind).validate_python(value, strict=True)


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        (fields.Flag, True, True),
        (fields.Flag, variable("false"), False),
        (fields.Count, 1, 1),
        (fields.Count, variable("012"), 12),
        (fields.CountOrNone, None, None),
        (fields.CountOrNone, variable("~"), None),
        (fields.Seconds, 1, 1.0),
        (fields.Seconds, variable("1e-3"), 0.001),
        (fields.SecondsOrNone, None, None),
        (fields.SecondsOrNone, variable(""), None),
        (fields.Retention, 0, 0.0),
        (fields.Port, 65535, 65535),
        (fields.Port, variable("80"), 80),
        (fields.Name, variable("80"), "80"),
        (fields.Text, "", ""),
        (fields.ImportPath, "a:b", "a:b"),
        (fields.ModulePath, "a.b", "a.b"),
        (fields.Digest, "AB" * 32, "ab" * 32),
        (fields.Digest, "", ""),
        (fields.Broadcast, variable("true"), True),
        (fields.Broadcast, "group", "group"),
        (fields.ClassPaths, "a.B", ("a.B",)),
        (fields.ClassPaths, ["a.B", "a.C"], ("a.B", "a.C")),
        (fields.Peers, None, []),
        (fields.Peers, ["a"], ["a"]),
        (fields.RateLimit, None, None),
        (fields.RateLimit, variable("null"), None),
        (fields.RateLimit, variable("5/s"), Rate(5.0)),
        (fields.RateLimit, variable("0.5"), Rate(0.5)),
    ],
)
def test_good_values_are_read(kind: Any, value: Any, result: Any) -> None:
    found = read(kind, value)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (fields.Flag, 1),
        (fields.Flag, "true"),
        (fields.Flag, variable("yes")),
        (fields.Count, True),
        (fields.Count, "1"),
        (fields.Count, variable("1.0")),
        (fields.Count, variable("")),
        (fields.CountOrNone, 0),
        (fields.Seconds, None),
        (fields.Seconds, True),
        (fields.SecondsOrNone, 0),
        (fields.Retention, -0.1),
        (fields.Port, 0),
        (fields.WrittenText, " "),
        (fields.WrittenText, ""),
        (fields.ImportPath, ""),
        (fields.ModulePath, "a:b"),
        (fields.Digest, "g" * 64),
        (fields.Broadcast, None),
        (fields.Broadcast, " "),
        (fields.ClassPaths, []),
        (fields.ClassPaths, None),
        (fields.ClassPaths, ["a..b"]),
        (fields.Peers, "a"),
        (fields.Peers, [None]),
    ],
)
def test_bad_values_are_refused(kind: Any, value: Any) -> None:
    with pytest.raises(ValidationError):
        read(kind, value)
