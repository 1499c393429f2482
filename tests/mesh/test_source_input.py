"""What a handler is given by its sources."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from pydantic import Field

from tests.mesh.reacting import Doc, message
from xml_pipeline.mesh import (
    InvalidInput,
    KVEntry,
    MeshMessage,
)
from xml_pipeline.mesh.shapes import read_handler
from xml_pipeline.mesh.source_input import SourceInput


def inputs(kind: Any) -> SourceInput:
    async def handle(value) -> None: ...

    handle.__annotations__["value"] = kind
    return SourceInput(read_handler(handle))


@pytest.mark.parametrize(
    ("kind", "body", "value"),
    [
        (bytes, b"\xff\x00", b"\xff\x00"),
        (bytes, b"", b""),
        (str, b"plain", "plain"),
        (str, b'"quoted"', '"quoted"'),
        (Doc, b'{"id": 5}', Doc(id=5)),
        (Any, b"[1]", [1]),
        (Doc | None, b"null", None),
        (Doc | None, b"", None),
    ],
)
def test_a_value(kind, body, value):
    given = inputs(kind)
    assert given.of_entry(KVEntry("k", body, 1)) == (value,)
    assert given.of_message(message(body)) == (value,)
    assert given.of_entry(KVEntry("k", b"", 2, "DEL")) is None


@pytest.mark.parametrize(
    ("content", "body", "value", "nothing"),
    [
        (bytes, b"\xff", b"\xff", b""),
        (str, b"text", "text", ""),
        (Doc, b'{"id": 5}', Doc(id=5), None),
        (Doc | None, b"null", None, None),
    ],
)
def test_an_envelope(content, body, value, nothing):
    entries, messages = inputs(KVEntry[content]), inputs(MeshMessage[content])
    assert entries.of_entry(KVEntry("k", body, 1)) == (KVEntry("k", value, 1, "PUT"),)
    for operation in ("DEL", "PURGE"):
        assert entries.of_entry(KVEntry("k", b"", 2, operation)) == (KVEntry("k", nothing, 2, operation),)
    for data, payload in ((body, value), (b"", nothing)):
        assert messages.of_message(message(data, "s.1", {"H": "x"})) == (MeshMessage("s.1", {"H": "x"}, payload),)
    assert messages.of_message(message(body))[0].headers == {}


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Doc, b"{"),
        (Doc, b""),
        (Doc, b'{"id": "x"}'),
        (str, b"\xff"),
        (Annotated[str, Field(max_length=3)], b"four"),
        (KVEntry[Doc], b"null"),
        (KVEntry[str], b"\xff"),
    ],
)
def test_what_is_not_what_the_handler_takes_is_invalid(kind, body):
    with pytest.raises(InvalidInput) as raised:
        inputs(kind).of_entry(KVEntry("k", body, 1))
    json.dumps(raised.value.to_dict())


async def takes_nothing() -> None: ...


def test_a_handler_without_parameter_is_called_without_for_everything():
    given = SourceInput(read_handler(takes_nothing))
    assert given.of_entry(KVEntry("k", b"", 1, "DEL")) == ()
    assert given.of_message(message(b"x")) == ()
