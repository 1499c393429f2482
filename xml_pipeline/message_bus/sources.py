"""Streams of messages from elsewhere, merged into a pump through its door."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

from xml_pipeline.errors import PipelineError, PumpStopped
from xml_pipeline.message_bus.dead_letters import DeadLetters
from xml_pipeline.message_bus.events import EventHub, SourceEvent

if TYPE_CHECKING:
    from xml_pipeline.message_bus.ingress import Ingress

__all__ = ["Sources"]

logger = logging.getLogger(__name__)


class Sources:
    """The merged sources of one pump. Each is read by a task of its own, so that one that fails stops no other.

    Args:
        ingress: admits what they yield.
        events: is told when one ends or fails.
        dead_letters: keeps items that were refused.
    """

    def __init__(self, ingress: Ingress, events: EventHub, dead_letters: DeadLetters) -> None:
        self._ingress = ingress
        self._events = events
        self._dead_letters = dead_letters
        self._waiting: list[tuple[str, AsyncIterable[Any], str, str | None]] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._running = False
        self._stopped = False
        self._count = 0

    def add(
        self,
        source: AsyncIterable[Any],
        *,
        from_id: str = "external",
        name: str = "",
        routing_table: str | None = None,
    ) -> str:
        """Read a source from now on, or from when the pump starts to run.

        Args:
            source: yields envelopes (bytes), or ``(target, payload)``.
            from_id: the sender of all it yields.
            name: for events and logs; made up when empty.
            routing_table: a peer table that narrows each of the conversations that it begins. It need not be
                registered yet; what is yielded before it is will be refused.

        Returns:
            Its name.

        Raises:
            TypeError: it is not an async iterable.
            PumpStopped: the pump has stopped.
        """
        if self._stopped:
            raise PumpStopped("the pump has stopped and reads no more sources", step="source")
        if not hasattr(source, "__aiter__"):
            raise TypeError(f"a source must be an async iterable, not {type(source).__name__}")
        self._count += 1
        name = name or f"source-{self._count}"
        if self._running:
            self._start(name, source, from_id, routing_table)
        else:
            self._waiting.append((name, source, from_id, routing_table))
        return name

    def cancel(self, name: str) -> None:
        """Stop reading a source."""
        task = self._tasks.get(name)
        if task is not None:
            task.cancel()

    def start(self) -> None:
        """Begin to read."""
        self._running = True
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            self._start(*each)

    async def stop(self) -> None:
        """Stop reading all of them."""
        self._running = False
        self._stopped = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    def _start(self, name: str, source: AsyncIterable[Any], from_id: str, routing_table: str | None) -> None:
        task = asyncio.get_running_loop().create_task(self._read(name, source, from_id, routing_table))
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _read(self, name: str, source: AsyncIterable[Any], from_id: str, routing_table: str | None) -> None:
        try:
            async for item in source:
                if not await self._admit(name, item, from_id, routing_table):
                    break
        except (Exception, asyncio.CancelledError, GeneratorExit) as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # we stop reading it; it did not fail
            logger.exception("source %s failed", name)
            self._tell(name, "failed", f"{type(exc).__name__}: {exc}")
        else:
            self._tell(name, "ended", "")

    async def _admit(self, name: str, item: Any, from_id: str, routing_table: str | None) -> bool:
        try:
            if isinstance(item, bytes):
                await self._ingress.admit_raw(item, None, from_id, routing_table=routing_table)
            elif isinstance(item, tuple) and len(item) == 2:
                await self._ingress.admit(
                    item[0], item[1], from_id=from_id, thread_id=None, routing_table=routing_table
                )
            else:
                raise TypeError(f"a source must yield bytes or (target, payload), not {type(item).__name__}")
        except PumpStopped:
            return False
        except (PipelineError, TypeError) as exc:
            self._refuse(name, item, from_id, routing_table, exc)
        return True

    def _refuse(self, name: str, item: Any, from_id: str, routing_table: str | None, exc: Exception) -> None:
        detail = getattr(exc, "detail", "") or str(exc)
        logger.warning("source %s: item refused: %s", name, detail)
        self._dead_letters.add(
            wire=item if isinstance(item, bytes) else b"",
            target=str(item[0]) if isinstance(item, tuple) and item else "",
            from_id=from_id,
            thread_id="",
            conversation_id="",
            code=getattr(exc, "code", "validation"),
            detail=detail,
            step="admission",
            routing_table=routing_table,
        )
        self._tell(name, "refused", detail)

    def _tell(self, name: str, status: str, error: str) -> None:
        if self._events.active:
            self._events.emit(SourceEvent(name, status, error))
