"""Where output goes: results to stdout, everything that is wrong to stderr, one line each."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["complain", "console", "counted", "prepare", "print_json", "say", "write"]


def prepare() -> None:
    """Let text that the terminal's encoding does not have be shown escaped, instead of ending the command.

    Streams that were closed before the start (``2>&-``) are replaced by ``os.devnull``: Python has none then, and the
    next file that is opened would get their number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


@functools.cache
def console() -> Console:
    """The terminal. Bound to the stdout there was at the first call, whatever handlers do to ``sys.stdout`` later."""
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            """Whoever read our output has gone (``| head``): say no more, and go on. A server must not end by that."""
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())

    return Terminal(file=sys.stdout, soft_wrap=True, highlight=False, markup=False, emoji=False)


def say(text: str = "", style: str = "") -> None:
    """Print a line for people; no markup is interpreted."""
    console().print(text, style=style or None)


def write(text: str) -> None:
    """Print a result, exactly as it is, with a line break at its end."""
    stream = console().file
    stream.write(text if text.endswith("\n") else f"{text}\n")
    stream.flush()


def counted(number: int, noun: str) -> str:
    """``no messages``, ``1 message``, ``2 messages``."""
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def print_json(data: Any, *, indent: int | None = 2) -> None:
    """Print a result as JSON; without ``indent`` on one line."""
    is_unicode = (console().encoding or "").lower().startswith("utf")
    write(json.dumps(data, indent=indent, ensure_ascii=not is_unicode, default=str))


def complain(*lines: str) -> None:
    """Print what is wrong, a line each."""
    with contextlib.suppress(BrokenPipeError):
        for line in lines:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
