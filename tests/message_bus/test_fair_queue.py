"""`FairQueue` against a model: lists, searched from the front."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from xml_pipeline.message_bus.fair_queue import FairQueue

KEYS = st.sampled_from("abcd")


class Model:
    """Two lists of (key, items), the started keys' first. Slow and obvious."""

    def __init__(self, depth_first):
        self.depth_first = depth_first
        self.started, self.fresh = [], []

    def push(self, key, item, started):
        lines = self.fresh
        if self.depth_first and (started or key in [known for known, _ in self.started]):
            lines = self.started
            for line in [line for line in self.fresh if line[0] == key]:  # what came before stays before
                self.fresh.remove(line)
                self.started.append(line)
        for known, items in lines:
            if known == key:
                items.append(item)
                return
        lines.append((key, [item]))

    def pop(self):
        lines = self.started or self.fresh
        key, items = lines.pop(0)
        item = items.pop(0)
        if items:
            lines.insert(0 if self.depth_first else len(lines), (key, items))
        return item

    def discard(self, key, wanted):
        removed = []
        for lines in (self.started, self.fresh):
            for line in [line for line in lines if line[0] == key]:
                removed += [item for item in line[1] if wanted(item)]
                line[1][:] = [item for item in line[1] if not wanted(item)]
                if not line[1]:
                    lines.remove(line)
        return removed

    def __len__(self):
        return sum(len(items) for _, items in self.started + self.fresh)


class Comparison(RuleBasedStateMachine):
    @initialize(depth_first=st.booleans())
    def begin(self, depth_first):
        self.queue, self.model, self.number = FairQueue(depth_first), Model(depth_first), 0

    @rule(key=KEYS, started=st.booleans(), count=st.integers(1, 4))
    def push(self, key, started, count):
        for _ in range(count):
            self.number += 1
            self.queue.push(key, self.number, started)
            self.model.push(key, self.number, started)

    @precondition(lambda self: len(self.model))
    @rule(count=st.integers(1, 3))
    def pop(self, count):
        for _ in range(min(count, len(self.model))):
            assert self.queue.pop() == self.model.pop()

    @rule(key=KEYS, modulus=st.integers(1, 3))
    def discard(self, key, modulus):
        wanted = lambda item: item % modulus == 0  # noqa: E731 - short
        assert self.queue.discard(key, wanted) == self.model.discard(key, wanted)

    @rule()
    def drain(self):
        expected = [self.model.pop() for _ in range(len(self.model))]
        assert list(self.queue.drain()) == expected

    @invariant()
    def same_length(self):
        if hasattr(self, "queue"):
            assert len(self.queue) == len(self.model)


TestComparison = Comparison.TestCase


def test_keys_take_turns_when_breadth_first():
    queue = FairQueue()
    for key, item in [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2")]:
        queue.push(key, item)
    assert list(queue.drain()) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_started_keys_go_first_and_to_their_end_when_depth_first():
    queue = FairQueue(depth_first=True)
    for key, item, started in [("a", "a1", False), ("b", "b1", True), ("c", "c1", True), ("b", "b2", True)]:
        queue.push(key, item, started)
    assert list(queue.drain()) == ["b1", "b2", "c1", "a1"]


def test_a_key_that_starts_takes_what_it_had_before_along():
    queue = FairQueue(depth_first=True)
    for key, item, started in [("a", "a1", False), ("a", "a2", False), ("b", "b1", False), ("a", "a3", True)]:
        queue.push(key, item, started)
    queue.push("a", "a4", False)
    assert len(queue) == 5
    assert list(queue.drain()) == ["a1", "a2", "a3", "a4", "b1"]


def test_pop_of_an_empty_queue():
    with pytest.raises(IndexError):
        FairQueue().pop()
