"""aiostream's operators for pipelines of messages.

What flows through the pump's pipeline are small batches of messages, because a pass through aiostream costs about the
same for one message as for sixty-four. The names here are aiostream's, and a function given to them sees one message::

    from xml_pipeline.message_bus.operators import pipe, stream

    class MyPump(StreamPump):
        def build_pipeline(self, source):
            return super().build_pipeline(source | pipe.action(lambda state: log(state.message_id)))

Differences from aiostream, all of which follow from "every message has exactly one outcome":

* an exception in a function is that message's outcome; the stream goes on;
* a message that `filter` drops ends as cancelled, and whoever waits for it is told;
* messages that have failed already pass by: functions see them only in `partition`;
* async functions run concurrently, at most ``task_limit``, and keep the order of messages on one frame.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeAlias, cast

import aiostream
from aiostream import pipable_operator, streamcontext

from xml_pipeline.errors import ConversationCancelled, DeadlineExceeded, HandlerError
from xml_pipeline.message_bus.message_state import MessageState, Origin
from xml_pipeline.message_bus.reception import Reception
from xml_pipeline.message_bus.scheduler import MAX_BATCH, Scheduler
from xml_pipeline.message_bus.sources import Sources
from xml_pipeline.message_bus.steps.fan_out import extract_payloads
from xml_pipeline.message_bus.steps.step import checked, lift, record_failure
from xml_pipeline.runtime import current_runtime

__all__ = ["BatchStream", "map_batches", "pipe", "stream"]

Batch: TypeAlias = list[MessageState]
BatchStream: TypeAlias = AsyncIterable[Batch]
Piped: TypeAlias = Callable[[BatchStream], Any]
Function: TypeAlias = Callable[[MessageState], Any]
Expansion: TypeAlias = Callable[[MessageState], MessageState | Iterable[MessageState]]


# -- per-message functions over batches -----------------------------------------------------------------------------


def _is_async(function: Function) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def map_batches(source: BatchStream, function: Callable[[Batch], Batch]) -> Any:
    """A synchronous stage over whole batches.

    A run of such stages becomes one aiostream operator that calls them one after another: the same stages in the same
    order, without a resumption of an async generator between each two, which is a fifth of the time of a message that
    travels alone.
    """
    origin, functions = getattr(source, "fused_stages", (source, ()))
    functions = (*functions, function)
    stages = _map_sync(origin, _in_sequence(functions))
    stages.fused_stages = (origin, functions)  # type: ignore[attr-defined]
    return stages


@pipable_operator
async def _map_sync(source: BatchStream, function: Callable[[Batch], Batch]) -> AsyncIterator[Batch]:
    # aiostream's own map is made for several sources, and resumes two generators more for each batch.
    async with streamcontext(source) as streamer:
        async for batch in streamer:
            done = function(batch)
            del batch  # or what was in it would be kept until the next one comes
            yield done
            del done


def _in_sequence(functions: tuple[Callable[[Batch], Batch], ...]) -> Callable[[Batch], Batch]:
    # Stage by stage, not message by message: measured, that is 4 % quicker, since a stage's code stays in the cache.
    def run(batch: Batch) -> Batch:
        for function in functions:
            batch = function(batch)
        return batch

    return run


@pipable_operator
async def _map_async(
    source: BatchStream, function: Callable[[MessageState], Awaitable[MessageState]], task_limit: int
) -> AsyncIterator[Batch]:
    """Run an async function on messages concurrently; messages of one frame one after another."""
    if task_limit < 1:
        raise ValueError(f"task_limit must be at least 1, not {task_limit}")
    done: Batch = []
    tails: dict[int, asyncio.Task[None]] = {}
    slots = asyncio.Semaphore(task_limit)
    changed = asyncio.Event()

    async def one(state: MessageState, before: asyncio.Task[None] | None, key: int) -> None:
        if before is not None:
            await asyncio.wait((before,))
        result = state
        async with slots:
            try:
                async with asyncio.timeout_at(state.deadline or None):
                    result = checked(await function(state), state, function)
            except TimeoutError:
                state.fail(DeadlineExceeded("the message ran past its deadline in the pipeline", step="map"))
            except (Exception, asyncio.CancelledError) as exc:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise  # the pipeline is being closed
                if isinstance(exc, asyncio.CancelledError):
                    exc = HandlerError("the stage raised CancelledError")
                record_failure(state, exc, getattr(function, "__name__", "map"))
        done.append(result)
        if tails.get(key) is asyncio.current_task():
            del tails[key]
        changed.set()

    async def feed() -> None:
        async with streamcontext(source) as streamer:
            async for batch in streamer:
                for state in batch:
                    if state.error is not None:
                        done.append(state)
                        continue
                    key = id(state.frame) if state.frame is not None else id(state)
                    task = asyncio.create_task(one(state, tails.get(key), key))
                    tails[key] = task
                    running.add(task)
                    task.add_done_callback(running.discard)
                changed.set()
                while len(running) > 2 * task_limit:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)

    running: set[asyncio.Task[None]] = set()
    async for batch in _collect(feed(), running, done, changed):
        yield batch


async def _collect(
    feed: Coroutine[Any, Any, None], running: set[asyncio.Task[None]], done: Batch, changed: asyncio.Event
) -> AsyncIterator[Batch]:
    """Yield what gathers in ``done`` until the feeder has ended and nothing runs; leave no task behind."""
    feeder = asyncio.create_task(feed)
    feeder.add_done_callback(lambda _: changed.set())
    try:
        while True:
            if done:
                batch = done[:]
                done.clear()
                yield batch
            elif feeder.done() and not running:
                feeder.result()
                return
            else:
                changed.clear()
                await changed.wait()
    finally:
        for task in (feeder, *running):
            task.cancel()
        await asyncio.gather(feeder, *running, return_exceptions=True)


@pipable_operator
async def _spaceout(source: BatchStream, interval: float) -> AsyncIterator[Batch]:
    """Let external messages through one per interval; the others pass at once."""
    done: Batch = []
    held: deque[MessageState] = deque()
    changed = asyncio.Event()
    arrived = asyncio.Event()
    scheduler = current_runtime().get(Scheduler)

    async def feed() -> None:
        async with streamcontext(source) as streamer:
            async for batch in streamer:
                for state in batch:
                    if state.origin is not Origin.EXTERNAL or state.error is not None:
                        done.append(state)
                        continue
                    held.append(state)
                    scheduler.set_aside(state)
                arrived.set()
                changed.set()

    async def release() -> None:
        while True:
            while not held:
                arrived.clear()
                await arrived.wait()
            done.append(held.popleft())
            changed.set()
            await asyncio.sleep(interval)

    releasing = asyncio.create_task(release())
    try:
        async for batch in _collect(feed(), set(), done, changed):
            yield batch
        while held:  # the source has ended; what is held still goes out in its time
            await changed.wait()
            changed.clear()
            batch = done[:]
            done.clear()
            yield batch
        if done:
            yield done
    finally:
        releasing.cancel()
        await asyncio.gather(releasing, return_exceptions=True)


@pipable_operator
async def _merge(source: BatchStream, *others: AsyncIterable[Any], from_id: str = "external") -> AsyncIterator[Batch]:
    """The source's batches; the others' items enter through admission, like everything from outside."""
    sources = current_runtime().get(Sources)
    names = [sources.add(other, from_id=from_id) for other in others]
    try:
        async with streamcontext(source) as streamer:
            async for batch in streamer:
                yield batch
    finally:
        for name in names:
            sources.cancel(name)


class _Split:
    """One source read by two branches, each message going to one of them."""

    def __init__(self, source: BatchStream, predicate: Callable[[MessageState], bool]) -> None:
        self._source = source
        self._predicate = predicate
        self._queues: tuple[deque[Batch], deque[Batch]] = (deque(), deque())
        self._lock = asyncio.Lock()
        self._streamer: Any = None
        self._ended = False
        self._branches = 2

    async def branch(self, side: int) -> AsyncIterator[Batch]:
        queue = self._queues[side]
        try:
            while True:
                if queue:
                    yield queue.popleft()
                    continue
                async with self._lock:
                    if not queue and not await self._read():
                        break
        finally:
            self._branches -= 1
            if not self._branches and self._streamer is not None:
                await self._streamer.__aexit__(None, None, None)

    async def _read(self) -> bool:
        if self._ended:
            return False
        if self._streamer is None:
            self._streamer = streamcontext(self._source)
            await self._streamer.__aenter__()
        try:
            batch: Batch = await anext(self._streamer)
        except StopAsyncIteration:
            self._ended = True
            return False
        matching: Batch = []
        rest: Batch = []
        for state in batch:
            (matching if self._holds(state) else rest).append(state)
        if matching:
            self._queues[0].append(matching)
        if rest:
            self._queues[1].append(rest)
        return True

    def _holds(self, state: MessageState) -> bool:
        try:
            return bool(self._predicate(state))
        except Exception as exc:
            record_failure(state, exc, "partition")
            return False


def expansion(function: Expansion) -> Callable[[Batch], Batch]:
    """A function from one message to several, over a batch."""
    name = getattr(function, "__name__", "flatmap")

    def expand(batch: Batch) -> Batch:
        expanded: Batch = []
        for state in batch:
            if state.error is not None:
                expanded.append(state)
                continue
            try:
                result = function(state)
                if result is state:
                    expanded.append(state)
                    continue
                expanded.extend(_verified(result, state, function))
            except (Exception, asyncio.CancelledError, GeneratorExit, SystemExit) as exc:
                record_failure(state, exc, name)
                expanded.append(state)
        return expanded

    return expand


def _verified(result: Any, state: MessageState, function: Expansion) -> Batch:
    """What a function gave for a message: the message itself or a copy of it, once, and others made by ``split``."""
    results = [result] if isinstance(result, MessageState) else list(result)
    itself = 0
    for each in results:
        if not isinstance(each, MessageState) or each.number in (0, state.number):
            itself += 1
            checked(each, state, function)
    if itself > 1 or len({id(each) for each in results}) < len(results):
        raise HandlerError("a stage returned the same message twice; make further ones with pump.split(message)")
    if not itself:
        state.fail(ConversationCancelled("the message was dropped from the pipeline", step="flatmap"))
        results.append(state)
    return results


def _own_stage(source: BatchStream, function: Any) -> Any:
    """The pump's own stage that a bound method of it stands for, if it is one of `StreamPump.own_stages`."""
    pump = getattr(function, "__self__", None)
    stage = getattr(pump, "own_stages", {}).get(getattr(function, "__name__", ""))
    return None if stage is None else stage(pump)(source)


# -- the two namespaces ---------------------------------------------------------------------------------------------


class stream:  # noqa: N801, aiostream's name
    """Operators as functions of a stream: ``stream.map(source, function)``."""

    @staticmethod
    def map(source: BatchStream, function: Function, task_limit: int = MAX_BATCH) -> Any:
        """Replace each message by what a function, plain or async, returns for it.

        Args:
            source: a stream of batches.
            function: takes a message and returns it, changed or not.
            task_limit: for an async function: how many run at once.
        """
        own = _own_stage(source, function)
        if own is not None:
            return own
        function = getattr(function, "plain", function)
        if _is_async(function):
            return _map_async(source, function, task_limit)
        return map_batches(source, lift(function))

    @staticmethod
    def action(source: BatchStream, function: Function, task_limit: int = MAX_BATCH) -> Any:
        """Call a function, plain or async, for each message, and pass the message on."""
        own = _own_stage(source, function)
        if own is not None:
            return own
        if _is_async(function):

            async def act_async(state: MessageState) -> MessageState:
                await function(state)
                return state

            return _map_async(source, act_async, task_limit)

        def act(state: MessageState) -> MessageState:
            function(state)
            return state

        return map_batches(source, lift(act))

    @staticmethod
    def filter(source: BatchStream, predicate: Callable[[MessageState], bool]) -> Any:
        """Pass on messages for which a predicate holds; the others end as cancelled."""

        def check(state: MessageState) -> MessageState:
            if not predicate(state):
                raise ConversationCancelled("the message was filtered out of the pipeline", step="filter")
            return state

        return map_batches(source, lift(check))

    @staticmethod
    def iterate(source: Any) -> Any:
        """A stream of a source: the pump's own is one already, and is returned as it is."""
        return source if isinstance(source, aiostream.core.BaseStream) else aiostream.stream.iterate(source)

    @staticmethod
    def flatmap(source: BatchStream, function: Expansion, task_limit: int | None = None) -> Any:
        """Replace each message by those that a plain function returns for it: itself, or a list of itself and of others
        made by ``pump.split(state)``, which counts them in.

        Args:
            source: a stream of batches.
            function: takes a message. Two of the documented names are known too, and stand for the pump's own stages:
                ``extract_payloads`` and ``pump._dispatch_to_handlers``.
            task_limit: only for the latter, and without effect: the pump's limits hold.
        """
        own = _own_stage(source, function)
        if own is not None:
            return own
        if function == cast("Any", extract_payloads):
            function = current_runtime().get(Reception).fan_out
        elif inspect.isasyncgenfunction(function) or _is_async(function):
            raise TypeError("flatmap takes a plain function; a stage that must await is a map")
        return map_batches(source, expansion(function))

    @staticmethod
    def timeout(source: BatchStream, seconds: float) -> Any:
        """Give each message a time, from here to the end of its handler; past it, it fails with ``timeout``.

        Unlike aiostream's operator it concerns each message, never an idle stream.
        """

        def limit(state: MessageState) -> MessageState:
            deadline = asyncio.get_running_loop().time() + seconds
            state.deadline = min(state.deadline, deadline) if state.deadline else deadline
            return state

        return map_batches(source, lift(limit))

    @staticmethod
    def spaceout(source: BatchStream, interval: float) -> Any:
        """Let external messages through at most one per ``interval`` seconds; the pump's own pass at once."""
        return _spaceout(source, interval)

    @staticmethod
    def merge(source: BatchStream, *others: AsyncIterable[Any], from_id: str = "external") -> Any:
        """Take messages from other sources too: envelopes as bytes, or ``(target, payload)``. They are admitted like
        everything from outside, in the name of ``from_id``; one that fails is reported and the others go on."""
        return _merge(source, *others, from_id=from_id)

    @staticmethod
    def partition(source: BatchStream, predicate: Callable[[MessageState], bool]) -> tuple[Any, Any]:
        """Split a stream: messages for which the predicate holds, and the others. Consume both, e.g. join them again
        with `join`. The predicate also sees messages that have failed, to branch errors off."""
        split = _Split(source, predicate)
        return (
            aiostream.stream.iterate(split.branch(0)),
            aiostream.stream.iterate(split.branch(1)),
        )

    @staticmethod
    def join(*sources: BatchStream) -> Any:
        """One stream of what several branches of a pipeline yield, whichever is first."""
        return aiostream.stream.merge(*sources)


class pipe:  # noqa: N801, aiostream's name
    """The same operators for piping: ``source | pipe.map(function)``."""

    @staticmethod
    def map(function: Function, task_limit: int = MAX_BATCH) -> Piped:
        """See `stream.map`."""
        return lambda source: stream.map(source, function, task_limit)

    @staticmethod
    def action(function: Function, task_limit: int = MAX_BATCH) -> Piped:
        """See `stream.action`."""
        return lambda source: stream.action(source, function, task_limit)

    @staticmethod
    def filter(predicate: Callable[[MessageState], bool]) -> Piped:
        """See `stream.filter`."""
        return lambda source: stream.filter(source, predicate)

    @staticmethod
    def flatmap(function: Expansion, task_limit: int | None = None) -> Piped:
        """See `stream.flatmap`."""
        return lambda source: stream.flatmap(source, function, task_limit)

    @staticmethod
    def timeout(seconds: float) -> Piped:
        """See `stream.timeout`."""
        return lambda source: stream.timeout(source, seconds)

    @staticmethod
    def spaceout(interval: float) -> Piped:
        """See `stream.spaceout`."""
        return lambda source: stream.spaceout(source, interval)

    @staticmethod
    def merge(*others: AsyncIterable[Any], from_id: str = "external") -> Piped:
        """See `stream.merge`."""
        return lambda source: stream.merge(source, *others, from_id=from_id)

    @staticmethod
    def partition(predicate: Callable[[MessageState], bool], branch: Callable[[Any], Any]) -> Piped:
        """Lead messages for which the predicate holds through ``branch`` (a function from stream to stream), and join
        them with the others again."""

        def split(source: BatchStream) -> Any:
            matching, rest = stream.partition(source, predicate)
            return stream.join(branch(matching), rest)

        return split
