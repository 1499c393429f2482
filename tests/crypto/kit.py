"""What the tests of the room share: identities, envelopes, a clock that is told the time, and a door."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from xml_pipeline.crypto import (
    Identity,
    Policy,
    Reason,
    ReplayWindow,
    SignatureRefused,
    TrustedKey,
    TrustStore,
    Verified,
    Verifier,
    sign,
)
from xml_pipeline.envelope import message_text

THREAD = "7c0d3d5e-8f6c-4f0e-9a57-0d9f6c1b2a34"
NOON = 1_800_000_000.0
HERE = "billing"


def identity(number: int) -> Identity:
    """Always the same one for a number, so that a failure can be repeated."""
    key = Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))
    return Identity(key, key.public_key(), f"identity {number}")


SHOP, BANK, STRANGER = identity(1), identity(2), identity(3)


def envelope(sender: str = "shop.clerk", text: str = "hello", to: str | None = "billing") -> bytes:
    return message_text(f'<Ping xmlns=""><Text>{text}</Text></Ping>', sender, to, THREAD)


SMALL = envelope()


def signed(raw: bytes = SMALL, who: Identity = SHOP, **options: object) -> bytes:
    given = {"destination": HERE, "created": NOON, "message_id": f"m-{next(_numbers)}", **options}
    return sign(raw, who, **given)  # type: ignore[arg-type]


def _counting() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


_numbers = _counting()


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def trusting(*keys: tuple[Identity, str, Policy], default: Policy = Policy.REQUIRE) -> TrustStore:
    """A store from (identity, names with spaces between them, policy)."""
    return TrustStore(tuple(TrustedKey(who.public_key, tuple(names.split()), how) for who, names, how in keys), default)


USUAL = trusting((SHOP, "shop shop.*", Policy.REQUIRE), (BANK, "bank", Policy.REQUIRE))


class Door(Verifier):
    """A verifier with a clock of its own, which nothing came through before."""

    def __init__(self, trust: TrustStore = USUAL, **options: object) -> None:
        self.clock = Clock()
        window = ReplayWindow(clock=self.clock, floor=-math.inf)
        super().__init__(trust, window, **options)  # type: ignore[arg-type]

    def takes(self, raw: bytes, destination: str = HERE) -> Verified:
        return self.verify(raw, destination)

    def refuses(self, raw: bytes, destination: str = HERE) -> Reason:
        with pytest.raises(SignatureRefused) as caught:
            self.verify(raw, destination)
        return caught.value.reason
