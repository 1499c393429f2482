"""Waiting for several calls at once.

A handler that calls gets the answers one by one, each as a turn of its own on the same frame. A `Join` keeps the books
between these turns: which calls are to be made, which are open, and how each one ended::

    async def survey(payload, metadata):
        join = get_joins().of(metadata)
        if join is None:  # the first turn
            join = get_joins().open(metadata, max_parallel=5, timeout=60)
            join.add(HandlerResponse.call(Question(text), "expert") for text in payload.questions)
        else:
            join.take(payload, metadata)
        if not join.is_complete:
            return join.due()
        return HandlerResponse.respond(Summary([result.payload.text for result in join.results if result.ok]))

Every call ends in exactly one result: its first answer, or the `SystemError` that came in its place because it was
refused, failed, was cancelled, ran out of time, or ended without an answer. So a join always completes. It is built
from what every handler may use: the ``tag``, ``expect_answer`` and ``timeout`` of a call. Register its listener as an
agent, as a generic listener, or with ``joins=True``, so that answers of every class come to it. An agent's turns count
against ``max_turns`` also when they bring results; those of the other two do not, however many calls they join.

Time is only looked at where a result is taken in, and while a join is not complete, one of its calls is open or due;
each open call ends by the join's own deadline. So there is no need for a timer of the join's own.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from third_party.xmlable import codec_of
from xml_pipeline.errors import PipelineError
from xml_pipeline.message_bus.message_state import TIMEOUT_ERROR, HandlerResponse, SystemError
from xml_pipeline.message_bus.thread_registry import ThreadRegistry
from xml_pipeline.runtime import current_runtime

if TYPE_CHECKING:
    from xml_pipeline.message_bus.conversation import Frame
    from xml_pipeline.message_bus.message_state import HandlerMetadata

__all__ = ["Join", "JoinResult", "Joins", "get_joins"]

_NEVER: Final = float("inf")
_AT_ONCE: Final = sys.float_info.min
"""Seconds that a call has which is made when the time is over: its limit is now, and so it does not begin."""


@dataclass(frozen=True, slots=True)
class JoinResult:
    """How one call ended.

    Args:
        index: its place in the order in which calls were added, from 0.
        payload: its first answer; ``None`` if there was none.
        error: what came in place of an answer.
    """

    index: int
    payload: Any = None
    error: SystemError | None = None

    @property
    def ok(self) -> bool:
        """Whether it was answered."""
        return self.error is None

    def to_error(self, detail: str = "") -> PipelineError | None:
        """The exception for an in-process caller; ``None`` if it was answered."""
        return None if self.error is None else self.error.to_error(detail)


class Join:
    """Calls that one frame makes, and what became of them.

    Args:
        max_parallel: calls open at a time; the others wait for one to end.
        timeout: seconds for all of them, from now on; 0 for no limit. Open calls are cancelled then, the others do not
            begin; each has the error ``timeout``.
        call_timeout: seconds for each call, from when it is made; 0 for no limit.
        name: tells the joins of one frame apart; part of the calls' tags.
        serial: tells joins of one name apart that a frame has one after another; part of the calls' tags.
        clock: seconds, as event loops count them; default: the running loop's.

    Raises:
        ValueError: a number is out of range.
    """

    __slots__ = (
        "_clock",
        "_ends_at",
        "_open",
        "_prefix",
        "_waiting",
        "call_timeout",
        "causes",
        "max_parallel",
        "results",
        "serial",
    )

    def __init__(
        self,
        *,
        max_parallel: int = 10,
        timeout: float = 0.0,
        call_timeout: float = 0.0,
        name: str = "join",
        serial: int = 0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if isinstance(max_parallel, bool) or not isinstance(max_parallel, int) or max_parallel < 1:
            raise ValueError(f"max_parallel must be a whole number above 0, not {max_parallel!r}")
        _check_seconds("timeout", timeout)
        _check_seconds("call_timeout", call_timeout)
        self._clock = clock or asyncio.get_running_loop().time
        self._ends_at = self._clock() + timeout if timeout else _NEVER
        self._prefix = f"{name}:{serial}:"
        self._waiting: deque[tuple[int, HandlerResponse]] = deque()
        self._open: dict[str, int] = {}
        self.serial = serial
        self.max_parallel = max_parallel
        self.call_timeout = call_timeout
        self.results: list[JoinResult | None] = []
        """In the order of the calls; ``None`` for one that has not ended."""
        self.causes: dict[int, PipelineError] | None = None
        """What the errors came of, by index, if it is kept: see `Joins.note`."""

    # -- calls --------------------------------------------------------------------------------------------------

    def add(self, calls: HandlerResponse | Iterable[HandlerResponse]) -> None:
        """Add one or several calls to be made. Return what `due` gives to make them.

        Args:
            calls: as `HandlerResponse.call` makes them; tag and ``expect_answer`` are set here, and a timeout if it is
                the earlier one. A call to a broadcast group ends with the first member's answer or error.

        Raises:
            TypeError: one of them is no call. Those before it were added.
            ValueError: the timeout of one of them is out of range. Those before it were added.
        """
        for call in (calls,) if isinstance(calls, HandlerResponse) else calls:
            _check_call(call)
            self._waiting.append((len(self.results), call))
            self.results.append(None)

    def due(self) -> list[HandlerResponse]:
        """The calls that are to be made now, for the handler to return. Each is given once.

        There is at least one if none is open and the join is not complete.
        """
        calls: list[HandlerResponse] = []
        if not self._waiting:
            return calls
        limit = self.call_timeout or _NEVER
        if self._ends_at < _NEVER:
            limit = min(limit, max(self._ends_at - self._clock(), _AT_ONCE))
        while self._waiting and len(self._open) < self.max_parallel:
            index, call = self._waiting.popleft()
            tag = f"{self._prefix}{index}"
            self._open[tag] = index
            calls.append(_made(call, tag, limit))
        return calls

    def _give_up(self) -> None:
        while self._waiting:
            index, _ = self._waiting.popleft()
            self.results[index] = JoinResult(index, error=TIMEOUT_ERROR)

    # -- results ------------------------------------------------------------------------------------------------

    def take(self, payload: Any, metadata: HandlerMetadata) -> JoinResult | None:
        """Take a turn's message in.

        Returns:
            The result of the call that it ended; ``None`` if it belongs to none, or to one that has ended already:
            of several answers to one call the first counts.
        """
        index = self._open.pop(metadata.tag, None)
        if index is None:
            return None
        error = _error_in(payload) if metadata.from_id == "system" else None
        result = self.results[index] = JoinResult(index, None if error else payload, error)
        if self._waiting and self._clock() >= self._ends_at:
            self._give_up()
        return result

    def expects(self, tag: str) -> bool:
        """Whether an answer with this tag would end one of its calls."""
        return tag in self._open

    def note(self, tag: str, failure: PipelineError) -> None:
        """Keep what the error of an open call came of, if that is kept; of several the first, as with results."""
        index = self._open.get(tag)
        if index is not None and self.causes is not None and index not in self.causes:
            self.causes[index] = failure.bare()

    @property
    def is_complete(self) -> bool:
        """Whether every call that was added has ended."""
        return not self._open and not self._waiting

    @property
    def open_calls(self) -> int:
        """Calls that have been made and not ended."""
        return len(self._open)

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[JoinResult]:
        """The results there are, in the order of the calls."""
        return (result for result in self.results if result is not None)

    def __repr__(self) -> str:
        ended = len(self) - len(self._open) - len(self._waiting)
        return f"<Join {self._prefix} {ended}/{len(self)} ended, {len(self._open)} open>"


def _check_seconds(what: str, seconds: object) -> None:
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= sys.float_info.max:  # type: ignore[operator]  # it is a number
        raise ValueError(f"{what} must be a number of seconds, 0 for no limit, not {seconds!r:.40}")


def _check_call(call: object) -> None:
    if not isinstance(call, HandlerResponse):
        raise TypeError(f"a join makes calls, as HandlerResponse.call does, not of a {type(call).__name__}")
    if call.is_delegation or call.is_response:
        raise TypeError("a join makes calls, as HandlerResponse.call does; it neither answers nor delegates")
    if call.timeout:
        _check_seconds("the timeout of a call", call.timeout)


def _made(call: HandlerResponse, tag: str, limit: float) -> HandlerResponse:
    """A copy, to be made: the same one may have been added more than once."""
    if call.timeout:
        limit = min(limit, call.timeout)
    return HandlerResponse.call(
        call.payload,
        call.to,  # type: ignore[arg-type]  # None is for a group, as in any call
        tag=tag,
        expect_answer=True,
        as_caller=call.as_caller,
        timeout=limit if limit < _NEVER else 0.0,
    )


def _error_in(payload: Any) -> SystemError | None:
    if isinstance(payload, SystemError):
        return payload
    if getattr(payload, "tag", None) == "SystemError":  # a generic listener is given elements
        return codec_of(SystemError).decode(payload)
    return None


class Joins:
    """The joins of one pump, by frame. A frame's joins are forgotten when it closes.

    Args:
        registry: knows the frames.
    """

    def __init__(self, registry: ThreadRegistry | None = None) -> None:
        self._registry = registry or current_runtime().get(ThreadRegistry)
        self._joins: dict[str, dict[str, Join]] = {}

    def open(self, metadata: HandlerMetadata, *, name: str = "join", **options: Any) -> Join:
        """Begin a join on the frame of the running turn.

        Args:
            metadata: as the handler was given it.
            name: for a frame that has several joins; `of` finds it by this name.
            **options: see `Join`.

        Raises:
            KeyError: the frame is not open.
            ValueError: the frame has an unfinished join of this name, or a number is out of range.
        """
        thread_id = metadata.thread_id
        known = self._joins.get(thread_id)
        if known is not None and name in known and not known[name].is_complete:
            raise ValueError(f"thread {thread_id!r} has an unfinished join {name!r}")
        serial = known[name].serial + 1 if known is not None and name in known else 0
        join = Join(name=name, serial=serial, **options)  # late answers to the one before must not be taken for its own
        if known is None:
            self._registry.on_close(thread_id, lambda: self._joins.pop(thread_id, None))
            known = self._joins[thread_id] = {}
        known[name] = join
        return join

    def of(self, metadata: HandlerMetadata, name: str = "join") -> Join | None:
        """The join of the running turn's frame; ``None`` if it has none of this name."""
        known = self._joins.get(metadata.thread_id)
        return None if known is None else known.get(name)

    def expects(self, thread_id: str, tag: str) -> bool:
        """Whether an answer or error with this tag would end a call of one of the frame's joins."""
        return any(join.expects(tag) for join in self._joins.get(thread_id, {}).values())

    def note(self, frame: Frame, tag: str, failure: PipelineError) -> None:
        """A frame is about to be told of a failure. What it is told does not say what happened.

        That is kept for joins of the pump's own listeners, and only where one asked for it by setting `Join.causes`, on
        behalf of a program that may know. A handler of somebody's learns no more than the error that it gets.

        Args:
            frame: what is told.
            tag: of the call that failed.
            failure: what happened.
        """
        joins = self._joins.get(frame.id)
        if joins is not None and frame.listener is not None and frame.listener.is_system:
            for join in joins.values():
                join.note(tag, failure)

    def __len__(self) -> int:
        """Frames that have joins."""
        return len(self._joins)


def get_joins() -> Joins:
    """The joins of the current pump."""
    return current_runtime().get(Joins)
