"""Identities: an Ed25519 key pair, and the public half of other people's.

The only module that knows the library. Source: RFC 8032 (PureEdDSA over edwards25519); files are PEM, PKCS #8 for
private keys and SubjectPublicKeyInfo for public ones (RFC 8410).

A public key is written as the base64 of its 32 bytes, which is what configurations hold. Its *key id*, which signatures
name it by, is the base64url SHA-256 of these bytes, without padding: 43 characters.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from xml_pipeline.crypto.curve import is_public_key
from xml_pipeline.crypto.key_file import how_to_make, read_key_file, write_key_file
from xml_pipeline.crypto.refusals import IdentityError

__all__ = [
    "Ed25519PublicKey",
    "Identity",
    "IdentityError",
    "decode_public_key",
    "encode_public_key",
    "generate_identity",
    "key_id_of",
    "load_public_key",
    "verify_with_public_key",
]

_GENERATED: Final = "<generated>"
_PEM: Final = "-----BEGIN"


@dataclass(frozen=True, eq=False, repr=False)
class Identity:
    """Who an organism is: the key pair that signs what leaves it.

    The private key shows itself nowhere by accident: not in ``repr``, not pickled, not copied. Two identities are equal
    when their public keys are.

    Args:
        private_key: the secret half.
        public_key: its public half.
        path: where it was loaded from, for people.
    """

    private_key: Ed25519PrivateKey
    public_key: Ed25519PublicKey
    path: str = ""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Identity:
        """Read an identity from a PEM file, which nobody but its owner may reach.

        Args:
            path: a file with an Ed25519 private key, without a passphrase.

        Raises:
            IdentityError: it is not found, open to others, not Ed25519, or no such file at all. The text quotes nothing
                of it.
        """
        where = os.fspath(path)
        content = read_key_file(where, private=True)
        try:
            key = load_pem_private_key(content, password=None)
        except TypeError:  # what the library raises for a key with a passphrase
            raise IdentityError(f"Failed to load the identity {where}: it is locked with a passphrase") from None
        except (ValueError, UnsupportedAlgorithm):
            raise IdentityError(f"Failed to load the identity {where}: there is no private key in PEM in it") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise IdentityError(
                f"the key in {where} is not Ed25519; move it away, and make one with: {how_to_make(where)}"
            )
        return cls(key, key.public_key(), where)

    @classmethod
    def generate(cls) -> Identity:
        """A new identity, from the operating system's randomness."""
        key = Ed25519PrivateKey.generate()
        return cls(key, key.public_key(), _GENERATED)

    def save(
        self,
        private_path: str | os.PathLike[str],
        public_path: str | os.PathLike[str] | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        """Write both halves as PEM; the private one is its owner's only (mode 0600) from the first moment on.

        Args:
            private_path: where the private key goes.
            public_path: where the public key goes; default: the same, with the suffix ``.pub``.
            overwrite: whether files that are there are replaced. What a lost private key signed for is lost too.

        Raises:
            IdentityError: a file exists already, the two are the same, or one cannot be written.
        """
        private = Path(private_path)
        public = private.with_suffix(".pub") if public_path is None else Path(public_path)
        if os.path.abspath(private) == os.path.abspath(public):
            raise IdentityError(f"{private} cannot hold the private and the public key")
        if not overwrite and os.path.lexists(public):  # said before anything is written
            raise IdentityError(f"{public} exists already, and is not overwritten")
        secret = self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_key_file(private, secret, private=True, overwrite=overwrite)
        write_key_file(public, self.get_public_key_pem().encode(), private=False, overwrite=overwrite)

    def sign(self, data: bytes) -> bytes:
        """The signature of ``data``: 64 bytes, always the same for the same data."""
        return self.private_key.sign(data)

    def sign_base64(self, data: bytes) -> str:
        """`sign`, in base64."""
        return base64.b64encode(self.sign(data)).decode("ascii")

    def verify(self, signature: bytes, data: bytes) -> bool:
        """Whether ``signature`` is this identity's over ``data``."""
        return verify_with_public_key(self.public_key, signature, data)

    def get_public_key_pem(self) -> str:
        """The public key in PEM."""
        return self.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    def get_public_key_base64(self) -> str:
        """The public key as `encode_public_key` writes it."""
        return encode_public_key(self.public_key)

    @functools.cached_property
    def key_id(self) -> str:
        """What its signatures name it by."""
        return key_id_of(self.public_key)

    def __repr__(self) -> str:
        return f"Identity(key_id={self.key_id!r}, path={self.path!r})"

    def __eq__(self, other: object) -> bool:
        return self.key_id == other.key_id if isinstance(other, Identity) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key_id)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an identity cannot be pickled or copied; load it where it is needed")


def generate_identity() -> Identity:
    """A new identity; the same as `Identity.generate`."""
    return Identity.generate()


def load_public_key(path: str | os.PathLike[str]) -> Ed25519PublicKey:
    """Read a public key from a PEM file.

    Raises:
        IdentityError: it is not found, not Ed25519, no public key, or one that nobody can have made.
    """
    where = os.fspath(path)
    return _from_pem(read_key_file(where, private=False), where)


def verify_with_public_key(key: Ed25519PublicKey, signature: bytes, data: bytes) -> bool:
    """Whether ``signature`` is that of ``key`` over ``data``; a signature of any other length is not."""
    try:
        key.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def encode_public_key(key: Ed25519PublicKey) -> str:
    """A public key in base64: 44 characters."""
    return base64.b64encode(key.public_bytes_raw()).decode("ascii")


def decode_public_key(text: str) -> Ed25519PublicKey:
    """The public key in a text.

    Args:
        text: what `encode_public_key` wrote, or PEM; white space around it does not matter.

    Raises:
        IdentityError: it is neither, not Ed25519, or a key that nobody can have made. The text does not quote it: it
            may be a private key, put there by mistake.
    """
    text = text.strip()
    if text.startswith(_PEM):
        return _from_pem(text.encode(), "the text")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    # Only one spelling: the last character before the padding has bits that no byte comes of.
    if len(raw) != 32 or base64.b64encode(raw).decode("ascii") != text:
        raise IdentityError("a public key is the base64 of 32 bytes, 44 characters, or PEM")
    return _sound(Ed25519PublicKey.from_public_bytes(raw))


def key_id_of(key: Ed25519PublicKey) -> str:
    """What signatures name a public key by; see the top of this module."""
    digest = hashlib.sha256(key.public_bytes_raw()).digest()
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")


def _from_pem(content: bytes, where: str) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise IdentityError(f"Failed to load the public key: there is none in PEM in {where}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise IdentityError(f"the public key in {where} is not Ed25519")
    return _sound(key)


def _sound(key: Ed25519PublicKey) -> Ed25519PublicKey:
    if not is_public_key(key.public_bytes_raw()):
        raise IdentityError("the public key is no point of prime order on the curve: anybody could sign for it")
    return key
