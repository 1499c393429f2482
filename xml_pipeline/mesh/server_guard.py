"""Runs a nats-server for as long as the process that started this one lives.

Started as a program of its own, ``python -I -S server_guard.py FOLDER KEEP BINARY ARGUMENT...``, with a pipe as its
input. The kernel closes the other end of the pipe when the parent ends, however it ends, also by SIGKILL; then the
server is stopped, and its folder removed unless KEEP is 1. It imports nothing of the project and little of the library,
so that it starts in the time of an interpreter.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys

__all__ = ["main"]

_PATIENCE = 5.0


def main(arguments: list[str]) -> int:
    """Start the server, wait for the end of the input or of the server, clean up.

    Args:
        arguments: the folder, whether to keep it, the binary, and its arguments.

    Returns:
        The server's exit status, or 128 and the number of the signal that ended it.
    """
    folder, keep, binary, *rest = arguments
    # Ctrl-C in a terminal goes to everybody in the foreground; the server has to outlive its users' farewell.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ended, ender = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ended)
        os.setpgid(0, 0)
        os.set_inheritable(ender, True)  # closed by the kernel when the server ends
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execv(binary, [binary, *rest])
    os.close(ender)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(pid, signal.SIGTERM))
    readable, _, _ = select.select([0, ended], [], [])
    if ended not in readable:
        _stop(pid, ended)
    _, status = os.waitpid(pid, 0)
    if keep != "1":
        shutil.rmtree(folder, ignore_errors=True)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _stop(pid: int, ended: int) -> None:
    os.kill(pid, signal.SIGTERM)
    if not select.select([ended], [], [], _PATIENCE)[0]:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
