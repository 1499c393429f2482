"""The switch that forbids real model calls.

::

    with forbid_real_calls():
        ...                                   # a backend that would open a connection raises RealCallsForbidden

or ``XML_PIPELINE_FORBID_REAL_CALLS=1`` in the environment, for a whole process. Backends that work without a network,
such as the scripted one, go on working.

The block covers the code inside it and the tasks that are started there. A task that was running before, such as a
pump's that was started outside, is not covered; the environment covers everything.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from xml_pipeline.llm.errors import RealCallsForbidden

__all__ = ["FORBID_REAL_CALLS", "check_real_call", "forbid_real_calls", "is_loopback", "real_calls_forbidden"]

FORBID_REAL_CALLS: Final = "XML_PIPELINE_FORBID_REAL_CALLS"
"""Forbids real calls in the whole process, unless it is empty, ``0``, ``false``, ``no`` or ``off``."""

_NOT_SET: Final = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class _Rule:
    allow_loopback: bool


_rule: Final[ContextVar[_Rule | None]] = ContextVar("xml_pipeline_real_calls", default=None)


@contextmanager
def forbid_real_calls(*, allow_loopback: bool = False) -> Iterator[None]:
    """Forbid calls that leave the process, inside the ``with`` block and in the tasks started there.

    No block inside, and nothing else, can allow them again.

    Args:
        allow_loopback: allow servers on this machine (``localhost``, ``127.0.0.0/8``, ``::1``), for tests with a server
            of their own. The innermost block decides, also when the environment forbids real calls.
    """
    before = _rule.get()
    _rule.set(_Rule(allow_loopback))
    try:
        yield
    finally:
        # Not `reset(token)`: a fixture may be left in another context than it was entered in.
        _rule.set(before)


def real_calls_forbidden() -> bool:
    """Whether calls that leave the process are forbidden here and now."""
    return _rule.get() is not None or os.environ.get(FORBID_REAL_CALLS, "").strip().lower() not in _NOT_SET


def check_real_call(backend: str, url: str = "") -> None:
    """To be called before a connection is opened.

    Args:
        backend: its name, for the text.
        url: where the call goes; empty when that is not known.

    Raises:
        RealCallsForbidden: the call is forbidden.
    """
    if not real_calls_forbidden():
        return
    rule = _rule.get()
    if rule is not None and rule.allow_loopback and is_loopback(url):
        return
    by = FORBID_REAL_CALLS if rule is None else "forbid_real_calls()"
    raise RealCallsForbidden(f"{backend}: real model calls are forbidden by {by}; use a scripted backend here")


def is_loopback(url: str) -> bool:
    """Whether the host of ``url`` is this machine."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or (mapped is not None and mapped.is_loopback)
