"""What is sent are the bytes that the NATS client would send, or it is left to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.commands import NAMES, publish_command, subscribe_command, unsubscribe_command

names = st.sampled_from(sorted(NAMES))
values = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=20)


def by_the_client(subject: str, body: bytes, reply: str, headers: dict[str, str] | None) -> bytes:
    client = Client()
    with pytest.raises(StopIteration):
        client._send_publish(subject, reply, body, len(body), headers).send(None)
    (command,) = client._pending
    return command


@given(st.dictionaries(names, values), st.binary(max_size=50), st.sampled_from(["", "_INBOX.a.1"]))
def test_a_message_is_written_as_the_client_writes_it(headers, body, reply):
    assert publish_command("a.b", body, reply, headers) == by_the_client("a.b", body, reply, headers or None)


def test_a_message_without_headers_is_a_plain_one():
    assert publish_command("a.b", b"x", "", None) == b"PUB a.b  1\r\nx\r\n" == by_the_client("a.b", b"x", "", None)


@pytest.mark.parametrize(
    ("subject", "reply", "headers"),
    [
        ("a", "", {"X-Mine": "1"}),
        ("a", "", {h.STATUS: "ok\r\nX-Mesh-Source: me"}),
        ("a", "", {h.STATUS: "ok\nX-Mesh-Source: me"}),
        ("a", "", {h.STATUS: "ok\rme"}),
        ("", "", None),
        ("", "", {h.STATUS: "ok"}),
        ("a b", "", None),
        ("a b", "", {h.STATUS: "ok"}),
        ("a", "b c", None),
        ("a", "b\tc", {h.STATUS: "ok"}),
        ("a\r\nPUB b 0", "", None),
        ("a", "b\n", {h.STATUS: "ok"}),
    ],
)
def test_what_has_to_be_checked_is_left_to_the_client(subject, reply, headers):
    assert publish_command(subject, b"", reply, headers) is None


def test_every_header_of_the_mesh_is_usual_and_nothing_else_is():
    assert {h.REQUEST_ID, h.STATUS, h.STREAM_SEQ, h.DEADLINE, h.ACCEPT, h.CREDIT, h.TRACEPARENT} <= NAMES
    assert not NAMES & {h.OK, h.ERROR, h.TRUE, h.SERVER_STATUS, h.NO_RESPONDERS}


def test_interest_begins_and_ends():
    assert subscribe_command("a.*", "q.a", 7) == b"SUB a.* q.a 7\r\n"
    assert subscribe_command("a.*", "", 7) == b"SUB a.*  7\r\n"
    assert unsubscribe_command(7) == b"UNSUB 7 \r\n"
