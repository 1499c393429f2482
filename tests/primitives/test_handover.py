"""Objects that go along with a request inside of one process."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from xml_pipeline import StreamPump
from xml_pipeline.primitives.handover import Handovers, get_handovers
from xml_pipeline.runtime import use_runtime


def test_what_is_offered_can_be_claimed_once() -> None:
    handovers = Handovers()
    objects = [object(), object()]
    with handovers.offer(objects) as handover:
        assert len(handovers) == 1
        claimed = handovers.claim(handover.key)
        assert claimed is handover
        assert claimed.payloads is objects
        assert handovers.claim(handover.key) is None
        assert len(handovers) == 0
    assert handover.results == ()


def test_what_nobody_claims_is_gone_when_the_request_is_over() -> None:
    handovers = Handovers()
    with pytest.raises(RuntimeError, match="on purpose"), handovers.offer([1]) as handover:
        raise RuntimeError("on purpose")
    assert handovers.claim(handover.key) is None
    assert len(handovers) == 0


def test_keys_cannot_be_guessed_from_one_another() -> None:
    handovers, keys = Handovers(), set()
    for _ in range(100):
        with handovers.offer([]) as handover:
            keys.add(handover.key)
    assert len(keys) == 100
    assert {uuid.UUID(key).version for key in keys} == {4}  # random, by the definition of that version


@pytest.mark.parametrize("key", ["", "x", "5892f5e0-dbb7-4bbe-af67-f3aafdfab42b", "0" * 36])
def test_a_key_that_nobody_offered_gives_nothing(key: str) -> None:
    handovers = Handovers()
    with handovers.offer([1]):
        assert handovers.claim(key) is None
        assert len(handovers) == 1


async def test_offers_at_the_same_time_do_not_mix() -> None:
    handovers = Handovers()

    async def ask(number: int) -> None:
        with handovers.offer([number]) as handover:
            await asyncio.sleep(0)
            claimed = handovers.claim(handover.key)
            assert claimed is not None
            assert claimed.payloads == [number]

    await asyncio.gather(*(ask(number) for number in range(50)))
    assert len(handovers) == 0


def test_every_pump_has_its_own() -> None:
    one, two = StreamPump(), StreamPump()
    with use_runtime(one.runtime), get_handovers().offer([1]) as handover:
        with use_runtime(two.runtime):
            assert get_handovers().claim(handover.key) is None
        assert get_handovers() is one.runtime.get(Handovers)
        assert get_handovers().claim(handover.key) is handover
