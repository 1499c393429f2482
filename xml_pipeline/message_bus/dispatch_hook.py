"""What may accompany every call of a handler.

Two kinds of hook:

`DispatchHook`
    The public one: coroutines, for a journal or an audit log outside the pump. For each message that reaches a handler
    its calls are ``on_intent``, ``on_dispatched``, then exactly one of ``on_acknowledged`` and ``on_failed``; and once
    per complete conversation ``on_thread_complete``. A hook that raises is logged; it never changes what happens.

`TurnHook`
    The pump's own: plain functions, one behaviour per file in ``hooks/`` (deadline, turn limit, history, todo). One
    that raises a `PipelineError` before the call refuses the turn.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from xml_pipeline.message_bus.message_state import HandlerMetadata, MessageState
    from xml_pipeline.message_bus.thread_registry import Conversation

__all__ = ["DispatchHook", "DispatchHooks", "Intents", "TurnHook"]

logger = logging.getLogger(__name__)


class DispatchHook(Protocol):
    """A hook around the call of handlers. Subclassing is not needed; methods that are missing are not called.

    ``on_intent`` may take a further keyword ``message_id``. A hook may offer ``on_intents(list of the keyword dicts)``
    instead, which returns a list of entry ids.
    """

    async def on_intent(
        self, *, thread_id: str, from_id: str, to_id: str, payload_type: str, payload_bytes: bytes
    ) -> str:
        """Before the handler is called. ``payload_bytes`` is the payload's canonical XML. Returns an entry id."""
        ...

    async def on_dispatched(self, entry_id: str) -> None:
        """Right after all hooks have their intent, right before the handler."""
        ...

    async def on_acknowledged(self, entry_id: str) -> None:
        """The handler returned, and everything it sent was accepted."""
        ...

    async def on_failed(self, entry_id: str, error: str) -> None:
        """The handler raised, timed out, was cancelled, or returned something that is no answer."""
        ...

    async def on_thread_complete(self, thread_id: str) -> None:
        """Nothing of the conversation is queued, running or held any more."""
        ...


class TurnHook:
    """Base of the pump's own hooks; override what you need. What is not overridden costs nothing."""

    def before(self, state: MessageState, metadata: HandlerMetadata) -> None:
        """Right before the handler is called. May change ``metadata``, or refuse the turn: raise a `PipelineError`."""

    def complete(self, conversation: Conversation) -> None:
        """The conversation is complete."""


def overridden(hooks: Sequence[TurnHook], name: str) -> list[Callable[..., None]]:
    """The bound methods of those hooks that override ``name``."""
    base = getattr(TurnHook, name)
    return [getattr(hook, name) for hook in hooks if getattr(type(hook), name) is not base]


Intents = list[tuple[Any, str]]
"""Hooks that took a message, each with its entry id."""


class DispatchHooks:
    """The registered `DispatchHook`s, called so that none of them can break anything."""

    def __init__(self) -> None:
        self.completions: asyncio.Queue[str] = asyncio.Queue()
        """Complete conversations that hooks have not been told of yet."""
        self._telling: Counter[str] = Counter()
        self._complete: set[str] = set()
        self.registered: tuple[Any, ...] = ()
        self._takes_message_id: dict[int, bool] = {}

    def register(self, hook: Any) -> None:
        """Add a hook; registering one twice changes nothing."""
        if any(known is hook for known in self.registered):
            return
        self.registered = (*self.registered, hook)
        intent = getattr(hook, "on_intent", None)
        self._takes_message_id[id(hook)] = intent is not None and _takes(intent, "message_id")

    def unregister(self, hook: Any) -> None:
        """Remove a hook; messages it has already seen are still acknowledged to it."""
        self.registered = tuple(known for known in self.registered if known is not hook)
        self._takes_message_id.pop(id(hook), None)

    def begin(self, conversation_id: str) -> None:
        """A turn begins: its conversation's completion must wait until hooks have been told how the turn ended."""
        self._telling[conversation_id] += 1

    def end(self, conversation_id: str) -> None:
        """Hooks have been told how a turn ended."""
        self._telling[conversation_id] -= 1
        if not self._telling[conversation_id]:
            del self._telling[conversation_id]
            if conversation_id in self._complete:
                self._complete.discard(conversation_id)
                self.completions.put_nowait(conversation_id)

    def completed(self, conversation_id: str) -> None:
        """A conversation is complete: hooks are told once they have been told of all of its turns."""
        if not self.registered and not self._telling:
            return
        if conversation_id in self._telling:
            self._complete.add(conversation_id)
        elif self.registered:
            self.completions.put_nowait(conversation_id)

    async def intend(
        self, intents: Intents, state: MessageState, to_id: str, payload_type: str, payload_bytes: bytes
    ) -> None:
        """Tell every hook that a handler is about to be called.

        Fills ``intents`` as it goes, so that what was told is known also when this is cancelled half-way.
        """
        fields = {
            "thread_id": state.thread_id or "",
            "from_id": state.from_id or "",
            "to_id": to_id,
            "payload_type": payload_type,
            "payload_bytes": payload_bytes,
        }
        for hook in self.registered:
            try:
                intents.append((hook, await self._intend_one(hook, fields, state.message_id)))
            except (Exception, asyncio.CancelledError):
                if _is_being_cancelled():
                    raise
                logger.exception("hook %r failed in on_intent", hook)
        for hook, entry in intents:
            await _call(hook, "on_dispatched", entry)

    async def _intend_one(self, hook: Any, fields: dict[str, Any], message_id: str) -> str:
        if hasattr(hook, "on_intents"):
            entries = await hook.on_intents([{**fields, "message_id": message_id}])
            return str(entries[0])
        if not hasattr(hook, "on_intent"):
            return ""
        if self._takes_message_id.get(id(hook)):
            return str(await hook.on_intent(**fields, message_id=message_id))
        return str(await hook.on_intent(**fields))

    async def acknowledge(self, intents: Intents) -> None:
        """Tell the hooks that took the message that it is done."""
        for hook, entry in intents:
            await _call(hook, "on_acknowledged", entry)

    async def fail(self, intents: Intents, error: str) -> None:
        """Tell the hooks that took the message that it failed."""
        for hook, entry in intents:
            await _call(hook, "on_failed", entry, error)

    async def complete(self, thread_id: str) -> None:
        """Tell every hook that a conversation is complete."""
        for hook in self.registered:
            await _call(hook, "on_thread_complete", thread_id)


async def _call(hook: Any, name: str, *args: Any) -> None:
    method = getattr(hook, name, None)
    if method is None:
        return
    try:
        await method(*args)
    except (Exception, asyncio.CancelledError):
        if _is_being_cancelled():
            raise
        logger.exception("hook %r failed in %s", hook, name)


def _is_being_cancelled() -> bool:
    """Whether a cancellation is meant for us, rather than raised by the hook itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _takes(function: Callable[..., Any], keyword: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.name == keyword or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
