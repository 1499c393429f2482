from __future__ import annotations

import copy
import json
import pickle

import openagentmesh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.mesh import errors
from xml_pipeline.mesh.errors import MeshError, error_from_code, for_peers

CODED = [
    getattr(errors, name)
    for name in errors.__all__
    if isinstance(getattr(errors, name), type) and getattr(errors, name) is not MeshError
]
SHARING = (errors.ConnectionLost, errors.ServerMissing, errors.Unconfirmed)
"""Those that come back as the class whose code they share."""


@pytest.mark.parametrize("cls", CODED)
def test_all_are_made_alike_and_say_something(cls):
    assert str(cls()) == cls().message != ""
    error = cls(message="what", agent="a.b", request_id="ab12", details={"x": 1})
    assert (error.message, error.agent, error.request_id, error.details["x"]) == ("what", "a.b", "ab12", 1)
    assert error.code == cls.default_code


@pytest.mark.parametrize("cls", [cls for cls in CODED if cls not in SHARING])
def test_each_comes_back_as_its_class(cls):
    read = MeshError.from_wire(cls(message="what", details={"key": "k"}).to_json())
    assert type(read) is cls
    assert (read.message, read.details) == ("what", {"key": "k"})


def test_a_code_of_an_agents_own_survives():
    read = MeshError.from_wire(MeshError("out_of_stock", "none left", "shop", "r", {"sku": 7}).to_json())
    assert type(read) is MeshError
    assert (read.code, read.message, read.agent, read.request_id, read.details) == (
        "out_of_stock",
        "none left",
        "shop",
        "r",
        {"sku": 7},
    )


def test_what_the_caller_knows_wins_where_it_should():
    body = json.dumps({"code": "x", "agent": "theirs", "request_id": "theirs"}).encode()
    read = MeshError.from_wire(body, agent="mine", request_id="mine")
    assert (read.agent, read.request_id) == ("theirs", "mine")
    assert MeshError.from_wire(b"{}", agent="mine", code="handler_error").agent == "mine"
    assert type(MeshError.from_wire(b"{}", code="handler_error")) is errors.HandlerError
    assert MeshError.from_wire(b"{}").code == "unknown"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_an_error(body):
    assert str(MeshError.from_wire(body))


def test_a_body_nested_without_end_is_an_error_too():
    assert MeshError.from_wire(b"[" * 200_000).code == "unknown"


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError


@given(
    st.dictionaries(
        st.text() | st.integers(),
        st.floats() | st.binary() | st.text() | st.builds(ValueError) | st.builds(Hostile) | st.sets(st.integers()),
    )
)
def test_whatever_the_details_hold_the_error_can_be_sent(details):
    sent = json.loads(MeshError("x", details=details).to_json())
    assert sent["code"] == "x"


def test_details_within_themselves_can_be_sent():
    details: dict[str, object] = {}
    details["self"] = details
    assert json.loads(MeshError("x", details=details).to_json())["code"] == "x"


def test_peers_are_never_sent_what_they_cannot_read():
    sent = for_peers(errors.KVKeyExists(key="k"), agent="a", request_id="r")
    assert (sent.code, sent.agent, sent.request_id) == ("handler_error", "a", "r")
    assert for_peers(MeshError("mine", agent="inner"), agent="outer", request_id="r").agent == "inner"


def test_a_timeout_is_a_timeout_error():
    with pytest.raises(TimeoutError, match=r"mesh\.x within 2 s"):
        raise errors.MeshTimeout(subject="mesh.x", timeout=2.0)


def test_a_key_is_named():
    assert errors.KVKeyExists(key="a.b").key == "a.b"
    assert "a.b" in str(errors.KVKeyExists(key="a.b"))
    assert error_from_code("kv_key_exists", "x", details={"key": "c"}).key == "c"  # type: ignore[attr-defined]


def test_the_older_way_to_make_one():
    error = MeshError("code", "message", "agent", "request", {"a": 1})
    assert error.to_dict() == {
        "code": "code",
        "message": "message",
        "agent": "agent",
        "request_id": "request",
        "details": {"a": 1},
    }


@pytest.mark.parametrize("cls", [MeshError, *CODED])
@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_they_can_be_copied(cls, copied):
    error = cls(message="what", details={"a": 1})
    again = copied(error)
    assert type(again) is cls
    assert (again.message, again.code, again.details) == ("what", error.code, {"a": 1})


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("InvocationMismatch", ("an.agent", "a sentence", "id"), ("agent", "message", "request_id")),
        ("MeshTimeout", ("a.subject", 3.0), ("subject", "timeout")),
        (
            "ChunkSequenceError",
            ("an.agent", "id", {"expected_seq": 2, "got_seq": 4}),
            ("agent", "request_id", "details"),
        ),
        ("MeshError", ("a_code", "a sentence", "an.agent", "id", {"a": 1}), ("code", "message", "agent", "details")),
    ],
)
def test_a_program_for_the_sdk_makes_them_as_it_did(name, arguments, told):
    ours, theirs = getattr(errors, name)(*arguments), getattr(openagentmesh, name)(*arguments)
    assert [getattr(ours, key) for key in told] == [getattr(theirs, key) for key in told]
    assert ours.code == theirs.code


def test_a_chunk_that_is_missing_is_named():
    assert "2" in str(errors.ChunkSequenceError(details={"expected_seq": 2, "got_seq": 4}))
