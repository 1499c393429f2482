"""One listener, many items: they are sent to it in parallel, and their results come back in the items' order.

A `BufferStart` to ``system.buffer`` opens a frame, and each item is a call below it, made on behalf of the requester:
the target must be among the requester's peers, too. When every item has ended, the requester gets `BufferComplete`
with one result per item: its answer, or the error that came in its place. With ``collect: false`` nobody waits: the
requester gets `BufferDispatched` at once. One request may have up to ``max_fan_out`` items.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from third_party.xmlable import xmlify
from xml_pipeline.errors import HandlerError, PipelineError, RoutingError, ValidationError
from xml_pipeline.message_bus.directory import get_directory
from xml_pipeline.message_bus.join import Join, JoinResult, get_joins
from xml_pipeline.message_bus.message_state import ROUTING_ERROR, HandlerMetadata, HandlerResponse, SystemError
from xml_pipeline.message_bus.thread_registry import get_registry
from xml_pipeline.primitives.buffer_registry import (
    BufferItemResult,
    BufferRegistry,
    BufferState,
    get_buffer_registry,
    reset_buffer_registry,
)
from xml_pipeline.primitives.failures import BufferError, failure_in
from xml_pipeline.primitives.fragments import check_size, parse_payloads, payload_text
from xml_pipeline.primitives.handover import get_handovers

__all__ = [
    "BufferComplete",
    "BufferDispatched",
    "BufferError",
    "BufferItemResult",
    "BufferRegistry",
    "BufferStart",
    "BufferState",
    "get_buffer_registry",
    "handle_buffer_start",
    "reset_buffer_registry",
]

logger = logging.getLogger(__name__)

_JOIN: Final = "buffer"
_INVALID: Final = ValidationError.code
_SHOWN: Final = 200
"""Characters of what the requester wrote, in an error."""


@xmlify
@dataclass(frozen=True, slots=True)
class BufferStart:
    """Send items to a listener in parallel.

    Args:
        target: the listener's name.
        items: XML text: one element per item, in any layout.
        collect: wait for the results; otherwise the items are sent, and that is all.
        return_to: empty, or the requester's own name: the answer goes to whoever asked.
        buffer_id: comes back in the answer; made up when empty.
        max_parallel: items under way at a time; without ``collect`` all are sent at once.
        timeout: seconds for all items together; what has not ended then has the error ``timeout``. 0 for no limit.
        item_timeout: seconds for each item, from when it is sent; 0 for no limit but the listener's own.
    """

    target: str = ""
    items: str = ""
    collect: bool = True
    return_to: str = ""
    buffer_id: str = ""
    max_parallel: int = 10
    timeout: float = 0.0
    item_timeout: float = 30.0


@xmlify
@dataclass(frozen=True, slots=True)
class BufferComplete:
    """Every item has ended.

    Args:
        buffer_id: as it was asked for.
        total: how many items there were.
        successful: how many of them were answered.
        results: XML text: ``<results>`` with an ``<item index="0" success="true">`` for each item, in their order. An
            item holds its answer, or the ``SystemError`` that came in its place.
    """

    buffer_id: str = ""
    total: int = 0
    successful: int = 0
    results: str = ""


@xmlify
@dataclass(frozen=True, slots=True)
class BufferDispatched:
    """The items were sent; their results are not collected.

    Args:
        buffer_id: as it was asked for.
        total: how many items there were.
    """

    buffer_id: str = ""
    total: int = 0


async def handle_buffer_start(
    payload: Any, metadata: HandlerMetadata
) -> HandlerResponse | list[HandlerResponse] | None:
    """Begin a buffer with a `BufferStart`; every later turn of the frame brings an item's answer or error."""
    registry = get_buffer_registry()
    state = registry.get(metadata.thread_id)
    if state is not None:
        return _go_on(registry, state, payload, metadata)
    if not isinstance(payload, BufferStart):
        return None
    buffer_id = payload.buffer_id or metadata.thread_id[:8]
    try:
        return _begin(registry, payload, buffer_id, metadata)
    except _Refused as refusal:
        return HandlerResponse.respond(BufferError(buffer_id, str(refusal), refusal.code))


class _Refused(Exception):
    def __init__(self, error: str, code: str = _INVALID) -> None:
        super().__init__(error)
        self.code = code


def _begin(
    registry: BufferRegistry, start: BufferStart, buffer_id: str, metadata: HandlerMetadata
) -> list[HandlerResponse]:
    handover = get_handovers().claim(start.buffer_id) if start.buffer_id else None
    if start.return_to not in ("", metadata.from_id):
        raise _Refused("return_to must be empty or your own name: the answer goes to whoever asked")
    if get_directory().unknown([start.target]):
        error = f"Unknown target {start.target[:_SHOWN]!r}: it is not registered, or not among your peers"
        raise _Refused(error, ROUTING_ERROR.code)
    items = handover.payloads if handover is not None else _items(start)
    join = _join(start, items, metadata)
    if not start.collect:
        join.max_parallel = len(items)
        return [*join.due(), HandlerResponse.respond(BufferDispatched(buffer_id, len(items)))]
    key = metadata.thread_id
    state = registry.create(buffer_id, len(items), metadata.from_id, key, metadata.from_id, start.target, key=key)
    state.handover, state.join = handover, join
    if handover is not None:
        join.causes = handover.causes
    get_registry().on_close(key, lambda: registry.remove(key))
    return join.due()


def _items(start: BufferStart) -> Sequence[Any]:
    """The items of the text, all of them valid for the target."""
    try:
        items = parse_payloads(start.items, "items")
    except ValidationError as error:
        raise _Refused(f"the items: {error.detail}") from None
    if not items:
        raise _Refused("No items: give at least one element")
    check = get_directory().payload_check(start.target)
    for index, item in enumerate(items):
        try:
            check(item)
        except PipelineError as error:
            what = "is not accepted by the target" if isinstance(error, RoutingError) else "is not valid"
            raise _Refused(f"item {index}, <{item.tag[:_SHOWN]}>, {what}; no item was sent", error.code) from None
    return items


def _join(start: BufferStart, items: Sequence[Any], metadata: HandlerMetadata) -> Join:
    numbers = {"max_parallel": start.max_parallel, "timeout": start.timeout, "call_timeout": start.item_timeout}
    try:
        join = get_joins().open(metadata, name=_JOIN, **numbers)
    except ValueError as error:
        raise _Refused(str(error).replace("call_timeout", "item_timeout")) from None
    join.add(HandlerResponse(item, start.target, as_caller=True) for item in items)
    return join


def _go_on(
    registry: BufferRegistry, state: BufferState, payload: Any, metadata: HandlerMetadata
) -> HandlerResponse | list[HandlerResponse] | None:
    join = state.join
    result = None if join is None else join.take(payload, metadata)
    if join is None or result is None:
        return None  # a further answer to an item that was answered
    _record(registry, state, result)
    if not join.is_complete:
        return join.due()
    for late in join:
        _record(registry, state, late)  # what could not be sent in time
    return HandlerResponse.respond(_answer(state, join))


def _record(registry: BufferRegistry, state: BufferState, result: JoinResult) -> None:
    if result.index in state.results:
        return
    answer, error, failure = result.payload, result.error, failure_in(result.payload)
    if error is None and state.handover is None:
        answer, error = _text(answer)
    told = error.message if error is not None else failure.error if failure is not None else None
    registry.record_result(state.thread_id, result.index, answer if error is None else error, told is None, told)


def _text(answer: Any) -> tuple[str, SystemError | None]:
    """An answer as text. One that cannot be written, although it was read, must not take the others with it."""
    try:
        return payload_text(answer), None
    except Exception as exc:
        logger.warning("an answer of class %s cannot be written: %s", type(answer).__name__, exc)
        return "", SystemError.of(HandlerError())


def _answer(state: BufferState, join: Join) -> BufferComplete | BufferError:
    if state.handover is not None:
        state.handover.results = join.results
        return BufferComplete(state.buffer_id, state.total_items, state.successful_count)
    document = _format_buffer_results(state)
    answer = BufferComplete(state.buffer_id, state.total_items, state.successful_count, document)
    try:
        check_size(answer, state.return_to, answer.buffer_id, document)
    except ValidationError as error:
        ended = f"{state.successful_count} of {state.total_items} items were answered"
        text = f"{ended}, but the results are too large: {error.detail}; give fewer items at a time"
        return BufferError(state.buffer_id, text, error.code)
    return answer


def _format_buffer_results(state: BufferState) -> str:
    """The results document; ``missing`` stands for an item that has not ended."""
    parts = ["<results>"]
    for index, result in enumerate(state.get_ordered_results()):
        success = "true" if result is not None and result.success else "false"
        content = "missing" if result is None else _content(result.result)
        parts.append(f'<item index="{index}" success="{success}">{content}</item>')
    parts.append("</results>")
    return "".join(parts)


def _content(result: Any) -> str:
    return result if isinstance(result, str) else payload_text(result)
