"""A shutdown with many handlers that wait: in time that grows with their number only, and with few lines."""

from __future__ import annotations

import asyncio
import logging

import pytest

from xml_pipeline.message_bus.stream_pump import StreamPump

from .pump_kit import Ask
from .test_worker_pool import Looked

MANY = 300


@pytest.fixture
async def waiting():
    """A pump in which many handlers wait, and what they do when they are cancelled."""
    pump = StreamPump(max_queue=2 * MANY, max_queue_per_listener=2 * MANY, max_concurrent_handlers=2 * MANY)
    began, is_over = asyncio.Semaphore(0), asyncio.Event()

    async def wait(ask, metadata):
        began.release()
        while not is_over.is_set():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if ask.text != "stubborn":
                    raise

    pump.register("wait", wait, Ask, timeout=1000)

    async def begin(text):
        await pump.start()
        running = asyncio.create_task(pump.run())
        for _ in range(MANY):
            await pump.inject("wait", Ask(text))
        for _ in range(MANY):
            await began.acquire()
        return running

    yield pump, begin
    is_over.set()


async def test_each_worker_is_looked_at_a_few_times(waiting):
    pump, begin = waiting
    running = await begin("kind")
    pool = pump.engine.dispatcher.pool
    pool.workers = Looked(pool.workers)
    report = await pump.shutdown(0.0)
    await running
    assert report.cancelled == MANY
    assert report.outcomes["cancelled"] == MANY
    assert pool.workers.looks <= 20 * MANY


async def test_handlers_that_do_not_end_are_told_of_in_a_few_lines(waiting, monkeypatch, caplog):
    monkeypatch.setattr("xml_pipeline.message_bus.worker_pool.GRACE", 0.02)
    pump, begin = waiting
    running = await begin("stubborn")
    report = await pump.shutdown(0.0)
    await running
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert report.outcomes["cancelled"] == MANY
    assert pump.statistics().abandoned_handlers == MANY
    assert lines[0] == "handler of 'wait' ignored its cancellation and was abandoned (1 so far)"
    assert lines[-1] == f"and {MANY - 10} more handlers ignored their cancellation and were abandoned"
    assert len(lines) == 11
