"""`TodoRegistry`: what agents are waiting for.

An agent declares that it waits for a payload of some class, from a certain listener or from anybody. When such a
message passes in the same conversation, the watcher is *raised*, and every later call of that agent in the conversation
carries a reminder (``metadata.todo_nudge``) until the agent closes the watcher::

    waiting --check(matching message)--> raised --close--> gone
       \\______________________close____________________/^

Watchers belong to the conversation: the pump passes its id for ``thread_id`` in every call, and removes them all when
the conversation completes.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xml_pipeline.runtime import current_runtime

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["TodoRegistry", "TodoWatcher", "get_todo_registry"]


@dataclass(slots=True)
class TodoWatcher:
    """One thing an agent waits for.

    Args:
        id: a UUID; closing needs it.
        thread_id: the conversation.
        issuer: the agent that waits.
        wait_for: name of the awaited payload class, in lower case.
        from_listener: who must have sent it, in lower case; ``None`` for anybody.
        description: the agent's note to itself.
        eyebrow_raised: whether it came.
        triggered_by: the payload that came, where `TodoRegistry.check` was given it.
        triggered_from: who sent it.
    """

    id: str
    thread_id: str
    issuer: str
    wait_for: str
    from_listener: str | None = None
    description: str = ""
    eyebrow_raised: bool = False
    triggered_by: Any = None
    triggered_from: str = ""


class TodoRegistry:
    """All open watchers of one pump. Names are compared as a whole, without regard to case."""

    def __init__(self) -> None:
        self._watchers: dict[str, list[TodoWatcher]] = {}
        self._by_id: dict[str, TodoWatcher] = {}
        self.watched: Mapping[str, object] = self._watchers
        """By conversation; one of which nothing is awaited is not in it."""

    @property
    def active(self) -> bool:
        """Whether there is any watcher at all."""
        return bool(self._by_id)

    def has_watchers(self, thread_id: str) -> bool:
        """Whether anybody waits for anything in this conversation."""
        return thread_id in self._watchers

    def register(
        self, thread_id: str, issuer: str, wait_for: str, from_listener: str | None = None, description: str = ""
    ) -> str:
        """Begin to wait.

        Args:
            thread_id: the conversation.
            issuer: the agent that waits.
            wait_for: name of the awaited payload class.
            from_listener: who must send it; ``None`` or empty for anybody.
            description: shown in the reminder.

        Returns:
            The watcher's id.

        Raises:
            ValueError: ``wait_for`` is empty.
        """
        awaited = wait_for.strip().lower()
        if not awaited:
            raise ValueError("wait_for must name a payload class; an empty name would never, or always, match")
        sender = (from_listener or "").strip().lower() or None
        watcher = TodoWatcher(str(uuid.uuid4()), thread_id, issuer, awaited, sender, description)
        self._by_id[watcher.id] = watcher
        self._watchers.setdefault(thread_id, []).append(watcher)
        return watcher.id

    def get(self, watcher_id: str) -> TodoWatcher | None:
        """The watcher with this id, or ``None``."""
        return self._by_id.get(watcher_id)

    def check(self, thread_id: str, payload_type: str, from_id: str, payload: Any = None) -> list[TodoWatcher]:
        """Raise the watchers that waited for this message. A watcher is raised once.

        Args:
            thread_id: the conversation.
            payload_type: name of the message's payload class.
            from_id: who sent it.
            payload: kept in ``triggered_by``.

        Returns:
            Those raised now, in order of registration.
        """
        watchers = self._watchers.get(thread_id)
        if watchers is None:
            return []
        kind = payload_type.lower()
        sender = from_id.lower()
        raised = []
        for watcher in watchers:
            if watcher.eyebrow_raised or watcher.wait_for != kind or watcher.from_listener not in (None, sender):
                continue
            watcher.eyebrow_raised = True
            watcher.triggered_by = payload
            watcher.triggered_from = from_id
            raised.append(watcher)
        return raised

    def get_raised_for(self, thread_id: str, agent: str) -> list[TodoWatcher]:
        """Watchers of ``agent`` in this conversation whose message came."""
        return [watcher for watcher in self._of(thread_id, agent) if watcher.eyebrow_raised]

    def get_pending_for(self, thread_id: str, agent: str) -> list[TodoWatcher]:
        """Watchers of ``agent`` in this conversation whose message did not come yet."""
        return [watcher for watcher in self._of(thread_id, agent) if not watcher.eyebrow_raised]

    def close(self, watcher_id: str, issuer: str | None = None) -> bool:
        """Stop waiting, or being reminded.

        Args:
            watcher_id: what `register` returned.
            issuer: the agent that closes; anybody else's watcher is left alone, as if it did not exist. ``None`` is
                for the program itself, which may close any.

        Returns:
            Whether a watcher was removed.
        """
        watcher = self._by_id.get(watcher_id)
        if watcher is None or (issuer is not None and issuer.lower() != watcher.issuer.lower()):
            return False
        del self._by_id[watcher_id]
        others = [other for other in self._watchers[watcher.thread_id] if other is not watcher]
        if others:
            self._watchers[watcher.thread_id] = others
        else:
            del self._watchers[watcher.thread_id]
        return True

    def close_all_for_thread(self, thread_id: str) -> int:
        """Remove every watcher of a conversation; returns how many there were."""
        watchers = self._watchers.pop(thread_id, [])
        for watcher in watchers:
            del self._by_id[watcher.id]
        return len(watchers)

    def format_nudge(self, watchers: Iterable[TodoWatcher]) -> str:
        """The reminder that an agent gets.

        Args:
            watchers: raised ones, as `get_raised_for` returns them.

        Returns:
            Text for a model: per watcher what came, from whom, what for, and how to close it; empty for no watchers.
        """
        items = [_nudge(watcher) for watcher in watchers]
        if not items:
            return ""
        opening = (
            "SYSTEM NOTE: messages that you asked to be reminded of have arrived. Deal with each of them, then close "
            "its todo by sending the TodoComplete shown with it to system.todo; until then this note is repeated."
        )
        return "\n".join([opening, *items])

    def clear(self) -> None:
        """Remove all watchers."""
        self._watchers.clear()
        self._by_id.clear()

    def _of(self, thread_id: str, agent: str) -> list[TodoWatcher]:
        name = agent.lower()
        return [watcher for watcher in self._watchers.get(thread_id, ()) if watcher.issuer.lower() == name]


def _nudge(watcher: TodoWatcher) -> str:
    purpose = f": {watcher.description}" if watcher.description else ""
    return (
        f"- {watcher.wait_for} from {watcher.triggered_from or 'unknown'}{purpose}\n"
        f"  To close: <TodoComplete><Id>{watcher.id}</Id></TodoComplete>"
    )


def get_todo_registry() -> TodoRegistry:
    """The todo registry of the current runtime."""
    return current_runtime().get(TodoRegistry)
