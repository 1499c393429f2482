"""Public keys that nobody can have made, against arithmetic written another way: affine, and by brute force."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.crypto.curve import is_public_key

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
I = pow(2, (P - 1) // 4, P)  # noqa: E741 - its name in the literature: a square root of -1

Point = tuple[int, int]


def add(one: Point, two: Point) -> Point:
    """The addition law of a twisted Edwards curve with a = -1 (RFC 8032, section 3)."""
    (x1, y1), (x2, y2) = one, two
    k = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + k, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - k, -1, P)
    return x % P, y % P


def times(number: int, point: Point) -> Point:
    total = (0, 1)
    while number:
        if number & 1:
            total = add(total, point)
        point, number = add(point, point), number >> 1
    return total


def encode(point: Point) -> bytes:
    x, y = point
    return (y | (x & 1) << 255).to_bytes(32, "little")


def decode(raw: bytes) -> Point:
    number = int.from_bytes(raw, "little")
    y = number & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * I % P
    assert x * x % P == square
    return (P - x if x & 1 != number >> 255 else x), y


def torsion() -> list[Point]:
    """The eight points whose order divides 8: what L leaves of a point that has a part of order 8."""
    for seed in range(2, 100):
        raw = seed.to_bytes(32, "little")
        try:
            point = times(L, decode(raw))
        except AssertionError:  # not on the curve
            continue
        found = [times(number, point) for number in range(8)]
        if len(set(found)) == 8:
            return found
    raise AssertionError("no point of order 8 was found")


TORSION = torsion()
HONEST = decode(Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key().public_bytes_raw())


@given(st.binary(min_size=32, max_size=32))
def test_whatever_a_generator_makes_is_good(seed):
    assert is_public_key(Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw())


@pytest.mark.parametrize("point", TORSION)
def test_points_of_small_order_are_not(point):
    assert times(8, point) == (0, 1)
    assert not is_public_key(encode(point))
    assert not is_public_key(bytes([*encode(point)[:31], encode(point)[31] ^ 0x80]))


@pytest.mark.parametrize("point", TORSION)
def test_points_with_a_part_of_small_order_are_not(point):
    assert is_public_key(encode(add(HONEST, point))) is (point == (0, 1))


@pytest.mark.parametrize("number", [*range(P, 2**255), 0, 1, P - 1])
@pytest.mark.parametrize("sign", [0, 1 << 255])
def test_numbers_that_are_not_written_as_they_should_be_are_not(number, sign):
    assert not is_public_key((number | sign).to_bytes(32, "little"))


def test_points_off_the_curve_are_not():
    off = []
    for y in range(2, 200):
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        if pow(square, (P - 1) // 2, P) == P - 1:
            off.append(y)
    assert len(off) > 50
    assert not any(is_public_key(y.to_bytes(32, "little")) for y in off)


@pytest.mark.parametrize("raw", [b"", bytes(31), encode(HONEST)[:31], encode(HONEST) + b"\0"])
def test_other_lengths_are_not(raw):
    assert not is_public_key(raw)
    assert is_public_key(encode(HONEST))
