"""Turns the events of a YAML parser into plain data and places.

Events show repeated keys, anchors and tags, which a YAML loader has already acted upon, and they arrive one by one, so
that depth and number are bounded before anything recurses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import yaml

from xml_pipeline.config.problems import Problem, quoted
from xml_pipeline.config.scalars import Scalar, read_scalar

__all__ = ["MAX_DEPTH", "MAX_VALUES", "Builder", "Spot", "Unreadable"]

MAX_DEPTH: Final = 32
"""Deeper nesting is refused. An organism needs four levels."""
MAX_VALUES: Final = 200_000
"""Files with more keys and values are refused. Five thousand listeners have half as many."""


@dataclass(slots=True)
class Spot:
    """Where one value stands, and, in a mapping, its key. Lines and columns count from 1."""

    line: int
    column: int
    key_line: int = 0
    key_column: int = 0
    children: dict[str | int, Spot] | None = None


class Unreadable(Exception):
    """The text cannot be read further; what was found so far is only a consequence."""

    def __init__(self, text: str, line: int = 1, column: int = 1) -> None:
        self.problem = Problem(text, line=line, column=column)


class _Open:
    """A mapping or list whose end has not come yet."""

    __slots__ = ("container", "is_key", "key", "slot", "spot")

    def __init__(self, container: dict[str, Any] | list[Any], spot: Spot, slot: str | int, is_key: bool) -> None:
        self.container = container
        self.spot = spot
        self.slot = slot
        """Its own key or index in the container around it."""
        self.is_key = is_key
        self.key: tuple[str, bool, int, int] | None = None
        """In a mapping, the key that waits for its value: name, whether to keep the value, line, column."""


class Builder:
    """Takes the events of one text, and has then its data, its places and what is wrong with it.

    What YAML can do beyond JSON-like data is a problem: anchors and aliases (a few hundred bytes of them expand to
    millions of values), merge keys, tags. Of a key that is given twice the first value stays.
    """

    def __init__(self) -> None:
        self.data: Any = None
        self.root: Spot | None = None
        """The place of the data as a whole; ``None`` until the first event of it."""
        self.problems: list[Problem] = []
        self._stack: list[_Open] = []
        self._documents = 0
        self._values = 0

    def take(self, event: Any) -> None:
        """Take one event of the parser.

        Raises:
            Unreadable: the text goes too deep, is too long, or holds a second document.
        """
        self._values += 1
        if self._values > MAX_VALUES:
            raise Unreadable(f"more than {MAX_VALUES:,} keys and values", *_start(event))
        if isinstance(event, yaml.ScalarEvent):
            self._refuse_extras(event)
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            self._open({}, event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._open([], event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise Unreadable("a second document begins here; a file holds one", *_start(event))

    def _scalar(self, event: Any) -> None:
        line, column = _start(event)
        plain = not event.style
        if self._wants_key():
            self._key(event.value, plain, line, column)
            return
        value: Scalar = read_scalar(event.value) if plain else event.value
        if plain and not event.value and self._stack and self._stack[-1].key is not None:
            _, _, line, column = self._stack[-1].key  # a blank value stands nowhere; its key does
        self._place(value, Spot(line, column))

    def _key(self, name: str, plain: bool, line: int, column: int) -> None:
        top = self._stack[-1]
        keep = False
        if plain and name == "<<":
            self._problem("merge keys are not supported, write the keys out", name, line, column)
        elif plain and not name:
            self._problem("a key is missing before the colon", None, line, column)
        elif name in top.container:
            first = (top.spot.children or {})[name].key_line
            self._problem(f"the key is given twice, first in line {first}", name, line, column)
        else:
            keep = True
        top.key = (name, keep, line, column)

    def _open(self, container: dict[str, Any] | list[Any], event: Any) -> None:
        self._refuse_extras(event)
        line, column = _start(event)
        if len(self._stack) >= MAX_DEPTH:
            raise Unreadable(f"nested deeper than {MAX_DEPTH} levels", line, column)
        spot = Spot(line, column, children={})
        if self._wants_key():
            self._problem("a key must be plain text", None, line, column)
            self._stack.append(_Open(container, spot, "", is_key=True))
            return
        slot = self._place(container, spot)
        self._stack.append(_Open(container, spot, slot, is_key=False))

    def _close(self) -> None:
        closed = self._stack.pop()
        if closed.is_key:
            self._stack[-1].key = ("", False, closed.spot.line, closed.spot.column)

    def _alias(self, event: Any) -> None:
        line, column = _start(event)
        text = f"aliases are not supported ({quoted(event.anchor)}), write the value out"
        if self._wants_key():
            self._problem(text, None, line, column)
            self._stack[-1].key = ("", False, line, column)
            return
        self._problem(text, self._next_slot(), line, column)
        self._place(None, Spot(line, column))

    def _place(self, value: Any, spot: Spot) -> str | int:
        """Put a value where the parser has got to; its key or index there."""
        if not self._stack:
            self.data, self.root = value, spot
            return ""
        top = self._stack[-1]
        children = top.spot.children
        if isinstance(top.container, list):
            index = len(top.container)
            top.container.append(value)
            if children is not None:
                children[index] = spot
            return index
        name, keep, spot.key_line, spot.key_column = top.key or ("", False, 0, 0)
        top.key = None
        if keep:
            top.container[name] = value
            if children is not None:
                children[name] = spot
        return name

    def _wants_key(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].container, dict) and self._stack[-1].key is None

    def _next_slot(self) -> str | int | None:
        if not self._stack:
            return None
        top = self._stack[-1]
        if isinstance(top.container, list):
            return len(top.container)
        return top.key[0] if top.key else None

    def _refuse_extras(self, event: Any) -> None:
        if event.anchor is None and event.tag is None:
            return
        slot = None if self._wants_key() else self._next_slot()
        if event.anchor is not None:
            self._problem(f"anchors are not supported ({quoted(event.anchor)})", slot, *_start(event))
        if event.tag is not None:
            self._problem(f"tags are not supported ({quoted(event.tag)})", slot, *_start(event))

    def _problem(self, text: str, slot: str | int | None, line: int, column: int) -> None:
        path = tuple(entry.slot for entry in self._stack[1:])
        if slot is not None:
            path += (slot,)
        self.problems.append(Problem(text, path, line=line, column=column))


def _start(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1
