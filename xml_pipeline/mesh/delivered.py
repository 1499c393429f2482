"""The numbers that the server gives to what it delivers through a consumer."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Delivered"]

_ACK = "$JS.ACK."


@dataclass(frozen=True, slots=True)
class Delivered:
    """The numbers of one message.

    Args:
        revision: its number in the stream.
        number: its number among those of the consumer.
        pending: how many are to come.
        times: how often it was delivered, this time included.
    """

    revision: int
    number: int
    pending: int
    times: int = 1

    @classmethod
    def of(cls, reply: str) -> Delivered | None:
        """Read them from where the message is to be acknowledged; ``None`` if that is no such subject.

        ``$JS.ACK.<stream>.<consumer>.<times>.<revision>.<number>.<time>.<pending>``, maybe with a domain and an
        account before the stream, and then with a random token at the end.
        """
        tokens = reply.split(".")
        if not reply.startswith(_ACK) or len(tokens) not in (9, 11, 12):
            return None
        if len(tokens) > 9:
            tokens = tokens[2:]
        try:
            return cls(int(tokens[5]), int(tokens[6]), int(tokens[8]), int(tokens[4]))
        except ValueError:
            return None
