"""Credentials files: what a member of the mesh shows a server to say who it is.

Two forms are read. A file as `nsc` writes it, with a token and the seed of the key that it is for; or a seed alone, for
servers that list public keys in their configuration::

    -----BEGIN NATS USER JWT-----                 SUAM...
    eyJ0eXAi...
    ------END NATS USER JWT------

    -----BEGIN USER NKEY SEED-----
    SUAM...
    ------END USER NKEY SEED------

The file is read at every attempt to connect, so that it may be replaced while a program runs. It is checked here, for
the NATS client looks for the end of a token for ever where there is none.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path

from xml_pipeline.mesh.errors import ConnectionFailed

__all__ = ["Credentials", "read_credentials"]

_LONGEST = 1 << 20
_JWT = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END NATS USER JWT-+")
_SEED = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END USER NKEY SEED-+")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_SEED_BYTES = 36  # two of prefix, 32 of key, two of check sum
_SEED_OF_A_USER = bytes([18 << 3 | 20 << 3 >> 5, (20 << 3 & 31) << 3])


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What one such file holds. It is never shown.

    Args:
        seed: of the key.
        jwt: the token; empty for the key alone.
    """

    seed: str
    jwt: str = ""

    def __repr__(self) -> str:
        return f"<Credentials of a {'token' if self.jwt else 'key'}>"

    def to_file(self) -> str:
        """The text of a credentials file, with nothing else in it."""
        return (
            f"-----BEGIN NATS USER JWT-----\n{self.jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{self.seed}\n------END USER NKEY SEED------\n"
        )


def read_credentials(path: Path) -> Credentials:
    """Read a credentials file.

    Args:
        path: of the file.

    Raises:
        ConnectionFailed: it does not exist, cannot be read, or is none; the text names it, and nothing of what it has.
    """
    if not path.exists():
        raise ConnectionFailed(f"The credentials file {path} does not exist.")
    if not path.is_file():
        raise ConnectionFailed(f"The credentials file {path} is not a file.")
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST).decode("utf-8-sig")
    except OSError as error:
        raise ConnectionFailed(f"The credentials file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise ConnectionFailed(f"The credentials file {path} is not text.") from None
    return _credentials_in(text, path)


def _credentials_in(text: str, path: Path) -> Credentials:
    token, seed = _JWT.search(text), _SEED.search(text)
    if token is None and seed is None and text.strip().startswith("S") and len(text.split()) == 1:
        return Credentials(_checked_seed(text.strip(), path))
    if seed is None:
        raise _bad(path, "it has no block 'USER NKEY SEED'")
    if token is None:
        if "USER JWT" in text:
            raise _bad(path, "its block 'NATS USER JWT' is not complete")
        return Credentials(_checked_seed(seed[1], path))
    if not _TOKEN.fullmatch(token[1]):
        raise _bad(path, "what stands in its block 'NATS USER JWT' is no token")
    return Credentials(_checked_seed(seed[1], path), token[1])


def _checked_seed(seed: str, path: Path) -> str:
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != _SEED_BYTES or _crc(raw[:-2]) != int.from_bytes(raw[-2:], "little"):
        raise _bad(path, "its seed is damaged")
    if raw[:2] != _SEED_OF_A_USER:
        raise _bad(path, "its seed is not that of a user, which begins with SU")
    return seed


def _crc(data: bytes) -> int:
    """CRC-16/XMODEM, as the NATS documentation of nkeys has it."""
    return binascii.crc_hqx(data, 0)


def _bad(path: Path, why: str) -> ConnectionFailed:
    return ConnectionFailed(f"The credentials file {path} cannot be used: {why}.")
