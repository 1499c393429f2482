"""How what comes from the mesh is shown. It is untrusted: nothing of it is to act on a terminal."""

from __future__ import annotations

import base64
import json
import logging
import re
import sys
from typing import Any

__all__ = ["json_text", "log_to_stderr", "one_line", "shown", "table", "value_of"]

# All that is neither a line break nor printable ASCII; of the rest, most is printable too.
_MAYBE = re.compile(r"[^\n -~]")
_LONGEST_ERROR = 2000


def json_text(value: Any, *, indent: int | None = None, is_sorted: bool = False) -> str:
    """A value as JSON, in which every character that a terminal would act on is escaped.

    Args:
        value: of plain JSON.
        indent: as for `json.dumps`; ``None`` for one line.
        is_sorted: whether to sort the keys.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, sort_keys=is_sorted, default=str)
    return _MAYBE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    char = found[0]
    return char if char.isprintable() else json.dumps(char)[1:-1]  # as JSON writes it in ASCII


def one_line(text: str, most: int = _LONGEST_ERROR) -> str:
    """A text on one line, of a readable length, without characters that a terminal would act on."""
    cut = text if len(text) <= most else text[: most - 3] + "..."
    return "".join(char if char.isprintable() else " " for char in cut)


def shown(text: str) -> str:
    """A text with its lines and tabs, and everything else that a terminal would act on escaped, e.g. as ``\\x1b``."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text
    )


def value_of(data: bytes) -> dict[str, Any]:
    """Bytes as a member of a JSON object: ``value``, or ``base64`` of what is no text."""
    try:
        return {"value": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def table(headers: list[str], rows: list[list[str]]) -> str:
    """Columns, aligned; cells must be on one line."""
    from rich.cells import cell_len

    if not rows:
        return "  ".join(headers) + "\n(empty)"
    widths = [max(map(cell_len, column)) for column in zip(headers, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, [headers, *rows]))


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {one_line(record.getMessage())}"


def log_to_stderr() -> None:
    """Show warnings, e.g. that the connection was lost, in a line each; they may quote what others have sent.

    Not that the mesh is open: whoever types a command has chosen where it goes.
    """
    logging.getLogger("xml_pipeline.mesh.parts").setLevel(logging.ERROR)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
