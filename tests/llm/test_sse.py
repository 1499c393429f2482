from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.llm.errors import MalformedResponse
from xml_pipeline.llm.sse import ServerSentEvent, SseParser


def parse(*chunks: bytes) -> list[ServerSentEvent]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def message(data: str) -> ServerSentEvent:
    return ServerSentEvent("message", data)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_in_three_ways(end):
    assert parse(b"event: greeting" + end + b"data: hello" + end + end) == [ServerSentEvent("greeting", "hello")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"data: a\n\n", [message("a")]),
        (b"data:a\n\n", [message("a")]),
        (b"data:  a\n\n", [message(" a")]),
        (b"data: a\ndata: b\n\n", [message("a\nb")]),
        (b"data\n\n", [message("")]),
        (b"data:\n\n", [message("")]),
        (b"data: a: b\n\n", [message("a: b")]),
        (b": a comment\ndata: a\n\n", [message("a")]),
        (b": only a comment\n\n", []),
        (b"event: ping\n\n", []),
        (b"event: e\n\ndata: a\n\n", [message("a")]),
        (b"id: 7\nretry: 10\nother: x\ndata: a\n\n", [message("a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [message("a")]),
        (b"data: \xff\n\n", [message("\N{REPLACEMENT CHARACTER}")]),
        (b"data: a\n\ndata: cut", [message("a")]),
        (b"data: a\n\ndata: cut\n", [message("a")]),
        (b"", []),
    ],
)
def test_what_lines_mean(text, expected):
    assert parse(text) == expected


_LINES = st.sampled_from(
    [b"data: x", b"data:", b"data", "data: ä€🐍".encode(), b"event: e", b": c", b"", b"", b"id: 1"]
)
_STREAMS = st.lists(st.tuples(_LINES, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=20).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


@given(stream=_STREAMS | st.binary(max_size=60), cuts=st.lists(st.integers(0, 300), max_size=20))
def test_how_the_bytes_are_cut_does_not_matter(stream, cuts):
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert parse(*(stream[a:b] for a, b in pairwise(places))) == parse(stream)


@given(stream=_STREAMS)
def test_byte_by_byte(stream):
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == parse(stream)


_TEXTS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))


@given(data=st.lists(_TEXTS, min_size=1, max_size=5))
def test_what_is_written_is_read(data):
    written = "".join(f"data: {line}\n" for line in data) + "\n"
    assert parse(written.encode()) == [message("\n".join(data))]


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * 50, b"data: xxxx\n" * 10, b"data\n" * 50, b":" * 200])
def test_an_event_has_a_limit(chunk):
    parser = SseParser(limit=100)
    with pytest.raises(MalformedResponse, match=r"^Malformed stream: an event is larger than 100 bytes$"):
        for _ in range(10):
            parser.feed(chunk)


def test_many_small_events_have_none():
    parser = SseParser(limit=100)
    assert sum(len(parser.feed(b"data: xxxxxxxxxx\n\n")) for _ in range(1000)) == 1000
