"""Signing and verifying envelopes, against the least that any such signature costs.

``x by hand`` compares with a loop that parses the envelope, makes its exclusive canonical form, and signs or verifies
that with the library, and nothing else: no key id, no time, no id, no destination, no policy, no window. Where a bad
signature is refused, it is the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from benchmarks.measure import Baselines, Case, Sample, Stopwatch
from benchmarks.messages import FIRST, LARGE, SMALL, Ping, envelope_of, text_for
from benchmarks.size import Size
from xml_pipeline.crypto import (
    Identity,
    Reason,
    ReplayWindow,
    SignatureRefused,
    TrustedKey,
    TrustStore,
    Verifier,
    sign,
)
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

__all__ = ["baselines", "cases"]

_SIZES = {"300 bytes": SMALL, "2 kB": LARGE}
_IDENTITY = Identity.generate()
_SENDER, _RECEIVER = "external", "a"

Task = Callable[[int], Callable[[], object]]
"""Prepares so many messages; what it returns handles the next of them."""


def _signing(raw: bytes) -> Task:
    return lambda count: lambda: sign(raw, _IDENTITY, destination=_RECEIVER)


def _signing_by_hand(raw: bytes) -> Task:
    return lambda count: lambda: _IDENTITY.sign(canonical_bytes(parse_strict(raw)))


def _verifying(raw: bytes) -> Task:
    def prepare(count: int) -> Callable[[], object]:
        wires = iter([sign(raw, _IDENTITY, destination=_RECEIVER) for _ in range(count)])
        door = Verifier(
            TrustStore((TrustedKey(_IDENTITY.public_key, (_SENDER,)),)),
            ReplayWindow(floor=-math.inf, max_age=3600.0, capacity=count),
        )
        return lambda: door.verify(next(wires), _RECEIVER)

    return prepare


def _refusing(raw: bytes) -> Task:
    # The last one is in the payload; the signature before it is random, and may have one by chance.
    head, _, tail = sign(raw, _IDENTITY, destination=_RECEIVER).rpartition(b"xx")
    wire = head + b"xy" + tail
    door = Verifier(TrustStore((TrustedKey(_IDENTITY.public_key, (_SENDER,)),)), ReplayWindow(floor=-math.inf))

    def refuse() -> None:
        try:
            door.verify(wire, _RECEIVER)
        except SignatureRefused as refused:
            if refused.reason is Reason.BAD_SIGNATURE:
                return
        raise AssertionError("the signature should have been found bad")

    return lambda count: refuse


def _verifying_by_hand(raw: bytes) -> Task:
    signature = _IDENTITY.sign(raw)

    def verify() -> None:
        if not _IDENTITY.verify(signature, canonical_bytes(parse_strict(raw))):
            raise AssertionError("the signature should have been found good")

    return lambda count: verify


_TASKS: dict[str, tuple[Callable[[bytes], Task], str]] = {
    "sign": (_signing, "sign by hand"),
    "verify": (_verifying, "verify by hand"),
    "refuse a bad signature": (_refusing, "verify by hand"),
}


def _timed(task: Task, size: Size) -> Callable[[], Sample]:
    def measure() -> Sample:
        step = task(size.warm_up + size.loops)
        for _ in range(size.warm_up):
            step()
        watch = Stopwatch()
        for _ in range(size.loops):
            step()
        return watch.sample(size.loops)

    return measure


def _envelope(length: int) -> bytes:
    return envelope_of(Ping(text_for(length), FIRST), _RECEIVER, _SENDER)[0]


def baselines(size: Size) -> Baselines:
    """The least it costs."""
    by_hand = {"sign by hand": _signing_by_hand, "verify by hand": _verifying_by_hand}
    return {
        f"{name}, {label}": _timed(task(_envelope(length)), size)
        for (name, task), (label, length) in itertools.product(by_hand.items(), _SIZES.items())
    }


def cases(size: Size) -> list[Case]:
    """Everything that a door does."""
    return [
        Case("signing", f"{name}, {label}", _timed(task(_envelope(length)), size), {"by hand": f"{floor}, {label}"})
        for (name, (task, floor)), (label, length) in itertools.product(_TASKS.items(), _SIZES.items())
    ]
