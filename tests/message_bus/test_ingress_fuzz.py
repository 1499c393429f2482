"""The promise of the ingress: whatever bytes come in, each yields exactly one outcome, and none ends the loop."""

from __future__ import annotations

import asyncio
import random
import uuid

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from xml_pipeline.envelope import message_text
from xml_pipeline.errors import PipelineError
from xml_pipeline.message_bus.stream_pump import StreamPump

from .pump_kit import Ask, Reply, echo

INPUTS = examples(20_000)
BATCH = 500
THREAD = "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11"

REAL = [
    message_text('<Ask xmlns=""><Text>some text &amp; more</Text></Ask>', "external", "tool", THREAD),
    message_text(
        '<Ask xmlns=""><Text>1000000</Text></Ask><Ask xmlns=""><Text>2</Text></Ask>', "external", "tool", THREAD
    ),
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<m:message xmlns:m='https://xml-pipeline.org/ns/envelope/v1'><m:meta><m:from>external</m:from><m:to>tool</m:to>"
    b"<m:thread>" + THREAD.encode() + b"</m:thread><x:note xmlns:x='urn:x'>hi</x:note></m:meta>"
    b"<Ask><Text><![CDATA[a < b]]></Text><!-- comment --></Ask></m:message>",
    message_text('<Ask xmlns=""><Text>\u017c\u00f3\u0142\u0107 \U0001f600</Text></Ask>', "external", "tool", THREAD),
]
# fmt: off
PIECES = [
    b"<", b">", b"&", b'"', b"'", b"/", b"]]>", b"<!--", b"-->", b"<![CDATA[", b"<?x?>",
    b"<!DOCTYPE a [<!ENTITY b 'c'>]>",
    b"&b;", b"&#0;", b"&#xD800;", b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80",
    b"xmlns=''", b'xmlns=""',
    b"xmlns:a='b'", b"xsi:nil='true'", b"<Ask/>", b"</message>", b"<message>", b"system", b"tool", b"external",
    THREAD.encode(), b"<to>nobody</to>", b"<from>system</from>", b"a" * 5000, b"<a>" * 200, b"\r\n", b" ", b"",
]
# fmt: on


def mutated(rng: random.Random) -> bytes:
    """A real envelope with a few small things done to it, or noise."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(200))
    if rng.random() < 0.05:
        return b"".join(rng.choice(PIECES) for _ in range(rng.randrange(12)))
    raw = bytearray(rng.choice(REAL))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        start = rng.randrange(len(raw) + 1)
        end = min(len(raw), start + rng.choice((0, 1, 1, 2, 10, 60)))
        kind = rng.randrange(5)
        if kind == 0:
            raw[start:end] = b""
        elif kind == 1:
            raw[start:start] = rng.choice(PIECES)
        elif kind == 2:
            raw[start:end] = rng.choice(PIECES)
        elif kind == 3 and start < len(raw):
            raw[start] ^= 1 << rng.randrange(8)
        else:
            raw[start:start] = raw[rng.randrange(len(raw) + 1) :][:40]
    return bytes(raw)


class Ingress:
    """A pump, and what becomes of bytes given to it."""

    def __init__(self, **options):
        self.pump = StreamPump(thread_idle_ttl=600, max_threads=10, max_dead_letters=10, timeout=5)
        self.pump.register("tool", echo, Ask, **options)
        self.refused = 0
        self.admitted = 0

    async def offer(self, raw: bytes) -> None:
        try:
            await self.pump.inject(raw, None, "external")
        except PipelineError:
            self.refused += 1
        else:
            self.admitted += 1

    async def check(self, seed: int = 0) -> None:
        await self.pump.wait_idle()
        statistics = self.pump.statistics()
        state = (statistics.state, statistics.in_flight, sum(statistics.outcomes.values()))
        assert state == ("running", 0, statistics.accepted), f"seed {seed}"


async def test_mutated_envelopes_have_one_outcome_each():
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    ingresses = [Ingress(), Ingress(repair="lenient")]
    for ingress in ingresses:
        await ingress.pump.__aenter__()
    try:
        for number in range(INPUTS // BATCH):
            ingress = ingresses[number % 5 == 0]  # every fifth batch to the one that repairs
            for _ in range(BATCH):
                await ingress.offer(mutated(rng))
            await ingress.check(seed)
        for ingress in ingresses:
            assert await ingress.pump.request("tool", Ask("still there")) == Reply("still there"), f"seed {seed}"
        strict = ingresses[0].pump.statistics()
    finally:
        for ingress in ingresses:
            await ingress.pump.shutdown(5)
    assert sum(ingress.admitted + ingress.refused for ingress in ingresses) == INPUTS
    # Were none handled, or none refused, this would test nothing.
    assert strict.outcomes["answered"] > INPUTS // 100
    assert strict.outcomes["dead-lettered"] > INPUTS // 100
    assert ingresses[0].refused > INPUTS // 100


@settings(max_examples=examples(80), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(max_size=300) | st.text(max_size=100).map(str.encode), min_size=5, max_size=20))
def test_arbitrary_bytes_have_one_outcome_each(inputs):
    async def feed():
        ingress = Ingress()
        async with ingress.pump:
            for raw in inputs:
                await ingress.offer(raw)
            await ingress.check()
            assert await ingress.pump.request("tool", Ask("x")) == Reply("x")

    asyncio.run(feed())


@settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.text(max_size=20),
            st.text(max_size=20),
            st.one_of(st.none(), st.text(max_size=40), st.uuids(version=4).map(str)),
        ),
        min_size=5,
        max_size=15,
    )
)
def test_arbitrary_names_and_ids_have_one_outcome_each(cases):
    async def feed():
        ingress = Ingress()
        async with ingress.pump:
            for sender, target, thread in cases:
                for verb in (ingress.pump.inject, ingress.pump.inject_nowait):
                    try:
                        await verb(target, Ask("x"), from_id=sender, thread_id=thread)
                    except PipelineError:
                        ingress.refused += 1
            await ingress.check()

    asyncio.run(feed())


async def _handled_after_cutting(raw: bytes, **options):
    handled = []

    async def note(payload, metadata):
        handled.append(payload)

    pump = StreamPump(max_dead_letters=10)
    pump.register("tool", note, Ask, **options)
    async with pump:
        for end in range(len(raw)):
            try:
                await pump.inject(raw[:end].replace(THREAD.encode(), str(uuid.uuid4()).encode()), None, "external")
            except PipelineError:
                continue
        await pump.wait_idle()
        cut = list(handled)
        await pump.inject(raw, None, "external")
        await pump.wait_idle()
    return cut, handled[len(cut) :]


async def test_an_envelope_cut_at_any_byte_never_reaches_a_handler():
    for raw in REAL:
        cut, whole = await _handled_after_cutting(raw)
        assert cut == []
        assert whole


async def test_nor_does_it_where_envelopes_are_repaired():
    for raw in REAL:
        cut, whole = await _handled_after_cutting(raw, repair="lenient")
        assert cut == []
        assert whole
