"""Who may call whom. The one place that decides it, for `replies` when a call is made and `directory` when it is asked.

A call is made by a *frame*, and those who answer for it must all be allowed to make it. That is the frame's listener;
for a call made ``as_caller`` also the listener of the calling frame; and if the frame was itself opened by such a call,
that of the next one above, and so on up. Whoever handed a frame over by delegation answers for it as its caller does.
So an agent does not reach through a buffer inside a sequence what it may not
call itself. Whoever asks from outside has no frame, and restricts nothing.

Each of them is asked twice, and both must say yes:

=====================  =======================================  ====================================================
asked of               its own peers                            each peer table of the conversation, parents included
=====================  =======================================  ====================================================
an agent               those listed; none listed: nobody        those of its entry; no entry: nobody
a tool with peers      those listed                             those of its entry; no entry: nobody
a tool without         everybody but ``system.*``               those of its entry; no entry: no restriction
one of the pump's own  everybody: its callers' peers bind it    those of its entry; no entry: no restriction
=====================  =======================================  ====================================================

Agents reach ``system.todo*`` in any case. Answering, and sending to oneself, are always allowed. Names match exactly.
A peer table that is gone allows nobody anything. The peers and tables are those in force at the moment of the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xml_pipeline.errors import RoutingError

if TYPE_CHECKING:
    from xml_pipeline.message_bus.conversation import Frame
    from xml_pipeline.message_bus.listener import Listener
    from xml_pipeline.message_bus.peer_tables import PeerTable, PeerTables
    from xml_pipeline.message_bus.routing import CurrentTable

__all__ = ["Permissions", "always_allowed", "may_call", "table_allows"]

_TODO: Final = frozenset({"system.todo", "system.todo-complete"})


def may_call(caller: Listener, to: str) -> bool:
    """Whether a listener's own peers let it call ``to``; fails closed. See the module's table."""
    if caller.is_system:
        return True
    peers = caller.peers
    if peers is not None and to in peers:
        return True
    if caller.is_agent:
        return always_allowed(caller, to)
    return peers is None and to[: len("system.")].lower() not in ("system", "system.")


def table_allows(table: PeerTable, caller: Listener, to: str) -> bool:
    """Whether one peer table, its parents left aside, lets a listener call ``to``. See the module's table."""
    peers = table.peers.get(caller.name)
    if peers is not None and to in peers:
        return True
    if caller.is_agent:
        return always_allowed(caller, to)
    return peers is None and caller.peers is None


def always_allowed(caller: Listener, to: str) -> bool:
    """Whether no peers and no table keep a listener from calling ``to``."""
    return caller.is_agent and to in _TODO


class Permissions:
    """The rule, bound to one pump.

    Args:
        current: has the routing table in force.
        peer_tables: of the same pump.
    """

    def __init__(self, current: CurrentTable, peer_tables: PeerTables) -> None:
        self._current = current
        self._peer_tables = peer_tables

    def check(self, frame: Frame, to: str, *, as_caller: bool = False) -> None:
        """Refuse a call that may not be made.

        Args:
            frame: makes the call.
            to: the name of a listener or group, registered or not.
            as_caller: the call is made on behalf of the frame's caller, too.

        Raises:
            RoutingError: somebody who answers for the call may not make it; ``detail`` says who, and why.
        """
        listener = frame.listener
        if (
            listener is not None
            and not as_caller
            and frame.conversation.peer_table is None
            and (to == listener.name or may_call(self._current.table.listeners.get(listener.name, listener), to))
        ):
            return  # the usual case, asked for every call: only the listener's own peers count
        refusal = self.refusal(frame, to, as_caller=as_caller)
        if refusal is not None:
            raise RoutingError(refusal, step="reply", target=to)

    def refusal(self, frame: Frame, to: str, *, as_caller: bool = False) -> str | None:
        """Why `check` would refuse, for the operator; ``None`` if it would not."""
        if frame.listener is None:
            return f"{frame.callee!r} may not call {to!r}: it is not a listener"
        peer_table = frame.conversation.peer_table
        refusal = self._refusal_of(frame.listener, to, peer_table)
        above: Frame | None = frame
        while refusal is None and as_caller and above is not None:
            callers = [*above.delegators]
            as_caller, above = above.as_caller, above.parent
            if above is not None and above.listener is not None:  # the pump itself, when it starts
                callers.append(above.listener)
            for caller in callers:
                refusal = self._refusal_of(caller, to, peer_table)
                if refusal is not None:
                    return f"{refusal}; {frame.callee!r} calls on its behalf"
        return refusal

    def allows(self, caller: Listener, to: str, peer_table: str | None) -> bool:
        """Whether one listener, its callers left aside, may call ``to`` in a conversation with that peer table."""
        return self._refusal_of(caller, to, peer_table) is None

    def in_force(self, listener: Listener) -> Listener:
        """The record of a listener that is in force now. A frame keeps the one it was opened with."""
        return self._current.table.listeners.get(listener.name, listener)

    def _refusal_of(self, caller: Listener, to: str, peer_table: str | None) -> str | None:
        if to == caller.name or (caller.is_system and peer_table is None):
            return None
        caller = self._current.table.listeners.get(caller.name, caller)
        if not may_call(caller, to):
            declared = "declares no peers" if caller.peers is None else f"has the peers {caller.peers}"
            who = "the agent" if caller.is_agent else "it"
            return f"{caller.name!r} may not call {to!r}: {who} {declared}"
        if peer_table is None:
            return None
        refused_by = self._peer_tables.refused_by(peer_table, caller, to)
        if refused_by is None:
            return None
        return f"{caller.name!r} may not call {to!r}: peer table {refused_by!r} does not allow it"
