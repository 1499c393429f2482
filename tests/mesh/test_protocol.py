"""Reading and writing messages: the bytes of peers, and whatever else may come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.protocol import Frame, FrameKind, Reply, ReplyKind, Request, read_count

TEXT = st.text(max_size=60)
NAMES = st.sampled_from([value for name, value in vars(h).items() if name.isupper() and isinstance(value, str)])
HEADERS = st.none() | st.dictionaries(NAMES | TEXT, TEXT | st.sampled_from(["true", "false", "ok", "error", "-1", "٣"]))
ID = st.from_regex("[0-9a-f]{32}", fullmatch=True)


# -- the bytes of the protocol


def test_a_plain_call():
    assert Request("bb13", instance_id="efec").to_headers() == {
        "X-Mesh-Request-Id": "bb13",
        "X-Mesh-Instance-Id": "efec",
    }


def test_a_request_for_a_stream():
    assert Request("a3bf", streaming=True).to_headers() == {"X-Mesh-Request-Id": "a3bf", "X-Mesh-Stream": "true"}


def test_an_answer():
    assert Reply(ReplyKind.ANSWER, "bb13", "demo.echo", "7e01").to_headers() == {
        "X-Mesh-Status": "ok",
        "X-Mesh-Source": "demo.echo",
        "X-Mesh-Request-Id": "bb13",
        "X-Mesh-Instance-Id": "7e01",
    }


def test_an_error_names_no_source():
    assert Reply(ReplyKind.ERROR, "81f1", "demo.echo", "7e01").to_headers() == {
        "X-Mesh-Status": "error",
        "X-Mesh-Request-Id": "81f1",
        "X-Mesh-Instance-Id": "7e01",
    }


def test_the_frames_of_a_stream():
    assert Frame(FrameKind.CHUNK, 0, "a3bf").to_headers() == {
        "X-Mesh-Stream-Seq": "0",
        "X-Mesh-Stream-End": "false",
        "X-Mesh-Request-Id": "a3bf",
    }
    assert Frame(FrameKind.END, 2, "a3bf").to_headers() == {
        "X-Mesh-Stream-Seq": "2",
        "X-Mesh-Stream-End": "true",
        "X-Mesh-Request-Id": "a3bf",
    }
    assert Frame(FrameKind.ERROR, 1, "4d46", "7e01").to_headers() == {
        "X-Mesh-Stream-End": "true",
        "X-Mesh-Status": "error",
        "X-Mesh-Request-Id": "4d46",
        "X-Mesh-Instance-Id": "7e01",
    }


def test_events_have_no_request():
    assert Frame(FrameKind.CHUNK, 0, instance_id="7e01").to_headers() == {
        "X-Mesh-Stream-Seq": "0",
        "X-Mesh-Stream-End": "false",
        "X-Mesh-Instance-Id": "7e01",
    }


# -- reading what was written


@given(
    ID,
    st.booleans(),
    ID | st.just(""),
    st.none() | st.floats(0.001, 86_400),
    st.none() | st.integers(1, 10**6),
    st.just("") | ID.map("_INBOX.{}".format),
)
def test_a_request_is_read_as_it_was_written(request_id, streaming, instance_id, deadline, credit, accept):
    request = Request(request_id, streaming, "", instance_id, deadline, accept, credit)
    read = Request.read(request.to_headers())
    assert (read.request_id, read.streaming, read.instance_id) == (request_id, streaming, instance_id)
    assert (read.credit, read.accept) == (credit, accept)
    assert (read.deadline is None) == (deadline is None)
    assert deadline is None or read.deadline == pytest.approx(deadline, abs=0.001)


@given(st.sampled_from([ReplyKind.ANSWER, ReplyKind.ERROR]), ID, ID | st.just(""), st.binary())
def test_a_reply_is_read_as_it_was_written(kind, request_id, instance_id, body):
    read = Reply.read(Reply(kind, request_id, "a.b", instance_id).to_headers(), body)
    assert (read.kind, read.request_id, read.instance_id) == (kind, request_id, instance_id)
    assert read.source == ("a.b" if kind is ReplyKind.ANSWER else "")


@given(st.integers(0, 10**9), ID, st.binary(min_size=1))
def test_a_chunk_is_read_as_it_was_written(seq, request_id, body):
    read = Frame.read(Frame(FrameKind.CHUNK, seq, request_id).to_headers(), body)
    assert (read.kind, read.seq, read.request_id) == (FrameKind.CHUNK, seq, request_id)


# -- reading whatever comes


@given(HEADERS, st.binary(max_size=20))
def test_nothing_that_comes_raises(headers, body):
    request = Request.read(headers)
    assert request.deadline is None or 0 <= request.deadline <= 86_400
    assert len(request.request_id) <= 256
    assert Reply.read(headers, body).kind in ReplyKind
    assert Frame.read(headers, body).kind in FrameKind


@pytest.mark.parametrize("text", [None, "", "-1", "1.5", "٣", "²", "1e3", " 1", "9" * 16, "0x1", "1_000"])
def test_what_is_no_number(text):
    assert read_count(text) == -1


@pytest.mark.parametrize("accept", ["mesh.agent.x", "_INBOX.>", "$JS.API.STREAM.DELETE.x", "_INBOX.a b"])
def test_a_host_accepts_only_to_inboxes(accept):
    assert Request.read({h.ACCEPT: accept}).accept == ""


@pytest.mark.parametrize(
    ("headers", "body", "kind"),
    [
        (None, b"1", ReplyKind.ANSWER),
        ({}, b"", ReplyKind.ANSWER),
        ({"X-Mesh-Status": "ok"}, b"{}", ReplyKind.ANSWER),
        ({"X-Mesh-Status": "error"}, b"", ReplyKind.ERROR),
        ({"X-Mesh-Status": "accepted"}, b"", ReplyKind.ACCEPTED),
        ({"X-Mesh-Status": "accepted"}, b"{}", ReplyKind.ANSWER),
        ({"Status": "503"}, b"", ReplyKind.NO_RESPONDERS),
        ({"Status": "503"}, b"{}", ReplyKind.ANSWER),
        ({"X-Mesh-Status": "ok", "Status": "503"}, b"", ReplyKind.ANSWER),
    ],
)
def test_what_kind_of_reply(headers, body, kind):
    assert Reply.read(headers, body).kind is kind


@pytest.mark.parametrize(
    ("headers", "body", "kind"),
    [
        (None, b"1", FrameKind.CHUNK),
        (None, b"", FrameKind.NOISE),
        ({"X-Mesh-Stream-End": "false"}, b"", FrameKind.NOISE),
        ({"X-Mesh-Stream-End": "true"}, b"", FrameKind.END),
        ({"X-Mesh-Stream-End": "true"}, b"1", FrameKind.END),
        ({"X-Mesh-Stream-End": "true", "X-Mesh-Status": "error"}, b"", FrameKind.ERROR),
        ({"x-mesh-stream-end": "true"}, b"1", FrameKind.CHUNK),
    ],
)
def test_what_kind_of_frame(headers, body, kind):
    assert Frame.read(headers, body).kind is kind
