"""SIGHUP before the organism is there to be reloaded."""

from __future__ import annotations

import signal
from typing import Any

__all__ = ["hold_hangups", "ignore_hangups", "was_held"]

_held: list[int] = []


def hold_hangups() -> None:
    """Remember SIGHUP from now on, instead of dying of it: a service may be told to reload just after its start."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, _hold)


def ignore_hangups() -> None:
    """Let SIGHUP pass, also in the program that this process is about to become, which reads everything anew."""
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def was_held() -> bool:
    """Whether one came since `hold_hangups`. Asking forgets it."""
    held = bool(_held)
    _held.clear()
    return held


def _hold(number: int, frame: Any) -> None:
    _held.append(number)
