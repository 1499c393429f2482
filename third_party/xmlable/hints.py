"""Annotations as types: strings and forward references are looked up where the class was written."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Collection
from types import FrameType
from typing import Any

__all__ = ["enclosing_names", "hints_of"]


def hints_of(cls: type, only: Collection[str]) -> dict[str, Any]:
    """Return the annotations ``only`` of ``cls`` and its bases, evaluated, with ``Annotated`` kept.

    Names are looked up, first to last: among the types that the class itself contains, in the functions and classes
    that enclose it (as far as they are running, or reachable from their module), and in its module.

    Raises:
        NameError: a name is not defined, or not yet.
    """
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        annotations = {name: hint for name, hint in inspect.get_annotations(base).items() if name in only}
        if annotations:
            names = {**_module_names(base), **enclosing_names(base), base.__name__: base, **_own_types(base)}
            holder = type(base.__name__, (), {"__annotations__": annotations, "__module__": base.__module__})
            # Two different dicts: given one, typing trusts what an equal `List["Node"]` elsewhere once evaluated to.
            hints.update(typing.get_type_hints(holder, names, {}, include_extras=True))
    return hints


def _module_names(cls: type) -> dict[str, Any]:
    return dict(vars(sys.modules[cls.__module__])) if cls.__module__ in sys.modules else {}


def _own_types(cls: type) -> dict[str, Any]:
    # Only types: `date: date = today` puts a default under the very name that the annotation means as a type.
    return {name: value for name, value in vars(cls).items() if isinstance(value, type) and name != "__class__"}


def enclosing_names(cls: type) -> dict[str, Any]:
    """Return what is visible from the functions and classes around ``cls``, the innermost winning."""
    parts = cls.__qualname__.split(".")
    scopes = [".".join(parts[:end]) for end in range(1, len(parts)) if parts[end - 1] != "<locals>"]
    if not scopes:
        return {}
    names: dict[str, Any] = {}
    enclosing: Any = sys.modules.get(cls.__module__)
    for part in parts[:-1]:
        enclosing = getattr(enclosing, part, None)
        if isinstance(enclosing, type):
            names.update(_own_types(enclosing))
    running = _running(scopes, cls.__module__)
    for scope in scopes:
        if scope in running:
            names.update(running[scope].f_locals)
    return names


def _running(scopes: list[str], module: str) -> dict[str, FrameType]:
    """Find the running function, or class body, of each scope: the innermost call of it."""
    found: dict[str, FrameType] = {}
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        scope = frame.f_code.co_qualname
        if scope in scopes and scope not in found and frame.f_globals.get("__name__") == module:
            found[scope] = frame
        frame = frame.f_back
    return found
