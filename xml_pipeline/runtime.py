"""`Runtime`: the registries of one pump, and how code that has no pump at hand finds the right ones.

Handlers and users' programs reach registries through plain functions (``get_registry()``, ``get_todo_registry()``).
Such a function returns the instance that belongs to the *current* runtime, and the current runtime is the first of:

1. the one entered by `use_runtime` in this context (the pump enters its own around everything it runs);
2. the one last given to `set_default_runtime` (done when a pump becomes the program's main one);
3. one made on first use for the whole process.

So two pumps in one process share nothing, and a program with a single pump need not know that runtimes exist.
This module imports nothing of the package: every registry module builds its accessor on it.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Runtime",
    "current_runtime",
    "default_runtime",
    "reset_default_runtime",
    "set_default_runtime",
    "use_runtime",
]

T = TypeVar("T")


class Runtime:
    """The registries of one pump, one instance per type, made on first use.

    Args:
        name: shown in ``repr``, to tell runtimes apart in logs.
    """

    __slots__ = ("__weakref__", "_instances", "_lock", "name")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._instances: dict[type[Any], Any] = {}
        # Re-entrant, because the constructor of one registry may ask for another.
        self._lock = threading.RLock()

    def get(self, cls: type[T]) -> T:
        """The instance kept for ``cls``; the first call makes it with ``cls()``.

        Args:
            cls: a class that can be constructed without arguments, unless `put` was called for it.

        Returns:
            The same object on every call, from any thread.

        Raises:
            Exception: whatever ``cls()`` raises; nothing is kept then.
        """
        try:
            return cast("T", self._instances[cls])
        except KeyError:
            pass
        with self._lock:
            if cls not in self._instances:
                self._instances[cls] = cls()
            return cast("T", self._instances[cls])

    def put(self, instance: Any, as_type: type[Any] | None = None) -> None:
        """Keep ``instance``, replacing what was kept for its type.

        Args:
            instance: the object that `get` shall return.
            as_type: the key; default: the instance's own class. Give the base class to put in a subclass or a stub.
        """
        with self._lock:
            self._instances[as_type or type(instance)] = instance

    def discard(self, cls: type[Any]) -> bool:
        """Forget the instance kept for ``cls``, so that the next `get` makes a fresh one.

        Returns:
            Whether there was one.
        """
        with self._lock:
            return self._instances.pop(cls, None) is not None

    def __contains__(self, cls: type[Any]) -> bool:
        """Whether an instance is kept for ``cls`` (without making one)."""
        return cls in self._instances

    def __repr__(self) -> str:
        kept = ", ".join(sorted(cls.__name__ for cls in self._instances))
        return f"<Runtime {self.name!r}: {kept}>" if self.name else f"<Runtime: {kept}>"


class _ProcessDefault:
    """What a process falls back to. It cannot live in the ContextVar: a value set inside one task would not be seen by
    the others, and a program's main pump is to be found from all of them."""

    __slots__ = ("chosen", "lock", "made")

    def __init__(self) -> None:
        self.chosen: Runtime | None = None
        self.made: Runtime | None = None
        self.lock = threading.Lock()


_current: Final[ContextVar[Runtime | None]] = ContextVar("xml_pipeline_runtime", default=None)
_process: Final = _ProcessDefault()


def current_runtime() -> Runtime:
    """The runtime that ``get_*()`` accessors use here and now; see the module for the order of precedence."""
    return _current.get() or default_runtime()


def default_runtime() -> Runtime:
    """The runtime outside every `use_runtime`: the one last set, else one for the process, made on first use."""
    chosen = _process.chosen
    if chosen is not None:
        return chosen
    with _process.lock:
        if _process.made is None:
            _process.made = Runtime("default")
        return _process.made


def set_default_runtime(runtime: Runtime | None) -> None:
    """Make ``runtime`` the one that code outside every `use_runtime` sees.

    Args:
        runtime: the main pump's runtime; ``None`` goes back to the one of the process.
    """
    _process.chosen = runtime


def reset_default_runtime() -> None:
    """Forget the runtime that was set and the one of the process; the next use starts with empty registries."""
    with _process.lock:
        _process.chosen = None
        _process.made = None


@contextmanager
def use_runtime(runtime: Runtime) -> Iterator[Runtime]:
    """Make ``runtime`` current inside the ``with`` block, and in the tasks started there.

    Enter and leave in the same task: a context variable can only be reset where it was set.

    Args:
        runtime: what `current_runtime` shall return.
    """
    token = _current.set(runtime)
    try:
        yield runtime
    finally:
        _current.reset(token)
