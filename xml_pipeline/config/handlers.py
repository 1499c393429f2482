"""What a handler and a payload class must be, and whether a handler's source is the expected one."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import hashlib
import inspect
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from third_party.xmlable import codec_of
from xml_pipeline.config.problems import one_line
from xml_pipeline.message_bus.message_state import SystemError

__all__ = ["handler_fault", "integrity_fault", "is_async_callable", "payload_class_fault"]


def is_async_callable(value: object) -> bool:
    """Whether calling ``value`` gives something to await, or an async generator.

    True for coroutine functions, async generator functions, their methods, objects with such a ``__call__``, and
    partials of all of these. A class is not one, whatever its instances are.
    """
    while isinstance(value, functools.partial):
        value = value.func
    if isinstance(value, type):
        return False
    if _is_async_function(value):
        return True
    return _is_async_function(getattr(type(value), "__call__", None))  # noqa: B004 - looking for its kind


def _is_async_function(value: object) -> bool:
    if inspect.iscoroutinefunction(value) or inspect.isasyncgenfunction(value):
        return True
    # Before 3.12 only asyncio's own test sees what is marked as a coroutine function, such as AsyncMock; it is
    # deprecated where it is no longer needed.
    return sys.version_info < (3, 12) and asyncio.iscoroutinefunction(value)


def handler_fault(handler: object) -> str | None:
    """Why ``handler`` cannot be a handler, called with a payload and its metadata, or ``None`` if it can."""
    if is_async_callable(handler):
        return _signature_fault(handler)
    if isinstance(handler, type):
        return f"the handler is the class {handler.__name__}; an instance of it, or an async function, is needed"
    if not callable(handler):
        return f"the handler must be an async function, not {_kind(handler)}"
    return f"the handler must be async: write 'async def {getattr(handler, '__name__', 'handler')}'"


def _signature_fault(handler: Any) -> str | None:
    try:
        # What is called is the wrapper, so its own parameters count, not those of what it wraps.
        signature = inspect.signature(handler, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # Python does not know them; a call will tell
    try:
        signature.bind(None, None)
    except TypeError:
        bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
        taken = signature.replace(parameters=bare, return_annotation=signature.empty)
        return f"the handler must take (payload, metadata), not {one_line(str(taken))}"
    return None


def payload_class_fault(cls: object) -> str | None:
    """Why ``cls`` cannot be a payload class, or ``None`` if it can.

    A dataclass or pydantic model can, if all its fields can be written in XML; it need not be decorated.
    """
    if not isinstance(cls, type):
        return f"a payload class must be a class, not {_kind(cls)}"
    if not dataclasses.is_dataclass(cls) and not issubclass(cls, BaseModel):
        return f"{cls.__name__} is not a dataclass or pydantic model"
    try:
        codec = codec_of(cls)
        codec.resolve()
    except Exception as error:  # annotations are evaluated, and may raise anything
        return f"{cls.__name__} cannot be a payload class: {one_line(str(error)) or type(error).__name__}"
    # Either would be taken for the pump's own: an envelope in model output, or a failure.
    if codec.name == "message" or (codec.name == "SystemError" and cls is not SystemError):
        return f"a payload class cannot be called {codec.name!r}"
    return None


def integrity_fault(handler: object, expected: str) -> str | None:
    """Why the source of ``handler`` is not the expected one, or ``None`` if it is.

    What is compared is the one file that defines the handler: not what that file imports, and after it was loaded.
    This tells that a file was changed by mistake; it does not protect from somebody who may write the directory.

    Args:
        handler: the handler.
        expected: SHA-256 of the source file of its module, in hexadecimal; empty for any.
    """
    if not expected:
        return None
    source = _source_file(handler)
    if source is None:
        return "Handler integrity check failed: source .py not found"
    try:
        actual = hashlib.sha256(source.read_bytes()).hexdigest()
    except OSError as error:
        return f"Handler integrity check failed: {source.name} cannot be read: {error.strerror}"
    if actual != expected.lower():
        return f"Handler integrity check failed: {source.name} has SHA-256 {actual}"
    return None


def _source_file(handler: object) -> Path | None:
    while isinstance(handler, functools.partial):
        handler = handler.func
    name = getattr(handler, "__module__", None) or type(handler).__module__
    file = getattr(sys.modules.get(name), "__file__", None)
    if not isinstance(file, str):
        return None
    path = Path(file)
    if path.suffix == ".pyc":
        path = _source_of_compiled(path)
    return path if path.suffix == ".py" and path.is_file() else None


def _source_of_compiled(path: Path) -> Path:
    """``pkg/__pycache__/mod.cpython-311.pyc`` comes from ``pkg/mod.py``; ``pkg/mod.pyc`` from the file beside it."""
    if path.parent.name == "__pycache__":
        return path.parent.parent / f"{path.name.partition('.')[0]}.py"
    return path.with_suffix(".py")


def _kind(value: object) -> str:
    if value is None:
        return "None"
    return "a module" if inspect.ismodule(value) else f"a value of type {type(value).__name__}"
