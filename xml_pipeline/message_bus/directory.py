"""`Directory`: what the code of a handler may ask about other listeners.

Whoever may not call a listener is not told that it exists. So the directory answers from somebody's point of view:

* From a frame, where the question names one (its ``thread_id``): a call is judged exactly as the pump will judge it
  when the handler returns it, by the same code.
* From the frame whose handler is running, where the question names none. That handler is told of itself, and of whom it
  may call from there. One of the pump's own may call everybody, and would tell everybody's names to whoever calls it;
  it is told of whom its callers may call, who bind its calls too (``as_caller``).
* Outside of every handler, it answers the program itself, about everything.

"Forbidden" and "does not exist" give the same answer: ``None``, or a `RoutingError` with the same public text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xml_pipeline.errors import RoutingError
from xml_pipeline.message_bus.message_state import MessageState
from xml_pipeline.message_bus.payloads import from_root
from xml_pipeline.message_bus.peer_tables import PeerTables
from xml_pipeline.message_bus.permissions import Permissions
from xml_pipeline.message_bus.routing import CurrentTable, RoutingTable
from xml_pipeline.message_bus.steps.deserialization import deserialize
from xml_pipeline.message_bus.steps.payload_validation import validate_payload
from xml_pipeline.runtime import current_runtime
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

if TYPE_CHECKING:
    from lxml.etree import _Element

    from xml_pipeline.message_bus.conversation import Frame
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["Directory", "ListenerInfo", "get_directory"]


@dataclass(frozen=True, slots=True)
class ListenerInfo:
    """What is told of a listener, or of a broadcast group.

    Args:
        name: what calls name it by.
        description: what it is for.
        elements: names of the payload elements it accepts; none for one that takes any.
        payload_classes: the classes of these payloads, in the same order.
        output: name of the element it answers with, where that is declared.
        is_agent: it is an agent.
        is_generic: it takes any payload, as an lxml element.
        group: for a group, its own name; for a member, the group's, if that may be called, too; else empty.
    """

    name: str
    description: str
    elements: tuple[str, ...]
    payload_classes: tuple[type, ...]
    output: str | None
    is_agent: bool
    is_generic: bool
    group: str


class Directory:
    """Answers about the listeners of one pump.

    Args:
        current: has the routing table in force.
        permissions: of the same pump.
        frame: gives an open frame by its id.
        running: gives the frame whose handler asks; ``None`` outside of every handler.
    """

    def __init__(
        self,
        current: CurrentTable | None = None,
        permissions: Permissions | None = None,
        frame: Callable[[str], Frame | None] = lambda thread_id: None,
        running: Callable[[], Frame | None] = lambda: None,
    ) -> None:
        self._current = current = current or CurrentTable(RoutingTable())
        self._permissions = permissions or Permissions(current, PeerTables())
        self._frame = frame
        self._running = running

    def listener(self, name: str) -> ListenerInfo | None:
        """What there is to know of a listener or group; ``None`` if it does not exist, or may not be known here."""
        return self._info(name, self._running())

    def unknown(self, names: Iterable[str]) -> list[str]:
        """Those of the names that `listener` would tell nothing of."""
        table, running = self._current.table, self._running()
        listeners, groups = table.listeners, table.groups
        return [
            name
            for name in dict.fromkeys(names)
            if not (name in listeners or name in groups) or (running is not None and not self._may_know(running, name))
        ]

    def callable_from(self, thread_id: str) -> list[ListenerInfo]:
        """The peers that a frame's listener may call there: registered ones, in the order of its list.

        For a tool without a list, all that it may call, in the order of registration, groups last.

        Args:
            thread_id: of an open frame, as in ``metadata.thread_id``.

        Raises:
            KeyError: the frame is not open.
        """
        frame = self._frame_of(thread_id)
        if frame.listener is None:
            return []
        found = (self._info(name, frame) for name in self._peers_of(self._permissions.in_force(frame.listener)))
        return [info for info in found if info is not None]

    def check_call(self, thread_id: str, to: str, element: str, *, as_caller: bool = False) -> None:
        """Raise what the pump would refuse a call with, if the frame's handler returned it now.

        Args:
            thread_id: of an open frame, as in ``metadata.thread_id``.
            to: a listener's or a group's name.
            element: the payload's element name.
            as_caller: see `HandlerResponse`.

        Raises:
            RoutingError: the call may not be made from there, there is no such target, or it does not take the element.
            KeyError: the frame is not open.
        """
        frame = self._frame_of(thread_id)
        if not isinstance(to, str):
            raise RoutingError(f"a target must be a name, not {type(to).__name__}", step="directory")
        self._permissions.check(frame, to, as_caller=as_caller)
        self._current.table.resolve(to, element)

    def check_payload(self, to: str, payload: _Element) -> None:
        """Raise what the pump would refuse a payload for ``to`` with. It is not changed, and not sent.

        Args:
            to: a listener's or a group's name.
            payload: the payload's element; of its surroundings nothing is looked at.

        Raises:
            ValidationError: it does not fit the class that ``to`` accepts under this element name.
            RoutingError: there is no such target, it may not be known here, or it does not take this element.
            TypeError: ``payload`` is no element.
        """
        self.payload_check(to)(payload)

    def payload_check(self, to: str) -> Callable[[_Element], None]:
        """`check_payload` for many payloads of one target, which is looked up once.

        Raises:
            RoutingError: it may not be known here.
        """
        running = self._running()
        if running is not None and not self._may_know(running, to):
            raise RoutingError(f"{running.callee!r} may not call {to!r}", step="directory", target=to)
        return lambda payload: self._check_payload(to, payload)

    def _check_payload(self, to: str, payload: _Element) -> None:
        if not isinstance(getattr(payload, "tag", None), str):
            raise TypeError(f"a payload must be an lxml element, not {type(payload).__name__}")
        written = from_root(canonical_bytes(payload))
        codec = self._current.table.resolve(to, written.name)[0].codecs.get(written.name)
        if codec is not None:
            state = MessageState(payload_tree=parse_strict(written.text.encode()))
            deserialize(validate_payload(state, codec), codec)

    # -- points of view -----------------------------------------------------------------------------------------

    def _frame_of(self, thread_id: str) -> Frame:
        frame = self._frame(thread_id)
        if frame is None:
            raise KeyError(f"thread {thread_id!r} is not open")
        return frame

    def _may_know(self, frame: Frame, name: str) -> bool:
        listener = frame.listener
        if listener is None:
            return False
        return self._permissions.refusal(frame, name, as_caller=listener.is_system) is None

    def _peers_of(self, listener: Listener) -> Iterable[str]:
        if listener.peers is not None or listener.is_agent:
            return dict.fromkeys(listener.peers or ())
        table = self._current.table
        return [name for name in (*table.listeners, *table.groups) if name != listener.name]

    def _info(self, name: str, frame: Frame | None) -> ListenerInfo | None:
        """What is told of a name to a frame's handler; to the program, if there is none."""
        if frame is not None and not self._may_know(frame, name):
            return None
        table = self._current.table
        listener = table.listeners.get(name)
        if listener is None:
            members = table.groups.get(name)
            return None if members is None else _info_of_group(name, members)
        group = listener.group
        return _info_of(listener, name, group if frame is None or (group and self._may_know(frame, group)) else "")


def _info_of(listener: Listener, name: str, group: str) -> ListenerInfo:
    return ListenerInfo(
        name,
        listener.description,
        tuple(listener.codecs),
        listener.payload_classes,
        None if listener.output_codec is None else listener.output_codec.name,
        listener.is_agent,
        listener.is_generic,
        group,
    )


def _info_of_group(name: str, members: tuple[Listener, ...]) -> ListenerInfo:
    first = members[0]
    outputs = {member.output_codec.name if member.output_codec is not None else None for member in members}
    purposes = dict.fromkeys(member.description for member in members if member.description)
    told = f"A group of {len(members)}: each member gets the message and answers separately."
    return ListenerInfo(
        name,
        " ".join([told, *purposes]),
        tuple(first.codecs),
        first.payload_classes,
        outputs.pop() if len(outputs) == 1 else None,
        False,
        False,
        name,
    )


def get_directory() -> Directory:
    """The directory of the current pump."""
    return current_runtime().get(Directory)
