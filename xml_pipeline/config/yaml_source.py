"""Reads YAML into plain data, and remembers where every key and value stands.

Only UTF-8 text of bounded size is read, and only one document of plain data; see `xml_pipeline.config.yaml_builder` for
what is refused and why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from xml_pipeline.config.problems import KeyPath, Problem, one_line
from xml_pipeline.config.yaml_builder import Builder, Spot, Unreadable

__all__ = ["MAX_BYTES", "Source", "read_yaml"]

MAX_BYTES: Final = 1_048_576
"""Longer files are refused. Five thousand listeners fit."""

_UNPRINTABLE: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LINE_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# The C parser is seven times as fast; wheels of PyYAML have it, builds without libyaml do not.
_Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Source:
    """What was read from one YAML text.

    Args:
        data: dicts, lists, strings, ints, floats, bools and ``None``; meaningful only as far as there are no problems.
        spots: the places, shaped like the data; ``None`` when nothing could be read.
        problems: everything that is wrong with it as YAML, with line and column but without a file name.
    """

    data: Any
    spots: Spot | None
    problems: tuple[Problem, ...] = ()

    def place(self, path: KeyPath, *, at_key: bool = False) -> tuple[int, int]:
        """Line and column of the value at ``path``, or of its key; of the nearest enclosing value if there is none."""
        spot = self.spots
        if spot is None:
            return (0, 0)
        for index, part in enumerate(path):
            child = spot.children.get(part) if spot.children else None
            if child is None:
                break
            spot = child
            if at_key and index == len(path) - 1 and spot.key_line:
                return (spot.key_line, spot.key_column)
        return (spot.line, spot.column)


def read_yaml(data: bytes | str) -> Source:
    """Read one YAML document. Never raises for what the text says: see `Source.problems`.

    Args:
        data: the text, as UTF-8 bytes (with or without a byte order mark) or decoded; at most `MAX_BYTES` long.
    """
    try:
        text = _decode(data)
        return _build(text)
    except Unreadable as stop:
        return Source(None, None, (stop.problem,))


def _decode(data: bytes | str) -> str:
    size = len(data) if isinstance(data, bytes) else len(data.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise Unreadable(f"the file is larger than {MAX_BYTES:,} bytes")
    if isinstance(data, bytes):
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Unreadable("the file is not UTF-8 text", *_position(data[: error.start].decode("utf-8"))) from None
    else:
        text = data.removeprefix("\ufeff")
    bad = _UNPRINTABLE.search(text)
    if bad is not None:
        raise Unreadable(f"the character U+{ord(bad[0]):04X} is not allowed", *_position(text[: bad.start()]))
    return text


def _position(before: str) -> tuple[int, int]:
    lines = _LINE_BREAK.split(before)
    return len(lines), len(lines[-1]) + 1


def _build(text: str) -> Source:
    builder = Builder()
    events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
    try:
        for event in events:
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: escapes in PyYAML's Python scanner
        raise Unreadable(f"not valid YAML: {one_line(str(error))}") from None
    if builder.root is None or builder.data is None:
        raise Unreadable("the file is empty")
    return Source(builder.data, builder.root, tuple(builder.problems))


def _syntax_error(error: yaml.MarkedYAMLError, text: str) -> Unreadable:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    reason = error.problem or error.context or "unreadable"
    if "cannot start any token" in reason and "\t" in "".join(_LINE_BREAK.split(text)[line - 1 : line])[:column]:
        reason = "a tab is not allowed here, indent with spaces"
    elif error.context and error.problem:
        reason = f"{error.problem} {error.context}"
    return Unreadable(f"not valid YAML: {one_line(reason)}", line, column)
