"""Replacing this process by a new one with the same command line, which reads everything anew.

No signal to stop is lost on the way::

    handlers of this program -- remembered: it ends, and nothing is replaced
    then the system's own    -- the process ends of the signal, as the new program does until it has handlers
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

from xml_pipeline.cli.hangups import ignore_hangups

__all__ = ["hand_over", "is_successor"]

_RESTARTED: Final = "XML_PIPELINE_RESTARTED"
"""The process that replaced itself; one that it starts inherits the variable, but not the number."""


def hand_over(is_told_to_stop: Callable[[], bool]) -> None:
    """Become the new program. Returns if this one was told to stop.

    Args:
        is_told_to_stop: asked when whoever tells it from now on ends the process.

    Raises:
        OSError: the interpreter is not there any more.
    """
    if threading.current_thread() is threading.main_thread():  # no other one can
        ignore_hangups()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
    if is_told_to_stop():
        return
    os.environ[_RESTARTED] = str(os.getpid())
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def is_successor() -> bool:
    """Whether this program has replaced another one in its process."""
    return os.environ.get(_RESTARTED) == str(os.getpid())
