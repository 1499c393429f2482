"""The pool by itself; what it does for a pump is tested with the pump."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from xml_pipeline.message_bus.worker_pool import Worker, WorkerPool


class Looked(set):
    """A set that counts at how many of its members was looked."""

    looks = 0

    def __iter__(self):
        self.looks += len(self)
        return super().__iter__()


@pytest.fixture
def pool():
    pool = WorkerPool(10_000, None, None, None)
    pool.workers = Looked()
    return pool


def worker_in(pool, conversation=None):
    worker = Worker()
    worker.state = object()
    worker.turn = SimpleNamespace(frame=SimpleNamespace(conversation=conversation))
    pool.workers.add(worker)
    return worker


def leave(worker):
    worker.state = worker.turn = None


def test_a_pool_without_work_is_at_rest(pool):
    assert pool.is_at_rest
    worker = worker_in(pool)
    assert not pool.is_at_rest
    leave(worker)
    assert pool.is_at_rest
    assert not pool._seen_running


def test_one_that_took_work_later_is_seen(pool):
    first, second = worker_in(pool), worker_in(pool)
    leave(second)
    assert not pool.is_at_rest
    worker_in(pool)
    leave(first)
    assert not pool.is_at_rest


def test_one_that_was_given_up_does_not_count(pool):
    worker = worker_in(pool)
    assert not pool.is_at_rest
    pool.workers.discard(worker)
    assert pool.is_at_rest


@pytest.mark.parametrize("backwards", [False, True])
def test_asking_after_every_turn_looks_at_each_worker_a_few_times_only(pool, backwards):
    workers = [worker_in(pool) for _ in range(1000)]
    for worker in reversed(workers) if backwards else workers:
        assert not pool.is_at_rest
        leave(worker)
    assert pool.is_at_rest
    assert pool.workers.looks <= 3 * len(workers)


def test_who_works_for_a_conversation_is_found_with_one_look_for_all(pool):
    conversations = [object() for _ in range(500)]
    workers = {each: {worker_in(pool, each), worker_in(pool, each)} for each in conversations}
    idle = Worker()
    pool.workers.add(idle)
    assert set(pool.working_for(conversations[7])) == workers[conversations[7]]
    pool.workers.looks = 0
    with pool.sorted_by_conversation():
        assert all(set(pool.working_for(each)) == workers[each] for each in conversations)
        assert pool.working_for(object()) == []
    assert pool.workers.looks == len(pool.workers)
    for worker in workers[conversations[7]]:
        leave(worker)
    assert pool.working_for(conversations[7]) == []
