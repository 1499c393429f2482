from __future__ import annotations

import enum
import functools
import json
import socket
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from tests.mesh.kit import Ask, Chunk, Told
from xml_pipeline.mesh import InvalidInput
from xml_pipeline.mesh.shapes import Shape, read_handler


async def responder(ask: Ask) -> Told:
    """Answers.

    At length.
    """
    return Told(reply=ask.message)


async def silent_responder(ask: Ask) -> None: ...


async def streamer(ask: Ask) -> AsyncIterator[Chunk]:
    yield Chunk(delta=ask.message)


async def streamer_in_the_older_way(ask: Ask) -> Chunk:  # type: ignore[misc]
    yield Chunk(delta=ask.message)


async def trigger() -> Told:
    return Told(reply="x")


async def publisher() -> AsyncGenerator[Chunk, None]:
    yield Chunk(delta="x")


async def untyped_publisher():
    yield 1


async def background(): ...


async def silent_background() -> None: ...


class Object:
    async def method(self, ask: Ask) -> Told:
        return Told(reply=ask.message)

    async def __call__(self, ask: Ask, more: int = 0) -> AsyncIterator[Chunk]:
        yield Chunk(delta=ask.message)


async def with_more(prefix: str, ask: Ask) -> Told:
    return Told(reply=prefix + ask.message)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (responder, Shape.RESPONDER),
        (silent_responder, Shape.RESPONDER),
        (streamer, Shape.STREAMER),
        (streamer_in_the_older_way, Shape.STREAMER),
        (trigger, Shape.TRIGGER),
        (publisher, Shape.PUBLISHER),
        (untyped_publisher, Shape.PUBLISHER),
        (background, Shape.BACKGROUND),
        (silent_background, Shape.BACKGROUND),
        (Object().method, Shape.RESPONDER),
        (Object(), Shape.STREAMER),
        (functools.partial(with_more, "a"), Shape.RESPONDER),
    ],
)
def test_the_shape_follows_from_the_signature(function, shape):
    assert read_handler(function).shape is shape


def test_the_flags_of_the_shapes():
    assert [(shape.invocable, shape.streaming) for shape in Shape] == [
        (True, False),
        (True, True),
        (True, False),
        (False, True),
        (False, False),
    ]


@pytest.mark.parametrize("function", [streamer, streamer_in_the_older_way, publisher, Object()])
def test_what_a_generator_yields_is_its_output(function):
    output = read_handler(function).output
    assert output is not None
    assert output.json_schema()["title"] == "Chunk"


@pytest.mark.parametrize("kind", [AsyncIterator, AsyncGenerator, AsyncIterable])
def test_a_bare_generator_annotation_says_nothing(kind):
    async def function(x: int):
        yield x

    function.__annotations__["return"] = kind
    assert read_handler(function).output is None


def test_the_docstring():
    assert read_handler(responder).doc == "Answers.\n\nAt length."
    assert read_handler(trigger).doc == ""


class Color(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("hint", "body", "value"),
    [
        (int, b"3", 3),
        (str, b'"x"', "x"),
        (list[int], b"[1, 2]", [1, 2]),
        (dict[str, float], b'{"a": 1}', {"a": 1.0}),
        (int | None, b"null", None),
        (int | str, b'"x"', "x"),
        (Literal["a"], b'"a"', "a"),
        (Color, b'"red"', Color.RED),
        (datetime, b'"2026-01-02T03:04:05Z"', datetime.fromisoformat("2026-01-02T03:04:05+00:00")),
        (uuid.UUID, b'"00000000-0000-4000-8000-000000000000"', uuid.UUID("00000000-0000-4000-8000-000000000000")),
        (bytes, b'"x"', b"x"),
        (Any, b'{"a": [1]}', {"a": [1]}),
        (Annotated[int, Field(ge=1)], b"2", 2),
        (Ask, b'{"message": "m", "n": 2}', Ask(message="m", n=2)),
    ],
)
def test_every_type_that_pydantic_handles(hint, body, value):
    async def function(x): ...

    function.__annotations__["x"] = hint
    assert read_handler(function).arguments(body) == (value,)


def test_a_parameter_without_annotation_takes_any_json():
    async def function(x): ...

    handler = read_handler(function)
    assert handler.shape is Shape.RESPONDER
    assert handler.arguments(b'{"a": 1}') == ({"a": 1},)


# -- what cannot be a handler


def not_async(x: int) -> int:
    return x


async def two(a: int, b: int) -> int:
    return a + b


async def unresolved(x: Nowhere) -> int:  # type: ignore[name-defined]  # noqa: F821
    return 1


async def no_schema(sock: socket.socket) -> int:
    return 1


async def returns_no_schema(x: int) -> socket.socket:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (not_async, "not_async must be `async def`"),
        (two, "two has the parameter 'b' without a default"),
        (unresolved, "an annotation of unresolved cannot be resolved.*Nowhere"),
        (no_schema, "parameter 'sock' of no_schema is of type socket, for which there is no JSON Schema"),
        (returns_no_schema, "the return value of returns_no_schema is of type socket"),
        (3, "must be `async def`"),
    ],
)
def test_what_cannot_be_a_handler_says_why(function, says):
    with pytest.raises(TypeError, match=says):
        read_handler(function)


# -- bodies


async def optional(x: int | None) -> int:
    return 0


async def defaulted(x: int = 5) -> int:
    return x


async def no_input() -> int:
    return 1


@pytest.mark.parametrize(
    ("function", "body", "arguments"),
    [
        (optional, b"", (None,)),
        (optional, b"null", (None,)),
        (optional, b"3", (3,)),
        (defaulted, b"", ()),
        (defaulted, b"7", (7,)),
        (no_input, b"whatever", ()),
        (no_input, b"", ()),
    ],
)
def test_what_a_handler_is_called_with(function, body, arguments):
    assert read_handler(function).arguments(body) == arguments


def test_a_missing_payload_is_invalid_input():
    with pytest.raises(InvalidInput, match="needs a payload"):
        read_handler(responder).arguments(b"")


class Strict(BaseModel):
    value: int

    @field_validator("value")
    @classmethod
    def _check(cls, value: int) -> int:
        if value < 0:
            raise ValueError("no negative ones")
        return value


async def strict(x: Strict) -> None: ...


@pytest.mark.parametrize(
    "body", [b"{nope", b"\xff\xfe", b"[]", b'{"value": -1}', b'{"value": "\xff"}', b"[" * 10_000, b'{"value": 1e999}']
)
def test_a_bad_body_is_invalid_input_that_can_be_sent(body):
    with pytest.raises(InvalidInput) as caught:
        read_handler(strict).arguments(body)
    assert json.loads(caught.value.to_json())["details"]["errors"]


def test_the_errors_are_those_of_the_protocol():
    with pytest.raises(InvalidInput) as caught:
        read_handler(responder).arguments(b'{"message": 5, "n": 0}')
    first, second = caught.value.details["errors"]
    assert first == {
        "type": "string_type",
        "loc": ["message"],
        "msg": "Input should be a valid string",
        "input": 5,
    }
    assert (second["type"], second["loc"], second["input"], second["ctx"]) == (
        "greater_than_equal",
        ["n"],
        0,
        {"ge": 1},
    )
    assert "message: Input should be a valid string" in str(caught.value)


def test_a_million_errors_are_not_all_told():
    async def many(x: list[int]) -> None: ...

    with pytest.raises(InvalidInput) as caught:
        read_handler(many).arguments(b"[" + b'"x",' * 200_000 + b"1]")
    assert len(caught.value.to_json()) < 10_000


# -- answers


@pytest.mark.parametrize(
    ("function", "result", "body"),
    [
        (responder, Told(reply="x"), {"reply": "x"}),
        (responder, {"reply": "x"}, {"reply": "x"}),
        (responder, None, {}),
        (silent_responder, None, {}),
        (no_input, 3, 3),
        (untyped_publisher, Told(reply="x"), {"reply": "x"}),
        (untyped_publisher, [1, {"a": None}], [1, {"a": None}]),
        (untyped_publisher, float("nan"), None),
    ],
)
def test_what_an_answer_is_sent_as(function, result, body):
    assert json.loads(read_handler(function).body_of(result)) == body


@pytest.mark.parametrize(
    ("function", "result"),
    [(responder, "x"), (responder, {"other": 1}), (no_input, "x"), (untyped_publisher, object())],
)
def test_what_was_not_declared_is_not_sent(function, result):
    with pytest.raises(TypeError, match="not what it declared"):
        read_handler(function).body_of(result)
