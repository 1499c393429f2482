"""Runs a nats-server for as long as the process that started this one lives.

Started as a program of its own, ``python -I -S server_guard.py FOLDER KEEP BINARY ARGUMENT...``, in a session of its
own and with a pipe as its input. The kernel closes the other end of the pipe when the parent ends, however it ends,
also by SIGKILL; then the server is stopped, and its folder removed unless KEEP is 1. It imports nothing of the project
and little of the library, so that it starts in the time of an interpreter.

::

    parent --- pipe, and where there is one, a descriptor of the process ---> guard
    guard  --- waits for the end of both; takes no signal but SIGKILL ------> server
    guard is killed: the kernel ends the server (Linux)
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys

__all__ = ["main"]

_PATIENCE = 5.0
_PR_SET_PDEATHSIG = 1  # prctl(2)


def main(arguments: list[str]) -> int:
    """Start the server, wait for the end of the input, of the parent or of the server, clean up.

    Args:
        arguments: the folder, whether to keep it, the binary, and its arguments.

    Returns:
        The server's exit status, or 128 and the number of the signal that ended it.
    """
    folder, keep, binary, *rest = arguments
    # A signal may go to everybody at once. The server outlives the farewell of its users, and ends when they have.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ends = [0, *_parent()]
    ended, ender = os.pipe()
    guard = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(ended)
        _die_with(guard)
        os.set_inheritable(ender, True)  # closed by the kernel when the server ends
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execv(binary, [binary, *rest])
    os.close(ender)
    readable, _, _ = select.select([*ends, ended], [], [])
    if ended not in readable:
        _stop(pid, ended)
    _, status = os.waitpid(pid, 0)
    if keep != "1":
        shutil.rmtree(folder, ignore_errors=True)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _parent() -> list[int]:
    """A descriptor that tells of the parent's end, where the system has such.

    The pipe alone would not do: a process that the parent has forked, such as one of a pool, holds its end open too.
    """
    with contextlib.suppress(AttributeError, OSError):
        return [os.pidfd_open(os.getppid())]
    return []


def _die_with(guard: int) -> None:
    """Have the kernel end this process, which becomes the server, when the guard is killed."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != guard:  # it was killed before
        os._exit(1)


def _stop(pid: int, ended: int) -> None:
    os.kill(pid, signal.SIGTERM)
    if not select.select([ended], [], [], _PATIENCE)[0]:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
