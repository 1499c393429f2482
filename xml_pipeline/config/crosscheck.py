"""Rules between listeners: unique names, known peers, broadcast groups that fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from xml_pipeline.config.names import broadcast_group, reserved_fault
from xml_pipeline.config.problems import Hints, KeyPath, Problem, quoted

__all__ = ["ListenerFacts", "check_listeners", "known_names_of"]


@dataclass(frozen=True, slots=True)
class ListenerFacts:
    """What the rules look at. A part that is not known, because it is wrong in itself, is ``None``, and left alone.

    Args:
        index: position in the list of listeners.
        name: its name.
        is_agent: whether it is an agent; ``None`` when that is not known.
        peers: whom it may call; ``None`` when it does not say, ``None`` in it for a name that is not known.
        broadcast: ``True``, ``False`` or the name of a group.
        classes: what it accepts: classes, or import paths as long as they are not imported.
    """

    index: int
    name: str | None
    is_agent: bool | None = False
    peers: tuple[str | None, ...] | None = None
    broadcast: bool | str = False
    classes: tuple[object, ...] | None = None

    @property
    def path(self) -> KeyPath:
        """Where it stands in the configuration."""
        return ("listeners", self.index)

    @property
    def group(self) -> str | None:
        """Its broadcast group."""
        return None if self.name is None else broadcast_group(self.name, self.broadcast)


def check_listeners(
    listeners: Sequence[ListenerFacts], hints: Hints, known_names: frozenset[str] | None
) -> tuple[list[Problem], list[Problem]]:
    """Check listeners against each other.

    Args:
        listeners: all of them.
        hints: for suggestions.
        known_names: other names that may be named as peers; ``None`` to leave peers alone.

    Returns:
        Problems, and warnings.
    """
    problems = _names(listeners) + _classes(listeners) + _groups(listeners)
    if known_names is not None:
        problems += _peers(listeners, hints, known_names)
    return problems, _warnings(listeners)


def _names(listeners: Sequence[ListenerFacts]) -> list[Problem]:
    problems = []
    first: dict[str, ListenerFacts] = {}
    for listener in listeners:
        if listener.name is None:
            continue
        path = (*listener.path, "name")
        fault = reserved_fault(listener.name)
        if fault is not None:
            problems.append(Problem(fault, path))
        other = first.setdefault(listener.name.lower(), listener)
        if other is not listener:
            same = "" if other.name == listener.name else f", {quoted(other.name or '')} but for case"
            problems.append(
                Problem(f"the name {quoted(listener.name)} is taken by listeners[{other.index}]{same}", path)
            )
    return problems


def known_names_of(listeners: Sequence[ListenerFacts], others: frozenset[str]) -> set[str]:
    """The names that can be called: of ``listeners``, of their groups, and ``others``."""
    return {*others, *(name for each in listeners for name in (each.name, each.group) if name is not None)}


def _classes(listeners: Sequence[ListenerFacts]) -> list[Problem]:
    """Every class of a listener has a route of its own, and the key of a route is in lower case."""
    problems = []
    for listener in listeners:
        first: dict[str, str] = {}
        for cls in listener.classes or ():
            name = cls.__name__ if isinstance(cls, type) else str(cls).replace(":", ".").rpartition(".")[2]
            other = first.get(name.lower())
            first.setdefault(name.lower(), name)
            if other is None:
                continue
            but = "" if other == name else f" and {quoted(other)}, which is the same but for case"
            problems.append(
                Problem(
                    f"two classes of one listener are called {quoted(name)}{but}", (*listener.path, "payload_class")
                )
            )
    return problems


def _groups(listeners: Sequence[ListenerFacts]) -> list[Problem]:
    problems = []
    names = {listener.name.lower(): listener for listener in listeners if listener.name is not None}
    members: dict[str, list[ListenerFacts]] = {}
    spelling: dict[str, str] = {}
    for listener in listeners:
        if listener.name is None or listener.broadcast is False:
            continue
        path = (*listener.path, "broadcast")
        group = listener.group
        if group is None:
            problems.append(Problem("true needs a dotted name, e.g. 'group.member'; or name the group", path))
            continue
        fault = _group_fault(group, names, spelling)
        if fault is not None:
            problems.append(Problem(fault, path))
        members.setdefault(group, []).append(listener)
    for group, inside in members.items():
        problems += _same_classes(group, inside)
    return problems


def _group_fault(group: str, names: dict[str, ListenerFacts], spelling: dict[str, str]) -> str | None:
    fault = reserved_fault(group)
    if fault is not None:
        return fault
    owner = names.get(group.lower())
    if owner is not None:
        return f"the group {quoted(group)} is called like listeners[{owner.index}]; a group needs a name of its own"
    other = spelling.setdefault(group.lower(), group)
    if other != group:
        return f"the group {quoted(group)} is {quoted(other)} but for case"
    return None


def _same_classes(group: str, members: Sequence[ListenerFacts]) -> list[Problem]:
    told = [member for member in members if member.classes is not None]
    return [
        Problem(
            f"all listeners of the group {quoted(group)} must accept the same payload class, "
            f"unlike listeners[{before.index}]",
            (*member.path, "broadcast"),
        )
        for before, member in pairwise(told)
        if set(before.classes or ()) != set(member.classes or ())
    ]


def _peers(listeners: Sequence[ListenerFacts], hints: Hints, known_names: frozenset[str]) -> list[Problem]:
    known = known_names_of(listeners, known_names)
    candidates = sorted(known)
    return [
        Problem(
            f"no listener or group is called {quoted(peer)}{hints.did_you_mean(peer, candidates, 'peer')}",
            (*listener.path, "peers", index),
        )
        for listener in listeners
        for index, peer in enumerate(listener.peers or ())
        if peer is not None and peer not in known
    ]


def _warnings(listeners: Sequence[ListenerFacts]) -> list[Problem]:
    if not listeners:
        return [Problem("the organism has no listeners", ("listeners",))]
    return _double_peers(listeners) + [
        Problem(
            "an agent without 'peers' reaches nobody; list them, or write 'peers: []' if that is meant", listener.path
        )
        for listener in listeners
        if listener.is_agent and listener.peers is None
    ]


def _double_peers(listeners: Sequence[ListenerFacts]) -> list[Problem]:
    return [
        Problem(f"{quoted(peer)} is listed twice", (*listener.path, "peers", index))
        for listener in listeners
        if listener.peers is not None and len(set(listener.peers)) < len(listener.peers)
        for index, peer in enumerate(listener.peers)
        if peer is not None and peer in listener.peers[:index]
    ]
