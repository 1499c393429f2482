"""Conditions: when an agent serves (`active_when=`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from xml_pipeline.mesh.bucket import check_key
from xml_pipeline.mesh.seconds import check_seconds
from xml_pipeline.mesh.subjects import check_filter

__all__ = ["Condition", "KVCondition", "SubjectCondition", "check_condition"]

_DRAIN_TIMEOUT = 30.0


class Condition(Protocol):
    """What all conditions have.

    Args:
        predicate: tells of a value whether the agent is to serve.
        initial: what holds as long as there is no value to ask about.
        drain_timeout: seconds that requests have to end when the agent stops to serve.
    """

    @property
    def predicate(self) -> Callable[[Any], bool]:
        """See the class."""

    @property
    def initial(self) -> bool:
        """See the class."""

    @property
    def drain_timeout(self) -> float:
        """See the class."""


@dataclass(frozen=True)
class KVCondition:
    """A key's value. Made by `AgentMesh.kv_condition`, which says what the arguments are."""

    key: str
    predicate: Callable[[bytes | None], bool]
    initial: bool = False
    drain_timeout: float = _DRAIN_TIMEOUT

    def __post_init__(self) -> None:
        check_key(self.key)
        _check(self)

    def __str__(self) -> str:
        return f"key {self.key}"


@dataclass(frozen=True)
class SubjectCondition:
    """The last message of a subject. Made by `AgentMesh.subject_condition`, which says what the arguments are."""

    subject: str
    predicate: Callable[[bytes], bool]
    initial: bool = False
    drain_timeout: float = _DRAIN_TIMEOUT

    def __post_init__(self) -> None:
        check_filter(self.subject)
        _check(self)

    def __str__(self) -> str:
        return f"subject {self.subject}"


def _check(condition: Condition) -> None:
    predicate = condition.predicate
    if not callable(predicate):
        raise TypeError(f"the predicate of a condition must be a function of the value, not {predicate!r:.100}")
    called = getattr(type(predicate), "__call__", None)  # noqa: B004  # it is read, not asked for
    if inspect.iscoroutinefunction(predicate) or inspect.iscoroutinefunction(called):
        raise TypeError(
            "the predicate of a condition must be a plain function: it is asked in between, and must not wait"
        )
    check_seconds(condition.drain_timeout, "drain_timeout")


def check_condition(condition: object) -> KVCondition | SubjectCondition | None:
    """The condition, if it is one.

    Raises:
        TypeError: it is none.
    """
    if condition is None or isinstance(condition, KVCondition | SubjectCondition):
        return condition
    raise TypeError(
        f"active_when= has {condition!r:.100}, which is no condition: use mesh.kv_condition(...) or "
        "mesh.subject_condition(...)"
    )
