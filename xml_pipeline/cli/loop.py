"""Running a command's coroutine, and ending the process even when something in it does not want to end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final

from xml_pipeline.cli.console import complain
from xml_pipeline.cli.exits import Exit

__all__ = ["run_coroutine"]

_LINGER: Final = 1.0
"""Seconds that tasks and threads which nobody waits for any more may hold up the end of the process."""


def run_coroutine(
    main: Coroutine[Any, Any, Exit], *, quick: bool = False, instead: Callable[[], object] = lambda: None
) -> Exit:
    """Run ``main`` and return its exit code.

    A handler may have left a task that swallows its cancellation, or a thread that never returns; closing the loop
    would wait for both. They get a second; then the process ends with the code it has.

    Args:
        main: the command.
        quick: use uvloop, if it is installed.
        instead: called before the process is ended for that reason, in a thread; it may become another program.
    """
    with asyncio.Runner(loop_factory=_loop_factory() if quick else None) as runner:
        code = runner.run(main)
        last = threading.Timer(_LINGER, _leave, (code, instead))
        last.daemon = True
        last.start()
    last.cancel()
    return code


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _leave(code: Exit, instead: Callable[[], object]) -> None:
    try:
        instead()
    except OSError as error:
        complain(f"error: not started anew: {error}")
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
