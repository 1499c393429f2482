"""Who gets a message: an immutable table of listeners, and the one decision per message made with it.

Names and element names match exactly. Two names that are equal in lower case collide at registration, so that nobody
can be mistaken for somebody else. The text of a refusal is the same whether the target does not exist, does not take
this payload, or may not be reached; only ``detail`` tells, and only to the operator.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from xml_pipeline.errors import ConfigurationError, RoutingError

if TYPE_CHECKING:
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["CurrentTable", "RoutingTable"]


class CurrentTable:
    """The routing table in force. An attribute, not a function: every message looks several times.

    Args:
        table: the first one.
    """

    __slots__ = ("table",)

    def __init__(self, table: RoutingTable) -> None:
        self.table = table


class RoutingTable:
    """All listeners of a pump at one moment. Changing it makes a new one; whoever holds the old one keeps it whole.

    Args:
        listeners: in the order of registration.

    Raises:
        ConfigurationError: names collide, or a broadcast group is not consistent.
    """

    __slots__ = ("_group_by_element", "_taken", "groups", "listeners", "routes")

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        by_name: dict[str, Listener] = {}
        by_key: dict[str, str] = {}
        groups: dict[str, list[Listener]] = {}
        routes: dict[str, list[Listener]] = {}
        for listener in listeners:
            taken = by_key.setdefault(listener.key, listener.name)
            if listener.name in by_name or taken != listener.name:
                raise ConfigurationError(f"listener {listener.name!r} is registered already (as {taken!r})")
            by_name[listener.name] = listener
            if listener.group:
                groups.setdefault(listener.group, []).append(listener)
            for key in listener.route_keys:
                routes.setdefault(key, []).append(listener)
        for group, members in groups.items():
            _check_group(group, members, by_key)
        if len({group.lower() for group in groups}) < len(groups):
            raise ConfigurationError(f"broadcast groups collide in lower case: {', '.join(map(repr, groups))}")
        self._taken = {*by_key, *(group.lower() for group in groups)}
        for group, members in groups.items():
            for member in members:
                for element in member.codecs:
                    route = routes.setdefault(f"{group.lower()}.{element.lower()}", [])
                    if member not in route:
                        route.append(member)
        self.listeners: Mapping[str, Listener] = MappingProxyType(by_name)
        """By exact name."""
        self.groups: Mapping[str, tuple[Listener, ...]] = MappingProxyType(
            {group: tuple(members) for group, members in groups.items()}
        )
        self.routes: Mapping[str, list[Listener]] = MappingProxyType(routes)
        """By ``lower(name).lower(class)``, for people and tests; routing itself matches exactly."""
        self._group_by_element = _only_groups(groups)

    def with_listener(self, listener: Listener) -> RoutingTable:
        """This table and one listener more."""
        return RoutingTable([*self.listeners.values(), listener])

    def without(self, name: str) -> RoutingTable:
        """This table without a listener."""
        return RoutingTable(known for known in self.listeners.values() if known.name != name)

    def is_taken(self, lower_name: str) -> bool:
        """Whether a listener or a group has this name, compared in lower case."""
        return lower_name in self._taken

    def only_group_for(self, element: str) -> str | None:
        """The only broadcast group that takes this payload, if there is exactly one."""
        return self._group_by_element.get(element)

    def group_for(self, element: str) -> str:
        """The only broadcast group that takes this payload, for messages without a target.

        Raises:
            RoutingError: there is none, or more than one.
        """
        group = self._group_by_element.get(element)
        if group is None:
            raise RoutingError(f"no target was named, and not exactly one group takes <{element}>", step="route")
        return group

    def resolve(self, to: str | None, element: str) -> tuple[Listener, ...]:
        """The listeners that get a message: one, or the members of a broadcast group.

        Args:
            to: a listener's or a group's exact name; ``None`` for a class that only one group takes.
            element: the payload's element name.

        Raises:
            RoutingError: there is no such target, or it does not take this payload.
        """
        if to is None:
            return self.groups[self.group_for(element)]
        listener = self.listeners.get(to)
        if listener is not None:
            if element in listener.codecs or listener.is_generic:
                return (listener,)
            accepted = ", ".join(f"<{name}>" for name in listener.codecs)
            raise RoutingError(f"listener {to!r} does not accept <{element}>, only {accepted}", step="route", target=to)
        members = self.groups.get(to)
        if members is not None and element in members[0].codecs:
            return members
        raise RoutingError(self._unknown(to, element, members is not None), step="route", target=to)

    def _unknown(self, to: str, element: str, is_group: bool) -> str:
        if is_group:
            return f"the listeners of group {to!r} do not accept <{element}>"
        near = difflib.get_close_matches(to, [*self.listeners, *self.groups], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"No listener for: {to.lower()}.{element.lower()} (no listener or group is named {to!r}{hint})"


def _check_group(group: str, members: list[Listener], by_key: Mapping[str, str]) -> None:
    if group.lower() in by_key:
        raise ConfigurationError(f"broadcast group {group!r} has the name of a listener")
    classes = {frozenset(member.payload_classes) for member in members}  # in any order
    if len(classes) > 1:
        names = ", ".join(repr(member.name) for member in members)
        raise ConfigurationError(
            f"the members of broadcast group {group!r} ({names}) must accept the same payload class"
        )


def _only_groups(groups: Mapping[str, list[Listener]]) -> dict[str, str]:
    """Element names that exactly one group takes, and that group."""
    found: dict[str, list[str]] = {}
    for group, members in groups.items():
        for element in members[0].codecs:
            found.setdefault(element, []).append(group)
    return {element: names[0] for element, names in found.items() if len(names) == 1}
