"""The names and values of the headers. Peers compare them with regard to case, so they are written here once.

Those of the second group are ours: plain peers ignore them.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "ACCEPT",
    "ACCEPTED",
    "BUDGET",
    "CONTENT_TYPE",
    "CREDIT",
    "DEADLINE",
    "ERROR",
    "FALSE",
    "INSTANCE_ID",
    "NO_RESPONDERS",
    "OK",
    "ORIGIN",
    "REPLY_TO",
    "REQUEST_ID",
    "SERVER_STATUS",
    "SOURCE",
    "STATUS",
    "STREAM",
    "STREAM_END",
    "STREAM_SEQ",
    "THREAD",
    "TRACEPARENT",
    "TRUE",
    "USAGE",
    "XML",
]

REQUEST_ID: Final = "X-Mesh-Request-Id"
STREAM: Final = "X-Mesh-Stream"
REPLY_TO: Final = "X-Mesh-Reply-To"
STATUS: Final = "X-Mesh-Status"
SOURCE: Final = "X-Mesh-Source"
STREAM_SEQ: Final = "X-Mesh-Stream-Seq"
STREAM_END: Final = "X-Mesh-Stream-End"
INSTANCE_ID: Final = "X-Mesh-Instance-Id"
CONTENT_TYPE: Final = "X-Mesh-Content-Type"
USAGE: Final = "X-Mesh-Usage"

DEADLINE: Final = "X-Mesh-Deadline"  # milliseconds that the caller will go on waiting
ACCEPT: Final = "X-Mesh-Accept"  # an inbox that is told at once which host has the request
CREDIT: Final = "X-Mesh-Credit"  # chunks that the consumer takes before it gives more credit
TRACEPARENT: Final = "traceparent"
THREAD: Final = "X-Mesh-Thread"  # of the caller's organism: where its call comes from
BUDGET: Final = "X-Mesh-Budget"  # tokens that the caller's conversation has left
ORIGIN: Final = "X-Mesh-Origin"  # whose value or message it is, for those who do not want their own back

OK: Final = "ok"
ERROR: Final = "error"
ACCEPTED: Final = "accepted"  # the value of STATUS in what is sent to the inbox of ACCEPT
TRUE: Final = "true"
FALSE: Final = "false"
XML: Final = "application/xml"  # the value of CONTENT_TYPE in a request that is an envelope

# Of the server, not of the mesh.
SERVER_STATUS: Final = "Status"
NO_RESPONDERS: Final = "503"
