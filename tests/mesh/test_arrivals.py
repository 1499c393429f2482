"""What comes is read in whatever pieces it comes, and as the NATS client reads it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from xml_pipeline.mesh.arrivals import Arrivals, Received, read_headers
from xml_pipeline.mesh.commands import NAMES

words = st.text(st.sampled_from("abz09.-_$*\x0b\x0c\x85\xa0\u2028é"), min_size=1, max_size=8)
bodies = st.binary(max_size=40) | st.sampled_from([b"\r\n", b"MSG a 1 0\r\n\r\n", b"PING\r\n", b"+OK\r\n"])
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=10)
header_names = st.sampled_from([*sorted(NAMES), "KV-Operation", "Nats-Sequence", " Spaced ", "In between", "é", ""])
fields = st.lists(st.tuples(header_names, texts), max_size=4)


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    status = draw(st.sampled_from(["", "", " 503", " 100 Idle Heartbeat", " 404 No Messages"]))
    # The client takes headers after a status without a description for the description.
    lines = [f"{name}: {value}" for name, value in draw(fields)] if status != " 503" else []
    return "\r\n".join([f"NATS/1.0{status}", *lines, "", ""]).encode()


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, tuple[object, ...]]:
    """The bytes of a message, and what they say."""
    subject, reply, body = draw(words), draw(st.just("") | words), draw(bodies)
    between = f"{reply} " if reply else ""
    if draw(st.booleans()):
        block = draw(blocks())
        line = f"HMSG {subject} 3 {between}{len(block)} {len(block) + len(body)}\r\n".encode()
        return line + block + body + b"\r\n", (3, subject, reply, body, read_headers(block))
    line = f"MSG {subject} 12 {between}{len(body)}\r\n".encode()
    return line + body + b"\r\n", (12, subject, reply, body, None)


lines = st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Stale Connection'\r\n", b"INFO {}\r\n"])
sent = st.lists(messages() | lines.map(lambda line: (line, line)), max_size=8)


def read(pieces: list[bytes]) -> list[object]:
    found: list[object] = []

    def deliver(number: int, message: Received) -> None:
        found.append((number, message.subject, message.reply, message.data, message.headers))

    arrivals = Arrivals(deliver)
    for piece in pieces:
        while (line := arrivals.feed(piece)) is not None:
            found.append(line)
            piece = b""
    return found


@given(sent, st.lists(st.integers(0, 400), max_size=6))
def test_it_does_not_matter_where_it_is_cut(items, cuts):
    whole = b"".join(raw for raw, _ in items)
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    pieces = [whole[begin:end] for begin, end in itertools.pairwise(places)]
    assert read(pieces) == [said for _, said in items] == read([whole[at : at + 1] for at in range(len(whole))])


def as_the_client_reads(block: bytes) -> dict[str, str] | None:
    with pytest.raises(StopIteration) as stopped:
        Client()._process_headers(block).send(None)
    return stopped.value.value


@given(blocks())
def test_headers_are_read_as_the_client_reads_them(block):
    expected = as_the_client_reads(block)
    # The client lets through control characters within a name, of which nobody can say how they look.
    assert (read_headers(block) or {}) == (expected or {})


@pytest.mark.parametrize(
    "block",
    [
        b"NATS/1.0\r\nX-Mesh-Status: ok\r\nnonsense\r\n\r\n",
        b"NATS/1.0\r\nX-Mesh-Source\r\nX-Mesh-Status: ok\r\n\r\n",
        b"NATS/1.0\r\nX-Mesh-Status:   ok \t\r\n\r\n",
        b"NATS/1.0\r\nX-Mesh-Status:ok\r\n\r\n",
        b"NATS/1.0\r\nX-Mesh-Status: error\r\nX-Mesh-Status: ok\r\n\r\n",
        b"NATS/1.0\r\nX-Mesh-Status: ok",
        b"NATS/1.0\r\nX-Mesh-Status: ok\r\n",
    ],
)
def test_a_status_is_found_among_whatever_there_is(block):
    assert read_headers(block) == {"X-Mesh-Status": "ok"}


def test_bytes_that_are_no_text_are_replaced():
    assert read_headers(b"NATS/1.0\r\nX-Mesh-Source: \xc3\r\n\r\n") == {"X-Mesh-Source": "\ufffd"}
    assert read([b"MSG \xff 1 0\r\n\r\n"]) == [(1, "\ufffd", "", b"", None)]


def test_the_server_says_that_nobody_is_there():
    assert read([b"HMSG _INBOX.a 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"]) == [(1, "_INBOX.a", "", b"", {"Status": "503"})]


@pytest.mark.parametrize(
    "raw",
    [
        b"MSG a 1\r\n\r\n",
        b"MSG a one 0\r\n\r\n",
        b"MSG a 1 b c 0\r\n\r\n",
        b"MSG a 1 many\r\n\r\n",
        b"HMSG a 1 0\r\n\r\n",
        b"HMSG a 1 9 4\r\nNATS\r\n",
        b"HMSG a 1 x 4\r\nNATS\r\n",
        b"HMSG a 1 -1 4\r\nNATS\r\n",
        b"MSG a 1 -5\r\n\r\n\r\n\r\n",
    ],
)
def test_what_is_not_the_protocol_is_an_error(raw):
    with pytest.raises(ValueError, match=r"."):
        read([raw])


def test_a_large_message_is_looked_at_when_it_is_there():
    """Otherwise a message of many pieces would be copied for each of them."""
    came: list[Received] = []
    arrivals = Arrivals(lambda number, message: came.append(message))
    looks = 0
    look_at = arrivals._look_at

    def counted(piece: bytes) -> tuple[bytes | None, int]:
        nonlocal looks
        looks += 1
        return look_at(piece)

    arrivals._look_at = counted  # type: ignore[method-assign]
    body = b"x" * 1_000_000
    raw = b"MSG a 1 1000000\r\n" + body + b"\r\n"
    for begin in range(0, len(raw), 1000):
        assert arrivals.feed(raw[begin : begin + 1000]) is None
    assert [message.data for message in came] == [body]
    assert looks == 2
