"""What crosses the mesh with a call besides its payload, in headers that plain peers ignore.

===================  ===============================================  ==============================================
header               says                                             and the callee
===================  ===============================================  ==============================================
``X-Mesh-Deadline``  how long the caller waits (the mesh's own)       ends its work by then
``X-Mesh-Thread``    the thread it is called from                     keeps it in ``meta``
``X-Mesh-Budget``    tokens that the caller's conversation has left   uses at most so many in its conversation
``traceparent``      the trace it belongs to (W3C Trace Context)      passes it on with every call it makes for it
===================  ===============================================  ==============================================

None of them is signed. They can only narrow what the callee allows anyway: a budget above its own limit changes
nothing. What the callee has used is not counted in the caller's budget, and two calls at the same time are each told
of all that is left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from xml_pipeline.mesh import headers as h

if TYPE_CHECKING:
    from xml_pipeline.message_bus.budget_registry import ThreadBudgetRegistry
    from xml_pipeline.message_bus.conversation import Conversation
    from xml_pipeline.message_bus.message_state import HandlerMetadata

__all__ = ["NO_BAGGAGE", "Baggage", "BaggageRoom", "is_thread"]

_HEADERS: Final = frozenset((h.THREAD, h.BUDGET, h.TRACEPARENT))
_THREAD: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
_BUDGET: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
# Trace Context, level 1, section 3.2: version ff is none, nor are ids of zeros; later versions may say more behind it.
_TRACE: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]{0,128})?", re.ASCII
)


def is_thread(text: str) -> bool:
    """Whether it is the id of a thread: a version-4 UUID in canonical text."""
    return _THREAD.fullmatch(text) is not None


class Baggage(NamedTuple):
    """What came, or goes, with one call.

    Args:
        thread: of the caller; empty for none.
        budget: tokens that are left to the caller's conversation; ``None`` if it does not say.
        traceparent: the trace; empty for none.
    """

    thread: str = ""
    budget: int | None = None
    traceparent: str = ""

    def to_headers(self) -> dict[str, str]:
        """The headers as they are sent."""
        found = {}
        if self.thread:
            found[h.THREAD] = self.thread
        if self.budget is not None:
            found[h.BUDGET] = str(self.budget)
        if self.traceparent:
            found[h.TRACEPARENT] = self.traceparent
        return found

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> Baggage:
        """What came; what makes no sense is as if it had not come. Never raises."""
        if _HEADERS.isdisjoint(headers):
            return NO_BAGGAGE
        thread, budget = headers.get(h.THREAD, ""), headers.get(h.BUDGET, "")
        trace = headers.get(h.TRACEPARENT, "")
        return cls(
            thread if is_thread(thread) else "",
            int(budget) if _BUDGET.fullmatch(budget) else None,
            trace if _TRACE.fullmatch(trace) else "",
        )


NO_BAGGAGE: Final = Baggage()
"""What comes with most calls."""


class BaggageRoom:
    """Keeps what came with a conversation until it is over, and says what goes out with its calls.

    Args:
        budgets: of all conversations.
    """

    def __init__(self, budgets: ThreadBudgetRegistry) -> None:
        self._budgets = budgets
        self._traces: dict[str, str] = {}

    def put(self, baggage: Baggage, conversation_id: str) -> None:
        """A conversation that has just begun came with this."""
        if baggage.budget is not None:
            limit = min(baggage.budget, self._budgets.max_tokens_per_thread)
            self._budgets.set_limit(conversation_id, limit)
        if baggage.traceparent:
            self._traces[conversation_id] = baggage.traceparent

    def for_call(self, metadata: HandlerMetadata) -> Baggage:
        """What goes with a call that is made from a frame."""
        return Baggage(
            metadata.thread_id,
            self._budgets.get_budget(metadata.thread_id).available,
            self._traces.get(metadata.conversation_id, ""),
        )

    def forget(self, conversation: Conversation) -> None:
        """A conversation is over."""
        self._traces.pop(conversation.id, None)

    def __len__(self) -> int:
        """Conversations that it keeps something of."""
        return len(self._traces)
