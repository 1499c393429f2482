"""Where a floor's time goes: each obligation by itself, as ``plain`` does it, and over the ``tuned`` way.

The sums come to a little less than the loops of ``floor``: here the trees are made once, there each message's tree is
made and freed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lxml import etree

from benchmarks.floor import FROM, META, THREAD, TO, built, new_parser
from benchmarks.measure import Baselines, Case, Sample, Stopwatch
from benchmarks.messages import FIRST, SMALL, Ping, Pong, envelope_of, text_for
from benchmarks.size import Size
from third_party.xmlable import codec_of, parse_element
from xml_pipeline.envelope import envelope_schema, extract_payload, message_text, read_meta
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

__all__ = ["baselines", "cases"]

Step = Callable[[], object]


def _steps() -> dict[str, tuple[Step, Step]]:
    """What each obligation is called, as ``plain`` does it, and as ``tuned`` does it."""
    text = text_for(SMALL)
    raw, thread = envelope_of(Ping(text, FIRST), "a")
    parser, envelope_xsd, payload_xsd = new_parser(), envelope_schema(), codec_of(Ping).schema
    codec, answer_codec = codec_of(Ping), codec_of(Pong)
    root, pong = parse_strict(raw), Pong(text, FIRST)
    payload = root[1]

    def find() -> object:
        meta: Any = root.find(META)
        return meta.findtext(FROM), meta.findtext(TO), meta.findtext(THREAD), root[1]

    return {
        "strict parse": (lambda: etree.fromstring(raw, parser), lambda: parse_strict(raw)),
        "exclusive C14N": (
            lambda: etree.tostring(root, method="c14n", exclusive=True, with_comments=False),
            lambda: canonical_bytes(root) == raw,
        ),
        "envelope XSD": (lambda: envelope_xsd.assertValid(root), lambda: envelope_xsd.validate(root)),
        "extraction": (find, lambda: (read_meta(root, raw), extract_payload(root))),
        "payload XSD": (lambda: payload_xsd.assertValid(payload), lambda: payload_xsd.validate(payload)),
        "decode": (lambda: parse_element(Ping, payload), lambda: codec.decode(payload)),
        "encode, and serialise the answer's envelope": (
            lambda: built(pong, "a", "external", thread),
            lambda: message_text(answer_codec.encode_payload(pong), "a", "external", thread),
        ),
    }


def _timed(step: Step, size: Size) -> Callable[[], Sample]:
    def measure() -> Sample:
        for _ in range(size.warm_up):
            step()
        watch = Stopwatch()
        for _ in range(size.loops):
            step()
        return watch.sample(size.loops)

    return measure


def baselines(size: Size) -> Baselines:
    """The tuned way of each step."""
    return {f"step, {name}": _timed(tuned, size) for name, (_, tuned) in _steps().items()}


def cases(size: Size) -> list[Case]:
    """The plain way of each step."""
    return [
        Case("steps", name, _timed(plain, size), {"tuned": f"step, {name}"}) for name, (plain, _) in _steps().items()
    ]
