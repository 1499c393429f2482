"""What a command is given: an argument, or standard input."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from xml_pipeline.cli.exits import CommandFailed, Exit

__all__ = ["given_bytes", "read_json"]

_LONGEST: Final = 64 << 20
"""Bytes; no NATS server can be configured to take more in one message."""
_UTF8_BOM: Final = b"\xef\xbb\xbf"


def given_bytes(argument: str | None) -> bytes | None:
    """The argument, or all of standard input where it is ``-``, or missing and standard input is no terminal.

    Returns:
        ``None`` where nothing is given.

    Raises:
        CommandFailed: standard input holds more than any server takes.
    """
    if argument is not None and argument != "-":
        return argument.encode("utf-8", "surrogateescape")
    if argument is None and sys.stdin.isatty():
        return None
    raw = sys.stdin.buffer.read(_LONGEST + 1)
    if len(raw) > _LONGEST:
        raise CommandFailed(f"error: standard input has more than {_LONGEST} bytes", code=Exit.USAGE)
    return raw


def read_json(argument: str | None) -> bytes | None:
    """The JSON that is given, looked through, and otherwise as it is.

    Args:
        argument: see `given_bytes`.

    Returns:
        ``None`` where nothing is given, or nothing but space.

    Raises:
        CommandFailed: it is not JSON; the text says where.
    """
    raw = given_bytes(argument)
    content = (raw or b"").removeprefix(_UTF8_BOM)
    if not content.strip():
        return None
    fault = _fault(content)
    if fault:
        raise CommandFailed(f"error: the payload is not JSON: {fault}", code=Exit.USAGE)
    return content


def _fault(content: bytes) -> str:
    try:
        json.loads(content.decode(), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        return f"byte {error.start} is not UTF-8"
    except json.JSONDecodeError as error:
        return (
            f"line {error.lineno}, column {error.colno}: {error.msg}; in a shell, put it into single quotes, "
            """a text into both: '"Ada"'"""
        )
    except ValueError as error:  # a number with thousands of digits
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    return ""


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number in JSON")
