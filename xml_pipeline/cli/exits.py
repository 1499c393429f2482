"""How a command ends: its exit code, and the exception that ends it early."""

from __future__ import annotations

import enum

__all__ = ["CommandFailed", "Exit"]


class Exit(enum.IntEnum):
    """Exit codes, the same for every verb."""

    OK = 0
    FAILED = 1
    """It could not be done, or the answer was an error."""
    USAGE = 2
    """The command line itself is wrong: an unknown option, a missing argument, a value out of range."""
    INVALID = 3
    """The configuration is not valid, or there is none."""
    TIMEOUT = 124
    """It took too long; the number that ``timeout`` uses."""
    INTERRUPTED = 130
    """Interrupted, or told twice to stop; the number that shells use for SIGINT."""


class CommandFailed(Exception):
    """Ends a command.

    Args:
        *lines: what is wrong, where, and how to mend it; a line each, for stderr.
        code: the exit code.
    """

    def __init__(self, *lines: str, code: Exit = Exit.FAILED) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.code = code
