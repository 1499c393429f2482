"""Every message of the mesh as a value: what it says, how it is written, and how it is read.

No input or output happens here, and no clock is read. A ``read`` takes whatever came and never raises: what is missing
or makes no sense gets the value that says so, because a plain peer may leave out any header, and a hostile one may put
anything into it.

========== ============================ =======================================================
Value      Subject                      Sent by
========== ============================ =======================================================
Request    ``mesh.agent.<name>``        a caller, to one host of the agent
Reply      the request's reply subject  the host: an answer, an error, or that it has the request
Frame      ``mesh.stream.<id>``         the host: a chunk, the end, or an error
Frame      ``mesh.agent.<name>.events`` a publisher: an event, the end, or an error
========== ============================ =======================================================
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.subjects import is_inbox, is_request_id

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Frame", "FrameKind", "Headers", "Reply", "ReplyKind", "Request", "read_count"]

Headers = dict[str, str]
_NONE: Headers = {}

# A day: no call waits longer, and a number with more digits is no deadline but an attack on the reader.
_LONGEST_DEADLINE_MS = 86_400_000
_LONGEST_NUMBER = 15
_LONGEST_ECHO = 256


def read_count(text: str | None) -> int:
    """The number in a header; ``-1`` where there is none, or no number of ASCII digits."""
    if text is None or len(text) > _LONGEST_NUMBER or not text.isascii() or not text.isdigit():
        return -1
    return int(text)


class Request(NamedTuple):
    """What a caller asks.

    Args:
        request_id: the caller's id of it; empty where it sent none.
        streaming: whether the answer is to come as chunks.
        reply_to: a subject told to the agent; the host answers to the message's own reply subject.
        instance_id: the mesh object that asks.
        deadline: seconds that the caller will go on waiting; ``None`` if it did not say.
        accept: the inbox that is to be told at once which host has the request; empty for none.
        credit: chunks that the caller takes before it gives more credit; ``None``: as they come.
        traceparent: the trace that this belongs to.
    """

    request_id: str = ""
    streaming: bool = False
    reply_to: str = ""
    instance_id: str = ""
    deadline: float | None = None
    accept: str = ""
    credit: int | None = None
    traceparent: str = ""

    @property
    def can_stream(self) -> bool:
        """Whether chunks can be sent anywhere: the id becomes part of a subject."""
        return is_request_id(self.request_id)

    def to_headers(self) -> Headers:
        """The headers as they are sent."""
        found = {h.REQUEST_ID: self.request_id}
        if self.streaming:
            found[h.STREAM] = h.TRUE
        if self.reply_to:
            found[h.REPLY_TO] = self.reply_to
        if self.instance_id:
            found[h.INSTANCE_ID] = self.instance_id
        if self.deadline is not None:
            found[h.DEADLINE] = str(max(1, min(_LONGEST_DEADLINE_MS, round(self.deadline * 1000))))
        if self.accept:
            found[h.ACCEPT] = self.accept
        if self.credit is not None:
            found[h.CREDIT] = str(self.credit)
        if self.traceparent:
            found[h.TRACEPARENT] = self.traceparent
        return found

    @classmethod
    def read(cls, headers: Mapping[str, str] | None) -> Request:
        """What the headers of a message ask; a message without any is a plain request."""
        if not headers:
            return cls()
        milliseconds = read_count(headers.get(h.DEADLINE))
        credit = read_count(headers.get(h.CREDIT))
        accept = headers.get(h.ACCEPT, "")
        return cls(
            request_id=headers.get(h.REQUEST_ID, "")[:_LONGEST_ECHO],
            streaming=headers.get(h.STREAM) == h.TRUE,
            reply_to=headers.get(h.REPLY_TO, ""),
            instance_id=headers.get(h.INSTANCE_ID, ""),
            deadline=min(milliseconds, _LONGEST_DEADLINE_MS) / 1000 if milliseconds >= 0 else None,
            accept=accept if accept and is_inbox(accept) else "",
            credit=credit if credit > 0 else None,
            traceparent=headers.get(h.TRACEPARENT, ""),
        )


class ReplyKind(Enum):
    """What came back for a request."""

    ANSWER = "answer"
    ERROR = "error"
    ACCEPTED = "accepted"  # a host has it; the answer is to come
    NO_RESPONDERS = "no-responders"  # from the server: nobody serves the agent


class Reply(NamedTuple):
    """What comes back for a request.

    Args:
        kind: see there.
        request_id: that of the request, echoed.
        source: the agent that answered.
        instance_id: the host.
        usage: compact JSON of what the answer cost, or empty.
    """

    kind: ReplyKind
    request_id: str = ""
    source: str = ""
    instance_id: str = ""
    usage: str = ""

    def to_headers(self) -> Headers:
        """The headers as they are sent; errors do not name their source."""
        if self.kind is ReplyKind.ANSWER:
            found = {h.STATUS: h.OK, h.SOURCE: self.source, h.REQUEST_ID: self.request_id}
        elif self.kind is ReplyKind.ERROR:
            found = {h.STATUS: h.ERROR, h.REQUEST_ID: self.request_id}
        else:
            found = {h.STATUS: h.ACCEPTED, h.REQUEST_ID: self.request_id}
        if self.usage:
            found[h.USAGE] = self.usage
        if self.instance_id:
            found[h.INSTANCE_ID] = self.instance_id
        return found

    @classmethod
    def read(cls, headers: Mapping[str, str] | None, body: bytes) -> Reply:
        """What came; a reply without headers is an answer."""
        if not headers:
            return cls(ReplyKind.ANSWER)
        status = headers.get(h.STATUS)
        if status == h.ERROR:
            kind = ReplyKind.ERROR
        elif status == h.ACCEPTED and not body:
            kind = ReplyKind.ACCEPTED
        elif status is None and not body and headers.get(h.SERVER_STATUS) == h.NO_RESPONDERS:
            kind = ReplyKind.NO_RESPONDERS
        else:
            kind = ReplyKind.ANSWER
        return cls(
            kind,
            headers.get(h.REQUEST_ID, ""),
            headers.get(h.SOURCE, ""),
            headers.get(h.INSTANCE_ID, ""),
            headers.get(h.USAGE, ""),
        )


class FrameKind(Enum):
    """What a message of a stream, or of a publisher, is."""

    CHUNK = "chunk"
    END = "end"
    ERROR = "error"
    NOISE = "noise"  # no body and no end: peers ignore it, and so do we


class Frame(NamedTuple):
    """One message of a stream, or of a publisher.

    Args:
        kind: see there.
        seq: of a chunk its number, from 0; of the end how many chunks there were; ``-1`` where none was sent.
        request_id: the stream's request; a publisher's frames have none.
        instance_id: the host.
        usage: with the end, compact JSON of what the stream cost, or empty.
    """

    kind: FrameKind
    seq: int = -1
    request_id: str = ""
    instance_id: str = ""
    usage: str = ""

    def to_headers(self) -> Headers:
        """The headers as they are sent; an error has no number, for nothing follows it."""
        found: Headers = {}
        if self.kind is not FrameKind.ERROR:
            found[h.STREAM_SEQ] = str(self.seq)
        found[h.STREAM_END] = h.FALSE if self.kind is FrameKind.CHUNK else h.TRUE
        if self.kind is FrameKind.ERROR:
            found[h.STATUS] = h.ERROR
        if self.request_id:
            found[h.REQUEST_ID] = self.request_id
        if self.usage:
            found[h.USAGE] = self.usage
        if self.instance_id:
            found[h.INSTANCE_ID] = self.instance_id
        return found

    @classmethod
    def read(cls, headers: Mapping[str, str] | None, body: bytes) -> Frame:
        """What came. A frame that says it is an error is one, also where its body is missing."""
        found = headers or _NONE
        if found.get(h.STATUS) == h.ERROR:
            kind = FrameKind.ERROR
        elif found.get(h.STREAM_END) == h.TRUE:
            kind = FrameKind.END
        else:
            kind = FrameKind.CHUNK if body else FrameKind.NOISE
        return cls(
            kind,
            read_count(found.get(h.STREAM_SEQ)),
            found.get(h.REQUEST_ID, ""),
            found.get(h.INSTANCE_ID, ""),
            found.get(h.USAGE, ""),
        )
