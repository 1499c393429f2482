"""Levels of log events: their names, how they are stored, and which one holds for an agent.

The bucket ``mesh-observability`` has ``{"log_level": "..."}`` under the name of an agent, and under ``global``. What is
under the agent's name holds for it; else what is under ``global``; else `DEFAULT`. A value that cannot be read counts
as none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast

if TYPE_CHECKING:
    from xml_pipeline.mesh.kv_entry import KVEntry

__all__ = [
    "DEBUG",
    "DEFAULT",
    "GLOBAL",
    "OFF",
    "SEVERITIES",
    "LogLevel",
    "LogLevels",
    "ObserveConfig",
    "check_level",
    "read_level",
    "stored_level",
]

LogLevel = Literal["debug", "info", "warn", "error", "off"]

GLOBAL: Final = "global"
DEFAULT: Final = "info"
SEVERITIES: Final[dict[str, int]] = {"debug": 10, "info": 20, "warn": 30, "error": 40, "off": 100}
DEBUG: Final = SEVERITIES["debug"]
OFF: Final = SEVERITIES["off"]

_FIELD = "log_level"


def check_level(level: Any) -> LogLevel:
    """The level, if it is one.

    Raises:
        ValueError: it is not; the text says which there are.
    """
    if not isinstance(level, str) or level not in SEVERITIES:
        raise ValueError(f"{str(level)[:100]!r} is not a level of log events: {', '.join(SEVERITIES)}")
    return cast("LogLevel", level)


def stored_level(level: LogLevel) -> bytes:
    """The value of a key."""
    return json.dumps({_FIELD: level}).encode()


def read_level(value: bytes) -> LogLevel | None:
    """The level in the value of a key; ``None`` where it says none, or nothing that makes sense."""
    try:
        return check_level(json.loads(value)[_FIELD])
    except (ValueError, TypeError, LookupError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class ObserveConfig:
    """What holds for an agent.

    Args:
        log_level: events below it are not sent.
        source: whether that was said of the ``agent``, ``global`` for all, or by nobody (``default``).
    """

    log_level: LogLevel = DEFAULT
    source: Literal["agent", "global", "default"] = "default"


class LogLevels:
    """The levels that were set, as far as entries of the bucket were applied."""

    def __init__(self) -> None:
        self._levels: dict[str, LogLevel] = {}
        self._revisions: dict[str, int] = {}

    def apply(self, entry: KVEntry[bytes]) -> bool:
        """Take over what an entry says; one that is older than what is known of its key says nothing.

        Returns:
            Whether it says anything else than what was known.
        """
        if entry.revision < self._revisions.get(entry.key, 0):
            return False
        self._revisions[entry.key] = entry.revision
        before = self._levels.get(entry.key)
        level = None if entry.is_deleted else read_level(entry.value)
        if level is None:
            self._levels.pop(entry.key, None)
        else:
            self._levels[entry.key] = level
        return level != before

    def clear(self) -> None:
        """Forget everything: the bucket is another one."""
        self._levels.clear()
        self._revisions.clear()

    def of(self, agent: str) -> ObserveConfig:
        """What holds for the agent. One that is called ``global`` has no level of its own."""
        if agent != GLOBAL and (level := self._levels.get(agent)) is not None:
            return ObserveConfig(level, "agent")
        if (level := self._levels.get(GLOBAL)) is not None:
            return ObserveConfig(level, "global")
        return ObserveConfig()
