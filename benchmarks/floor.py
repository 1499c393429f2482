"""The floors: one message's XML work, in a loop, with no event loop, no registry, no ids, no limits.

Every floor does, for each message, what the pump owes each hop: parse strictly, exclusive canonicalisation, validate
the envelope, find sender, receiver, thread and payload, validate the payload, decode it, make an answer, encode it, and
serialise the answer's envelope. All schemas, parsers and codecs are made beforehand. They differ in how:

``plain``
    What a competent engineer writes with lxml and the codec's documented interface, and what the promises of this
    project are measured against: ``etree.fromstring``, ``etree.tostring(method="c14n")``, ``schema.assertValid``,
    ``find`` and ``findtext``, ``parse_element``, an envelope built with ``etree.SubElement`` around the codec's
    ``xml_value``, ``etree.tostring``. Nothing is done twice: the canonical bytes are made, and not parsed again.
``plain, reparsed``
    The same, with the canonical bytes parsed again, as one does who wants to validate exactly what was canonicalised.
``plain, leanest trees``
    The same obligations, still on lxml trees, each in the cheapest way that lxml has: children unpacked by position,
    ``schema.validate``, the answer's tree built field by field without the codec. Shows how much of ``plain`` is idiom.
``tuned``
    The pump's own functions, which are the fastest we know for each obligation: `parse_strict`, `canonical_bytes`,
    `read_meta` on canonical bytes, ``Codec.decode``, ``Codec.encode_payload``, and `message_text`, which writes text
    where the others build a tree. What the pump takes beyond this floor is the price of being a pump.

All receive the same bytes. The loop gives them the same message each time, which spares them the cache misses that a
pump with many messages in flight has: a floor is a floor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lxml import etree

from benchmarks.measure import Baselines, Case, Sample, Stopwatch
from benchmarks.messages import FIRST, LARGE, SMALL, Ping, Pong, envelope_of, text_for
from benchmarks.size import Size
from third_party.xmlable import codec_of, parse_element
from xml_pipeline.envelope import (
    ENVELOPE_NAMESPACE,
    envelope_schema,
    extract_payload,
    message_text,
    read_meta,
)
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

__all__ = ["baselines", "built", "cases", "lean_loop", "plain_loop", "reparsing_loop", "tuned_loop"]

Loop = Callable[[bytes, int], bytes]
"""Handles a message so many times, and returns the last answer's bytes."""

MESSAGE = f"{{{ENVELOPE_NAMESPACE}}}message"
META = f"{{{ENVELOPE_NAMESPACE}}}meta"
FROM = f"{{{ENVELOPE_NAMESPACE}}}from"
TO = f"{{{ENVELOPE_NAMESPACE}}}to"
THREAD = f"{{{ENVELOPE_NAMESPACE}}}thread"
PREFIX = {"e": ENVELOPE_NAMESPACE}
"""A prefix keeps the payload, which is in no namespace, out of the envelope's."""


def new_parser() -> etree.XMLParser:
    """A parser that is as strict as the pump's."""
    return etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)


def plain_loop(raw: bytes, count: int) -> bytes:
    """The floor of an engineer who knows lxml; see the module."""
    parser, schema, payload_schema = new_parser(), envelope_schema(), codec_of(Ping).schema
    answer = b""
    for _ in range(count):
        root = etree.fromstring(raw, parser)
        etree.tostring(root, method="c14n", exclusive=True, with_comments=False)
        schema.assertValid(root)
        meta: Any = root.find(META)
        sender, receiver, thread = meta.findtext(FROM), meta.findtext(TO), meta.findtext(THREAD)
        element = root[1]
        payload_schema.assertValid(element)
        ping = parse_element(Ping, element)
        answer = built(Pong(ping.text, ping.n), receiver, sender, thread)
    return answer


def reparsing_loop(raw: bytes, count: int) -> bytes:
    """`plain_loop`, with the canonical bytes parsed again."""
    parser, schema, payload_schema = new_parser(), envelope_schema(), codec_of(Ping).schema
    answer = b""
    for _ in range(count):
        root = etree.fromstring(raw, parser)
        root = etree.fromstring(etree.tostring(root, method="c14n", exclusive=True, with_comments=False), parser)
        schema.assertValid(root)
        meta: Any = root.find(META)
        sender, receiver, thread = meta.findtext(FROM), meta.findtext(TO), meta.findtext(THREAD)
        element = root[1]
        payload_schema.assertValid(element)
        ping = parse_element(Ping, element)
        answer = built(Pong(ping.text, ping.n), receiver, sender, thread)
    return answer


def lean_loop(raw: bytes, count: int) -> bytes:
    """The same obligations on lxml trees, each in lxml's cheapest way."""
    parser, schema, payload_schema = new_parser(), envelope_schema(), codec_of(Ping).schema
    decode = codec_of(Ping).decode
    answer = b""
    for _ in range(count):
        root = etree.fromstring(raw, parser)
        etree.tostring(root, method="c14n", exclusive=True, with_comments=False)
        if not schema.validate(root):
            raise ValueError("the envelope is not valid")
        meta, element = root
        sender, receiver, thread = (child.text for child in meta)
        if not payload_schema.validate(element):
            raise ValueError("the payload is not valid")
        ping = decode(element)
        pong = Pong(ping.text, ping.n)
        message = _envelope(receiver, sender, thread)
        payload = etree.SubElement(message, "Pong")
        etree.SubElement(payload, "Text").text = pong.text
        etree.SubElement(payload, "N").text = str(pong.n)
        answer = etree.tostring(message)
    return answer


def tuned_loop(raw: bytes, count: int) -> bytes:
    """The same obligations with the pump's own functions."""
    schema, payload_schema = envelope_schema(), codec_of(Ping).schema
    decode, encode = codec_of(Ping).decode, codec_of(Pong).encode_payload
    answer = b""
    for _ in range(count):
        root = parse_strict(raw)
        wire = canonical_bytes(root)
        if wire != raw:
            raise ValueError("the message is not canonical")
        if not schema.validate(root):
            raise ValueError("the envelope is not valid")
        sender, receiver, thread = read_meta(root, wire)
        element = extract_payload(root)
        if element is None or not payload_schema.validate(element):
            raise ValueError("the payload is not valid")
        ping = decode(element)
        answer = message_text(encode(Pong(ping.text, ping.n)), receiver or "", sender, thread)
    return answer


def built(payload: Pong, sender: Any, receiver: Any, thread: Any) -> bytes:
    """An envelope with a payload, as a tree around the tree that the codec makes, serialised."""
    message = _envelope(sender, receiver, thread)
    message.append(payload.xml_value().getroot())  # type: ignore[attr-defined]
    return etree.tostring(message)


def _envelope(sender: Any, receiver: Any, thread: Any) -> etree._Element:
    message = etree.Element(MESSAGE, nsmap=PREFIX)
    meta = etree.SubElement(message, META)
    etree.SubElement(meta, FROM).text = sender
    etree.SubElement(meta, TO).text = receiver
    etree.SubElement(meta, THREAD).text = thread
    return message


def _timed(loop: Loop, envelope_bytes: int, size: Size) -> Callable[[], Sample]:
    text = text_for(envelope_bytes)
    raw, thread = envelope_of(Ping(text, FIRST), "a")
    expected, _ = envelope_of(Pong(text, FIRST), "external", "a", thread)

    def measure() -> Sample:
        loop(raw, size.warm_up)
        watch = Stopwatch()
        answer = loop(raw, size.loops)
        sample = watch.sample(size.loops)
        if canonical_bytes(_in_default_namespace(answer)) != expected:
            raise AssertionError(f"a floor made a wrong answer: {answer!r}")
        return sample

    return measure


def _in_default_namespace(answer: bytes) -> etree._Element:
    """The answer's tree as the pump would write it: the prefix is a matter of taste, and canonical form keeps it."""
    text = answer.decode().replace("<e:", "<").replace("</e:", "</").replace("xmlns:e=", "xmlns=")
    if 'xmlns=""' not in text:
        text = text.replace("<Pong>", '<Pong xmlns="">')
    return parse_strict(text.encode())


def baselines(size: Size) -> Baselines:
    """The two floors that others are compared with, for both sizes of message."""
    return {
        "plain": _timed(plain_loop, SMALL, size),
        "tuned": _timed(tuned_loop, SMALL, size),
        "plain, large": _timed(plain_loop, LARGE, size),
        "tuned, large": _timed(tuned_loop, LARGE, size),
    }


def cases(size: Size) -> list[Case]:
    """All floors. That of a floor against itself shows how far the ratios of this run can be trusted."""
    loops = {
        "plain": plain_loop,
        "plain, reparsed": reparsing_loop,
        "plain, leanest trees": lean_loop,
        "tuned": tuned_loop,
    }
    small, large = {"floor": "plain", "tuned": "tuned"}, {"floor": "plain, large", "tuned": "tuned, large"}
    found = [Case("floor", f"{name}, 300 B", _timed(loop, SMALL, size), small) for name, loop in loops.items()]
    found += [Case("floor", f"{name}, 2 kB", _timed(loops[name], LARGE, size), large) for name in ("plain", "tuned")]
    return found
