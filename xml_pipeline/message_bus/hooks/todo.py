"""Raises todo watchers when what they wait for passes, and reminds their issuers."""

from __future__ import annotations

from xml_pipeline.message_bus.dispatch_hook import TurnHook
from xml_pipeline.message_bus.message_state import HandlerMetadata, MessageState
from xml_pipeline.message_bus.thread_registry import Conversation
from xml_pipeline.message_bus.todo_registry import TodoRegistry

__all__ = ["Todo"]


class Todo(TurnHook):
    """Checks every message against the watchers of its conversation; puts raised ones into ``metadata.todo_nudge``.

    Args:
        registry: the watchers. A pump without any pays one comparison per message.
    """

    def __init__(self, registry: TodoRegistry) -> None:
        self._registry = registry

    def before(self, state: MessageState, metadata: HandlerMetadata) -> None:
        registry, listener = self._registry, state.listener
        conversation_id = metadata.conversation_id
        if conversation_id not in registry.watched or listener is None or state.payload_tree is None:
            return
        registry.check(conversation_id, state.payload_tree.tag, metadata.from_id, state.payload)
        if listener.is_agent:
            raised = registry.get_raised_for(conversation_id, listener.name)
            metadata.todo_nudge = registry.format_nudge(raised)

    def complete(self, conversation: Conversation) -> None:
        if self._registry.watched:
            self._registry.close_all_for_thread(conversation.id)
