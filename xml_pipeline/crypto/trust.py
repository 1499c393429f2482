"""Whose signatures count, for which names, and what becomes of messages without one.

A `TrustedKey` joins a public key with the names it may speak for and a `Policy`; a `TrustStore` is all of them, and the
policy for everybody else. Both are values that never change: a reload makes a new store and puts it in place of the old
one, so that every message is judged by one of them from beginning to end.

===========  ======================================================  ================================================
policy       a message that is signed with the key                   an unsigned message from one of the key's names
===========  ======================================================  ================================================
``require``  must be good in every respect, or is refused; then its  is refused: ``unsigned``
             sender is proven
``accept``   the same                                                is let in, its sender unproven
``ignore``   its signature is taken off and not looked at: it is     is let in, its sender unproven
             treated as if it were unsigned
===========  ======================================================  ================================================

*Everybody else* is who is signed for by no key of the store. For them, ``require`` refuses all messages, ``accept``
those that are signed, because nobody can say whether the signature is good, and ``ignore`` none.

A name can have several keys, which is how a key is changed without a gap: the new one is added everywhere, then used,
then the old one is removed everywhere. While one of them says ``require``, an unsigned message from the name is
refused, whatever the others say. A signature that does not count never makes a message unsigned by itself: only
``ignore`` does, and only where it is said.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from xml_pipeline.crypto.identity import Ed25519PublicKey, decode_public_key, key_id_of
from xml_pipeline.crypto.refusals import IdentityError
from xml_pipeline.errors import ConfigurationError

__all__ = ["Policy", "TrustStore", "TrustedKey"]

_BELOW: Final = ".*"
_KEYS: Final = {"key", "organism", "names", "policy"}


class Policy(StrEnum):
    """What is asked of a message; see the top of this module."""

    REQUIRE = "require"
    ACCEPT = "accept"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A public key that is trusted.

    Args:
        public_key: the key.
        names: whom it may speak for: exact names (``shop``), and names below one (``shop.*`` is every name that begins
            with ``shop.``). At least one; there is no pattern for everybody.
        policy: what is asked of messages from these names.

    Raises:
        ValueError: there are no names, or one is none.
    """

    public_key: Ed25519PublicKey = field(repr=False, compare=False)
    names: tuple[str, ...]
    policy: Policy = Policy.REQUIRE
    key_id: str = field(init=False, default="")

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("a trusted key needs at least one name that it may speak for")
        for name in self.names:
            fault = _name_fault(name)
            if fault:
                raise ValueError(fault)
        object.__setattr__(self, "key_id", key_id_of(self.public_key))

    def speaks_for(self, name: str) -> bool:
        """Whether the key may sign messages from ``name``: letter by letter, as names are compared everywhere."""
        return any(_covers(pattern, name) for pattern in self.names)

    def protects(self, name: str) -> bool:
        """Whether ``name`` could be taken for one the key speaks for: names that differ in case only collide."""
        lower = name.lower()
        return any(_covers(pattern.lower(), lower) for pattern in self.names)


def _covers(pattern: str, name: str) -> bool:
    if pattern.endswith(_BELOW):
        return name.startswith(pattern[:-1]) and len(name) > len(pattern) - 1
    return name == pattern


def _name_fault(name: object) -> str | None:
    if not isinstance(name, str):
        return f"a name must be a text, not a {type(name).__name__}"
    if not name.strip() or name != name.strip():
        return "a name must not be empty, or begin or end with white space"
    if "*" in name.removesuffix(_BELOW) or name == _BELOW:
        return f"a name may have a * only at its end, after a name and a dot, as in 'shop.*': {name[:80]!r}"
    return None


@dataclass(frozen=True)
class TrustStore:
    """All keys that are trusted.

    Args:
        keys: each key once.
        default: what is asked of everybody else.

    Raises:
        ValueError: a key is there twice.
    """

    keys: tuple[TrustedKey, ...] = ()
    default: Policy = Policy.REQUIRE

    def __post_init__(self) -> None:
        if len(self._by_id) < len(self.keys):
            raise ValueError("a trusted key is there twice; give it all its names in one place")

    @functools.cached_property
    def _by_id(self) -> dict[str, TrustedKey]:
        return {key.key_id: key for key in self.keys}

    def find(self, key_id: str) -> TrustedKey | None:
        """The key with this id, if it is trusted."""
        return self._by_id.get(key_id)

    def asked_of(self, name: str) -> Policy:
        """What is asked of an unsigned message from ``name``: the strictest policy of its keys, or the default."""
        policies = {key.policy for key in self.keys if key.protects(name)}
        for policy in Policy:  # the strictest first
            if policy in policies:
                return policy
        return self.default

    @classmethod
    def from_config(cls, entries: Iterable[Mapping[str, Any]] = (), default: str = Policy.REQUIRE) -> TrustStore:
        """A store from the values of a configuration.

        Args:
            entries: mappings with ``key`` (what `decode_public_key` reads); ``organism``, which stands for that name
                and all names below it, or ``names`` (one, or a list), or both; and ``policy``, if it is not
                ``require``.
            default: the policy for everybody else.

        Raises:
            ConfigurationError: everything that is wrong, a line each, with its place: ``trust[0].policy: ...``.
        """
        problems: list[str] = []
        keys: list[TrustedKey] = []
        first_at: dict[str, int] = {}
        for number, entry in enumerate(entries):
            key = _read(entry, f"trust[{number}]", problems)
            if key is None:
                continue
            first = first_at.setdefault(key.key_id, number)
            if first != number:
                problems.append(f"trust[{number}].key: is the same as trust[{first}].key; give it all its names there")
            keys.append(key)
        policy = _policy(default, "signatures", problems)
        if problems:
            raise ConfigurationError("\n".join(problems))
        return cls(tuple(keys), policy)


def _read(entry: Any, place: str, problems: list[str]) -> TrustedKey | None:
    if not isinstance(entry, Mapping):
        problems.append(f"{place}: must be a mapping with key, organism and policy, not a {type(entry).__name__}")
        return None
    before = len(problems)
    unknown = sorted(str(key)[:80] for key in entry if key not in _KEYS)
    problems.extend(
        f"{place}: the key {key!r} is unknown; there are key, organism, names and policy" for key in unknown
    )
    public_key = _public_key(entry.get("key"), f"{place}.key", problems)
    names = _names_of(entry, place, problems)
    policy = _policy(entry.get("policy", Policy.REQUIRE), f"{place}.policy", problems)
    if len(problems) > before or public_key is None:
        return None
    return TrustedKey(public_key, names, policy)


def _public_key(value: Any, place: str, problems: list[str]) -> Ed25519PublicKey | None:
    if isinstance(value, str):
        try:
            return decode_public_key(value)
        except IdentityError as error:
            problems.append(f"{place}: {error.detail}")
    else:
        problems.append(f"{place}: must be a public key, as xml-pipeline keygen shows it")
    return None


def _names_of(entry: Mapping[str, Any], place: str, problems: list[str]) -> tuple[str, ...]:
    names: list[str] = []
    if "organism" in entry:
        names += _organism(entry["organism"], f"{place}.organism", problems)
    if "names" in entry:
        names += _listed(entry["names"], f"{place}.names", problems)
    elif "organism" not in entry:
        problems.append(f"{place}: must say for whom the key may speak, with organism or names")
    return tuple(dict.fromkeys(names))


def _organism(value: Any, place: str, problems: list[str]) -> list[str]:
    fault = _name_fault(value) or ("an organism's name has no *" if "*" in value else None)
    if fault:
        problems.append(f"{place}: {fault}")
        return []
    return [value, f"{value}{_BELOW}"]


def _listed(value: Any, place: str, problems: list[str]) -> list[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not names:
        problems.append(f"{place}: must be a name, or a list of at least one")
        return []
    faults = [fault for name in names if (fault := _name_fault(name))]
    problems.extend(f"{place}: {fault}" for fault in faults)
    return [] if faults else list(names)


def _policy(value: Any, place: str, problems: list[str]) -> Policy:
    try:
        return Policy(value)
    except ValueError:
        problems.append(f"{place}: must be require, accept or ignore, not {str(value)[:80]!r}")
        return Policy.REQUIRE
