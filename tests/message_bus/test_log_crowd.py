from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref

import pytest

from xml_pipeline.message_bus import log_crowd
from xml_pipeline.message_bus.log_crowd import LogCrowd

LOGGER = logging.getLogger("tests.crowd")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(log_crowd.time, "monotonic", lambda: now[0])
    return now


def crowd(**options):
    return LogCrowd(LOGGER, logging.WARNING, "and %d more", **options)


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_first_are_written_and_the_rest_counted(caplog, clock):
    many = crowd(most=3)
    for number in range(5000):
        many.log("line %d", number)
    assert lines(caplog) == ["line 0", "line 1", "line 2"]
    many.flush()
    many.flush()
    assert lines(caplog) == ["line 0", "line 1", "line 2", "and 4997 more"]
    assert all(record.name == "tests.crowd" and record.levelname == "WARNING" for record in caplog.records)


def test_few_are_written_as_they_are(caplog, clock):
    few = crowd(most=3)
    for number in range(3):
        few.log("line %d", number)
    few.flush()
    assert lines(caplog) == ["line 0", "line 1", "line 2"]
    assert caplog.records[0].funcName == "test_few_are_written_as_they_are"  # who logged, not the crowd


def test_later_ones_are_written_again_after_the_count_of_those_before(caplog, clock):
    many = crowd(most=1, period=5.0)
    for moment in (0.0, 1.0, 4.9, 5.0, 5.1):
        clock[0] = 100.0 + moment
        many.log("at %g", moment)
    many.flush()
    assert lines(caplog) == ["at 0", "and 2 more", "at 5", "and 1 more"]


async def test_the_count_is_written_when_no_further_line_comes(caplog):
    written = asyncio.Event()

    class Heard(logging.Handler):
        def emit(self, record):
            if record.getMessage() == "and 1 more":
                written.set()

    heard = Heard()
    LOGGER.addHandler(heard)
    try:
        crowd(most=0, period=0.01).log("counted")
        await written.wait()
    finally:
        LOGGER.removeHandler(heard)
    assert lines(caplog) == ["and 1 more"]


async def test_it_keeps_nothing_of_whoever_logged(clock):
    class Held:
        pass

    variable = contextvars.ContextVar("variable")
    many = crowd(most=0)

    def log(held):
        variable.set(held)
        many.log("counted")

    held = Held()
    reference = weakref.ref(held)
    context = contextvars.copy_context()
    context.run(log, held)
    assert many._timer is not None
    del held, context
    assert reference() is None
    many.flush()


def test_all_of_them_are_written_for_whoever_debugs(caplog, clock):
    caplog.set_level(logging.DEBUG, LOGGER.name)
    many = crowd(most=1)
    for number in range(4):
        many.log("line %d", number)
    assert [record.getMessage() for record in caplog.records] == [f"line {number}" for number in range(4)]
