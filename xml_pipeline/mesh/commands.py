"""What a connection sends, as bytes: the commands of the NATS protocol that the mesh sends often.

Source: https://docs.nats.io/reference/reference-protocols/nats-protocol. The bytes are those of the NATS client; what
it does for each header and each command (copying, queueing, waking a task) takes most of the time of a small message.
"""

from __future__ import annotations

from xml_pipeline.mesh import headers as h

__all__ = ["NAMES", "publish_command", "subscribe_command", "unsubscribe_command"]

NAMES = frozenset(
    {h.TRACEPARENT, *(value for value in vars(h).values() if isinstance(value, str) and value.startswith("X-Mesh-"))}
)
"""The headers of the mesh, of which nothing has to be checked."""

_VERSION = "NATS/1.0\r\n"


def publish_command(subject: str, body: bytes, reply: str, headers: dict[str, str] | None) -> bytes | None:
    """A message.

    Args:
        subject: where it goes; it must have been checked.
        body: the payload.
        reply: where answers go; empty for nowhere.
        headers: those of the message.

    Returns:
        The command; ``None`` where something is not usual, and has to be checked by the NATS client: the name of a
        header, a value of several lines, or a subject that is none.
    """
    size = len(body)
    if not headers:
        line = f"PUB {subject} {reply} {size}\r\n"
        return line.encode() + body + b"\r\n" if _is_one_line(line, subject) else None
    if not NAMES.issuperset(headers):
        return None
    fields = "".join([f"{name}: {value.strip()}\r\n" for name, value in headers.items()])
    if fields.count("\n") != len(headers) or fields.count("\r") != len(headers):
        return None
    block = f"{_VERSION}{fields}\r\n".encode()
    line = f"HPUB {subject} {reply} {len(block)} {len(block) + size}\r\n"
    return b"".join((line.encode(), block, body, b"\r\n")) if _is_one_line(line, subject) else None


def _is_one_line(line: str, subject: str) -> bool:
    """Whether neither the subject nor the inbox adds a word or a line to the command."""
    return bool(subject) and line[:-2].isprintable() and line.count(" ") == (4 if line[0] == "H" else 3)


def subscribe_command(subject: str, queue: str, number: int) -> bytes:
    """Interest in a subject, which must have been checked."""
    return f"SUB {subject} {queue} {number}\r\n".encode()


def unsubscribe_command(number: int) -> bytes:
    """The end of it."""
    return f"UNSUB {number} \r\n".encode()
