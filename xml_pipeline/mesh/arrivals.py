"""What a connection receives: messages, and between them other lines, out of bytes that come in pieces.

Source: https://docs.nats.io/reference/reference-protocols/nats-protocol. No input or output happens here.
"""

from __future__ import annotations

from collections.abc import Callable

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.commands import NAMES

__all__ = ["Arrivals", "Received", "read_headers"]

_LINE_END = b"\r\n"
_MESSAGE = b"MSG "
_MESSAGE_WITH_HEADERS = b"HMSG "
_VERSION = "NATS/1.0"
_DESCRIPTION = "Description"
_SPACES = " \t\n\r\x0b\x0c"


class Received:
    """One message; see `message.Message`."""

    __slots__ = ("data", "headers", "reply", "subject")

    def __init__(self, subject: str, reply: str, data: bytes, headers: dict[str, str] | None) -> None:
        self.subject = subject
        self.reply = reply
        self.data = data
        self.headers = headers


class Arrivals:
    """Takes what came, piece by piece.

    Args:
        deliver: called with the number of its subscription and each message; it must not raise.
    """

    def __init__(self, deliver: Callable[[int, Received], None]) -> None:
        self._deliver = deliver
        self._rest = bytearray()
        self._needed = 0  # bytes that the rest must have before it is worth looking at it

    def feed(self, piece: bytes) -> bytes | None:
        """More bytes came: deliver the messages among them.

        Args:
            piece: what follows what came before; empty to go on after a line.

        Returns:
            A line that is no message, with its end; what follows it has not been looked at. ``None``: there is none,
            and everything complete was delivered.

        Raises:
            ValueError: this is not the protocol.
        """
        rest = self._rest
        if rest:
            rest += piece
            if len(rest) < self._needed:
                return None
            piece = bytes(rest)
            rest.clear()
        self._needed = 0
        line, position = self._look_at(piece)
        if position < len(piece):
            rest += piece[position:]
        return line

    def _look_at(self, piece: bytes) -> tuple[bytes | None, int]:
        """Deliver what is complete. Returns a line that is no message, and how far it came."""
        position = 0
        while (end := piece.find(_LINE_END, position)) >= 0:
            with_headers = piece.startswith(_MESSAGE_WITH_HEADERS, position)
            if not with_headers and not piece.startswith(_MESSAGE, position):
                return piece[position : end + 2], end + 2
            words = piece[position:end].split(b" ")
            size = int(words[-1])
            if size < 0 or not 4 <= len(words) - with_headers <= 5:
                raise ValueError("this is not how a message begins")
            begin = end + 2
            stop = begin + size
            if stop + 2 > len(piece):
                self._needed = stop + 2 - position
                break
            self._take(words, piece, begin, stop, with_headers)
            position = stop + 2
        return None, position

    def _take(self, words: list[bytes], piece: bytes, begin: int, stop: int, with_headers: bool) -> None:
        headers = None
        if with_headers:
            middle = begin + int(words[-2])
            if not begin <= middle <= stop:
                raise ValueError("the headers of a message are longer than the message")
            headers = read_headers(piece[begin:middle])
            begin = middle
            words.pop()
        reply = words[3].decode("utf-8", "replace") if len(words) == 5 else ""
        subject = words[1].decode("utf-8", "replace")
        self._deliver(int(words[2]), Received(subject, reply, piece[begin:stop], headers))


def read_headers(block: bytes) -> dict[str, str] | None:
    """The headers of a message, as the NATS client reads them.

    Args:
        block: from the version to the empty line.

    Returns:
        The headers; the status that a server sends in the first line is one, and so is its description. ``None`` for
        none.
    """
    first, *lines = block.decode("utf-8", "replace").split("\r\n")
    found = {name: value.strip(_SPACES) for name, colon, value in [line.partition(":") for line in lines] if colon}
    if found and NAMES.issuperset(found) and len(first) == len(_VERSION):
        return found
    return _read_with_care(first, lines)


def _read_with_care(first: str, lines: list[str]) -> dict[str, str] | None:
    """The same where there is anything but headers of the mesh."""
    found: dict[str, str] = {}
    if len(first) > len(_VERSION):
        _read_status(first[len(_VERSION) :], found)
    for line in lines:
        name, colon, value = line.partition(":")
        name = name.strip(_SPACES)
        if colon and name.isascii() and name.isprintable() and " " not in name:
            found[name] = value.strip(_SPACES)
    return found or None


def _read_status(text: str, found: dict[str, str]) -> None:
    status, _, description = text.strip(_SPACES).partition(" ")
    if status.isdigit():
        found[h.SERVER_STATUS] = status
    if description:
        found[_DESCRIPTION] = description
