"""Driving a handler: its coroutine runs inside the worker's task, in a context of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

__all__ = ["Announced", "Continued"]


class Continued:
    """The rest of a coroutine that has been started with ``context.run(coroutine.send, None)`` and was suspended.

    Awaiting it drives the coroutine on, each step inside ``context``: what a handler sets in a context variable is
    neither seen by, nor left to, the next handler of the same worker. The alternative, a task per call, costs several
    microseconds more; and unlike a step driven by another task, `asyncio.current_task` is the same throughout, which
    `asyncio.timeout` and task groups inside the handler rely on.

    Args:
        coroutine: anything with ``send`` and ``throw``, such as a coroutine or ``agen.__anext__()``.
        context: where it runs.
        awaited: what it yielded at its first suspension.
    """

    __slots__ = ("_awaited", "_context", "_coroutine", "is_closed")

    def __init__(self, coroutine: Any, context: Context, awaited: Any) -> None:
        self._coroutine = coroutine
        self._context = context
        self._awaited = awaited
        self.is_closed = False
        """It was closed from outside, as the event loop does with what is left when it ends; not by the handler."""

    def __await__(self) -> Generator[Any, Any, Any]:
        run = self._context.run
        coroutine = self._coroutine
        awaited = self._awaited
        while True:
            try:
                value = yield awaited
            except GeneratorExit:
                self.is_closed = True
                coroutine.close()
                raise
            except BaseException as exc:
                step, argument = coroutine.throw, exc
            else:
                step, argument = coroutine.send, value
            try:
                awaited = run(step, argument)
            except StopIteration as stop:
                return stop.value


class Announced:
    """A coroutine to be awaited; right before it suspends for the first time, somebody is told.

    Args:
        coroutine: what is awaited; it runs in the context of whoever awaits this.
        suspends: called once, unless it never suspends.
    """

    __slots__ = ("_coroutine", "_suspends")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], suspends: Callable[[], object]) -> None:
        self._coroutine = coroutine
        self._suspends = suspends

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine = self._coroutine
        step: Callable[[Any], Any] = coroutine.send
        argument: Any = None
        is_told = False
        while True:
            try:
                awaited = step(argument)
            except StopIteration as stop:
                return stop.value
            if not is_told:
                is_told = True
                self._suspends()
            try:
                step, argument = coroutine.send, (yield awaited)
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as exc:
                step, argument = coroutine.throw, exc
