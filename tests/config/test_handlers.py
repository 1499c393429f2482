from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from pydantic import BaseModel

from xml_pipeline.config.handlers import handler_fault, integrity_fault, is_async_callable, payload_class_fault

from .conftest import Organism


async def function(payload: Any, metadata: Any, more: Any = None) -> None:
    return None


async def generator(payload: Any, metadata: Any, more: Any = None) -> AsyncIterator[None]:
    yield None


async def payload_only(payload: Any) -> None:
    return None


@functools.wraps(payload_only)
async def wrapped(*arguments: Any) -> None:
    return None


def plain(payload: Any, metadata: Any) -> None:
    return None


class Callable:
    async def __call__(self, payload: Any, metadata: Any, more: Any = None) -> None:
        return None

    async def method(self, payload: Any, metadata: Any) -> None:
        return None

    def sync(self, payload: Any, metadata: Any) -> None:
        return None


class Streaming:
    async def __call__(self, payload: Any, metadata: Any) -> AsyncIterator[None]:
        yield None


class Sync:
    def __call__(self, payload: Any, metadata: Any) -> None:
        return None


@pytest.mark.parametrize(
    ("handler", "taken"),
    [
        (payload_only, "(payload)"),
        (Callable.method, "(self, payload, metadata)"),
        (functools.partial(function, metadata=1), "(payload, *, metadata=1, more=None)"),
        (functools.partial(Callable(), 1, 2), "(more=None)"),
    ],
)
def test_what_cannot_be_called_with_a_payload_and_metadata_is_refused(handler: Any, taken: str) -> None:
    assert handler_fault(handler) == f"the handler must take (payload, metadata), not {taken}"


@pytest.mark.parametrize(
    "value",
    [
        function,
        generator,
        Callable(),
        Callable().method,
        Streaming(),
        functools.partial(function, more=None),
        functools.partial(functools.partial(generator), more=None),
        functools.partial(Callable(), more=None),
        wrapped,
        AsyncMock(),
    ],
)
def test_what_gives_something_to_await_can_be_a_handler(value: object) -> None:
    assert is_async_callable(value)
    assert handler_fault(value) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (plain, "the handler must be async: write 'async def plain'"),
        (lambda payload, metadata: None, "the handler must be async: write 'async def <lambda>'"),
        (Callable().sync, "the handler must be async: write 'async def sync'"),
        (Sync(), "the handler must be async: write 'async def handler'"),
        (functools.partial(plain), "the handler must be async: write 'async def handler'"),
        (Callable, "the handler is the class Callable; an instance of it, or an async function, is needed"),
        (None, "the handler must be an async function, not None"),
        (5, "the handler must be an async function, not a value of type int"),
        (sys, "the handler must be an async function, not a module"),
    ],
)
def test_anything_else_cannot(value: object, words: str) -> None:
    assert not is_async_callable(value)
    assert handler_fault(value) == words


def test_a_mock_is_not_async() -> None:
    assert not is_async_callable(Mock())


@dataclass
class Plain:
    name: str = ""


class Model(BaseModel):
    name: str = ""


@dataclass
class Unwritable:
    thing: object = None


@dataclass
class Broken:
    thing: NoSuchName = None  # type: ignore[name-defined]  # noqa: F821 - unknown on purpose


class Bare:
    pass


def test_dataclasses_and_pydantic_models_can_be_payload_classes() -> None:
    assert payload_class_fault(Plain) is None
    assert payload_class_fault(Model) is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Bare, "Bare is not a dataclass or pydantic model"),
        (Plain(), "a payload class must be a class, not a value of type Plain"),
        (sys, "a payload class must be a class, not a module"),
        (list[int], "a payload class must be a class, not a value of type GenericAlias"),
        (None, "a payload class must be a class, not None"),
        (Unwritable, "Unwritable cannot be a payload class: "),
        (Broken, "Broken cannot be a payload class: "),
    ],
)
def test_other_things_cannot(value: object, words: str) -> None:
    found = payload_class_fault(value) or ""
    assert found.startswith(words)
    assert "\n" not in found


def digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_the_right_hash_passes_and_an_empty_one_is_not_checked() -> None:
    assert integrity_fault(function, digest(__file__)) is None
    assert integrity_fault(function, digest(__file__).upper()) is None
    assert integrity_fault(function, "") is None


@pytest.mark.parametrize("handler", [function, functools.partial(function), Callable(), Callable().method])
def test_a_wrong_hash_is_told(handler: object) -> None:
    found = integrity_fault(handler, "0" * 64)
    assert found == f"Handler integrity check failed: test_handlers.py has SHA-256 {digest(__file__)}"


def test_the_hash_is_that_of_the_module_that_defines_the_handler() -> None:
    assert integrity_fault(Organism.report, digest(Path(__file__).parent / "conftest.py")) is None


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The handler ``function`` as if defined in a module whose ``__file__`` can be set."""
    import types

    made = types.ModuleType("made_for_hash")
    monkeypatch.setitem(sys.modules, "made_for_hash", made)
    monkeypatch.setattr(function, "__module__", "made_for_hash")
    return made


@pytest.mark.parametrize("compiled", ["mod.pyc", "__pycache__/mod.cpython-311.pyc"])
def test_compiled_modules_are_traced_to_their_source(module: Any, tmp_path: Path, compiled: str) -> None:
    source = tmp_path / "mod.py"
    source.write_text("x = 1\n")
    module.__file__ = str(tmp_path / compiled)
    assert integrity_fault(function, digest(source)) is None
    source.unlink()
    assert integrity_fault(function, "0" * 64) == "Handler integrity check failed: source .py not found"


@pytest.mark.parametrize("file", [None, "/nowhere/mod.py", "/nowhere/mod.so"])
def test_a_missing_source_is_told(module: Any, file: str | None) -> None:
    module.__file__ = file
    assert integrity_fault(function, "0" * 64) == "Handler integrity check failed: source .py not found"


def test_an_unreadable_source_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    found = integrity_fault(function, "0" * 64)
    assert found == "Handler integrity check failed: test_handlers.py cannot be read: Permission denied"
