"""Whether 32 bytes are a public key that somebody can have made: a point of prime order on edwards25519.

Verification alone does not tell. For a point of small order anybody can make signatures that verify, without a private
key; with one that has a part of small order, implementations disagree about which signatures do ("Taming the many
EdDSAs", Chalkias, Garillot and Nikolaenko, 2020). Such keys do not come out of a key generator, so they are refused
when trust is set up, where a few milliseconds do not matter.

Source of curve and formulas: RFC 8032, sections 5.1, 5.1.3 (decoding) and 5.1.4 (addition, in extended homogeneous
coordinates). Nothing secret is computed here, so nothing needs constant time.
"""

from __future__ import annotations

from typing import Final

__all__ = ["is_public_key"]

_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, _P) % _P
_SQUARE_ROOT_OF_MINUS_ONE: Final = pow(2, (_P - 1) // 4, _P)
_SIGN: Final = 1 << 255

_Point = tuple[int, int, int, int]
"""X, Y, Z and T of a point (x, y): x = X/Z, y = Y/Z, xy = T/Z."""
_NEUTRAL: Final[_Point] = (0, 1, 1, 0)


def is_public_key(raw: bytes) -> bool:
    """Whether ``raw`` is the canonical encoding of a point of prime order.

    Args:
        raw: any bytes.
    """
    if len(raw) != 32:
        return False
    point = _decode(int.from_bytes(raw, "little"))
    return point is not None and not _is_neutral(point) and _is_neutral(_times(_ORDER, point))


def _decode(encoded: int) -> _Point | None:
    sign, y = encoded & _SIGN, encoded & ~_SIGN
    if y >= _P:
        return None
    x = _root((y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P)
    if x is None or (x == 0 and sign):
        return None
    if bool(sign) != bool(x & 1):
        x = _P - x
    return x, y, 1, x * y % _P


def _root(square: int) -> int | None:
    root = pow(square, (_P + 3) // 8, _P)
    if root * root % _P != square:
        root = root * _SQUARE_ROOT_OF_MINUS_ONE % _P
    return root if root * root % _P == square else None


def _add(one: _Point, two: _Point) -> _Point:
    a = (one[1] - one[0]) * (two[1] - two[0])
    b = (one[1] + one[0]) * (two[1] + two[0])
    c = 2 * one[3] * two[3] * _D
    d = 2 * one[2] * two[2]
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _times(number: int, point: _Point) -> _Point:
    total = _NEUTRAL
    while number:
        if number & 1:
            total = _add(total, point)
        point = _add(point, point)
        number >>= 1
    return total


def _is_neutral(point: _Point) -> bool:
    return point[0] % _P == 0 and (point[1] - point[2]) % _P == 0
