"""Signals become calls on the event loop, whenever they come."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import sys
import threading
import time

import pytest

from xml_pipeline.cli.signals import StopSignals, Watchdog

LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(
        lambda: __import__("uvloop").new_event_loop(),
        id="uvloop",
        marks=pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"),
    ),
]


@pytest.fixture
def watchdog():
    watchdog = Watchdog(60, list, print)
    yield watchdog
    watchdog.cancel()


def in_a_thread_once_the_loop_waits(number):
    """Send a signal to a thread that does nothing else, as the kernel may; the main thread's wait goes on then."""
    main = threading.main_thread().ident

    def send():
        while sys._current_frames()[main].f_code.co_name not in ("select", "run_forever", "run_until_complete", "run"):
            time.sleep(0)
        signal.pthread_kill(threading.get_ident(), number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_does_not_interrupt_the_wait_ends_it_all_the_same(loop, number, watchdog):
    async def main():
        stopped = asyncio.get_running_loop().create_future()
        signals = StopSignals(stopped.set_result, watchdog)
        signals.install()
        try:
            for _ in range(20):
                await asyncio.sleep(0)  # nothing of the start is left: the loop will wait
            thread = in_a_thread_once_the_loop_waits(number)
            assert await stopped == number.name
            thread.join()
        finally:
            signals.restore()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("loop", LOOPS)
def test_what_was_there_before_is_there_again(loop, watchdog):
    def mine(number, frame):
        pass

    before = signal.signal(signal.SIGTERM, mine), signal.set_wakeup_fd(-1)
    try:

        async def main():
            ours = signal.set_wakeup_fd(-1)
            signal.set_wakeup_fd(ours)
            signals = StopSignals(print, watchdog)
            signals.install()
            assert signal.getsignal(signal.SIGTERM) == signals._on_stop
            signals.restore()
            assert signal.getsignal(signal.SIGTERM) is mine
            assert signal.set_wakeup_fd(ours) == ours

        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(main())
        assert signal.set_wakeup_fd(-1) == -1
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.set_wakeup_fd(before[1])


async def test_a_bell_that_somebody_hung_up_later_stays(watchdog):
    before = signal.set_wakeup_fd(-1)
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    try:
        signals = StopSignals(print, watchdog)
        signals.install()
        signal.set_wakeup_fd(writer.fileno())
        signals.restore()
        assert signal.set_wakeup_fd(-1) == writer.fileno()
    finally:
        signal.set_wakeup_fd(before)
        reader.close()
        writer.close()


def test_a_signal_after_the_loop_was_closed_is_remembered(watchdog):
    async def main():
        return StopSignals(print, watchdog)

    signals = asyncio.run(main())
    signals._on_hangup(signal.SIGHUP, None)
    assert not signals.is_told
    signals._on_stop(signal.SIGTERM, None)
    assert signals.is_told


async def test_a_watchdog_that_is_started_while_it_is_started_is_started_once(watchdog, monkeypatch):
    signals = StopSignals(print, watchdog)
    feed = watchdog.feed

    def interrupted():
        feed()
        if not signals.is_told:
            signals._on_stop(signal.SIGTERM, None)

    monkeypatch.setattr(watchdog, "feed", interrupted)
    watchdog.start()
    assert signals.is_told


async def test_a_signal_that_make_passes_on_is_not_a_second_one(monkeypatch, watchdog):
    stopped, ended, clock = [], [], [100.0]
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    signals = StopSignals(stopped.append, watchdog)
    monkeypatch.setenv("MAKELEVEL", "1")
    signals._on_stop(signal.SIGTERM, None)
    signals._on_stop(signal.SIGTERM, None)
    assert ended == []
    clock[0] += 1
    signals._on_stop(signal.SIGTERM, None)
    assert ended == [130]
    monkeypatch.delenv("MAKELEVEL")
    signals = StopSignals(stopped.append, watchdog)
    signals._on_stop(signal.SIGTERM, None)
    signals._on_stop(signal.SIGTERM, None)
    assert ended == [130, 130]
