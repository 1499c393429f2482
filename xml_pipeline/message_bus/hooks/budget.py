"""A budget ends with its conversation."""

from __future__ import annotations

from xml_pipeline.message_bus.budget_registry import ThreadBudgetRegistry
from xml_pipeline.message_bus.dispatch_hook import TurnHook
from xml_pipeline.message_bus.thread_registry import Conversation

__all__ = ["Budget"]


class Budget(TurnHook):
    """Frees a conversation's budget when the conversation is complete. Messages pay nothing for it.

    Args:
        registry: the budgets.
    """

    def __init__(self, registry: ThreadBudgetRegistry) -> None:
        self._registry = registry

    def complete(self, conversation: Conversation) -> None:
        if self._registry.known:
            self._registry.cleanup_thread(conversation.id)
