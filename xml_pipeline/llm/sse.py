"""Server-sent events, as bytes come in: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6.

No I/O here: bytes go in, events come out, and how the bytes were cut into pieces does not matter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from xml_pipeline.llm.errors import MalformedResponse

__all__ = ["MAX_EVENT_BYTES", "ServerSentEvent", "SseParser"]

MAX_EVENT_BYTES: Final = 4 * 1_048_576
"""Bytes of one event. The longest that providers send are tool arguments in one piece, of some kilobytes."""

_END_OF_LINE: Final = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event.

    Args:
        event: its type; ``message`` if it has none.
        data: its lines of data, joined by line feeds.
    """

    event: str
    data: str


class SseParser:
    """Takes bytes, gives events.

    Args:
        limit: bytes that one event may have.
    """

    def __init__(self, limit: int = MAX_EVENT_BYTES) -> None:
        self._limit = limit
        self._line = bytearray()
        self._data: list[str] = []
        self._size = 0
        self._event = ""
        self._at_start = True
        self._after_return = False

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that ``chunk`` completes. An event that no blank line ends is none.

        Raises:
            MalformedResponse: an event is larger than the limit; the parser is of no use any more.
        """
        events: list[ServerSentEvent] = []
        start = 0
        for end in _END_OF_LINE.finditer(chunk):
            # The line feed of a CRLF whose two bytes came in two pieces ends nothing more.
            if self._after_return and end.start() == 0 and end.group() == b"\n":
                start = 1
                continue
            self._line += chunk[start : end.start()]
            start = end.end()
            self._take_line(events)
        if chunk:
            self._after_return = chunk.endswith(b"\r")
        self._line += chunk[start:]
        self._check(len(self._line))
        return events

    def _take_line(self, events: list[ServerSentEvent]) -> None:
        line = bytes(self._line)
        self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if not line:
            self._dispatch(events)
            return
        self._check(len(line))
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        if name == b"data":
            self._size += len(line)
            self._data.append(text)
        elif name == b"event":
            self._event = text
        # A comment has an empty name; `id` and `retry` are for reconnecting, which a model call never does.

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        if self._data:
            events.append(ServerSentEvent(self._event or "message", "\n".join(self._data)))
        self._data = []
        self._size = 0
        self._event = ""

    def _check(self, more: int) -> None:
        if self._size + more > self._limit:
            raise MalformedResponse(f"Malformed stream: an event is larger than {self._limit:,} bytes")
