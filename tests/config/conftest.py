"""Organism files in a directory of their own, with modules beside them that no other test can see."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from xml_pipeline.config import Report, load_report

HANDLERS = """
import functools
from dataclasses import dataclass

from pydantic import BaseModel

@dataclass
class Greeting:
    name: str = ""

@dataclass
class Answer:
    text: str = ""

class Order(BaseModel):
    count: int = 0

class NotAPayload:
    pass

class Holder:
    class Inner:
        pass

    @staticmethod
    async def method(payload, metadata):
        return None

class Calls:
    async def __call__(self, payload, metadata):
        return None

calls = Calls()
number = 5

async def greet(payload, metadata):
    return None

async def stream(payload, metadata):
    yield None

def sync(payload, metadata):
    return None

partial = functools.partial(greet, metadata=None)
"""


class Organism:
    """A directory with an organism file and a module ``handlers``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "organism.yaml"
        self.module("handlers", HANDLERS)

    def module(self, name: str, text: str) -> Path:
        """Write the module ``name``, which may be dotted; the packages around it are made."""
        parts = name.split(".")
        for depth in range(1, len(parts)):
            package = self.directory.joinpath(*parts[:depth])
            package.mkdir(exist_ok=True)
            (package / "__init__.py").touch()
        path = self.directory.joinpath(*parts).with_suffix(".py")
        path.write_text(text, encoding="utf-8")
        return path

    def report(self, text: str | bytes, **environment: str) -> Report:
        """What loading ``text`` as the organism file says."""
        self.file.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_report(self.file, environment=environment)

    def problems(self, text: str | bytes, **environment: str) -> list[str]:
        """The problems of ``text``, without the file's name."""
        return [str(problem).removeprefix(f"{self.file}:") for problem in self.report(text, **environment).problems]

    def listener(self, *lines: str, **environment: str) -> list[str]:
        """The problems of a good listener with ``lines`` added; the first of them is line 7, its keys column 3."""
        text = "".join(f"  {line}\n" for line in lines)
        return self.problems(f"{LISTENER}{text}", **environment)


LISTENER = """organism: {name: test}
listeners:
- name: greeter
  payload_class: handlers.Greeting
  handler: handlers.greet
  description: Greets people.
"""


@pytest.fixture
def organism(tmp_path: Path) -> Iterator[Organism]:
    before, path = set(sys.modules), list(sys.path)
    written = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # or a module written twice in one second may be read from its old bytecode
    try:
        yield Organism(tmp_path)
    finally:
        sys.path[:] = path
        sys.dont_write_bytecode = written
        for name in set(sys.modules) - before:
            if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
