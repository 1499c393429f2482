"""Runs commands in processes of their own, without each having to import everything: it has imported, and forks.

Its argument is the number of a socket. What comes there is a line of JSON for each command, ``{"args": [...],
"cwd": ..., "env": {...}, "program": ..., "at_once": ...}``, with four files: the command's input, output and errors,
and a pipe. Into that are written two lines: the process id when it has begun, and the exit code when it has ended,
negative for signals. If there is the text of a program, that is run instead of ``xml-pipeline``. If it is to end at
once, it is spared the farewell of an interpreter, which takes as long as many commands.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from typing import Any

# Imported for the children: what their commands will import.
import rich.live
import rich.pretty
import rich.table  # noqa: F401

from xml_pipeline import bridge, mesh, organism  # noqa: F401
from xml_pipeline.cli import commands, conversation, logs, loop, payloads, server, views  # noqa: F401
from xml_pipeline.cli.main import main
from xml_pipeline.cli.mesh import lines, output, session, stdin, tap  # noqa: F401
from xml_pipeline.mesh import place  # noqa: F401
from xml_pipeline.message_bus import transcript  # noqa: F401

Job = dict[str, Any]

_FILES = 4


def serve(asked: socket.socket) -> int:
    """Fork until nothing is asked for any more; in the children, do what was."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is the tests'
    gc.freeze()  # or every child would copy what it looks at
    watching: set[int] = set()
    while asking := _next(asked):
        job, files = asking
        pid = os.fork()
        if not pid:
            asked.close()
            return _watch(job, files)
        for file in files:
            os.close(file)
        watching = {pid} | {other for other in watching if not os.waitpid(other, os.WNOHANG)[0]}
    return 0


def _next(asked: socket.socket) -> tuple[Job, list[int]] | None:
    text, files, _, _ = socket.recv_fds(asked, 65536, _FILES)
    if not text:
        return None
    while not text.endswith(b"\n"):
        text += asked.recv(65536)
    return json.loads(text), files


def _watch(job: Job, files: list[int]) -> int:
    """Fork once more, and tell how that ends."""
    *streams, told = files
    pid = os.fork()
    if not pid:
        os.close(told)
        return _become(job, streams)
    for number in (0, 1, 2, *streams):
        os.close(number)
    os.write(told, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(told, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _become(job: Job, streams: list[int]) -> int:
    for number, file in enumerate(streams):
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - they stay open, as they do for every program
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.path[0] = job["cwd"]
    sys.argv = ["-c" if job["program"] else "xml-pipeline", *job["args"]]
    if job["program"]:
        exec(compile(job["program"], "<program>", "exec"), {"__name__": "__main__"})
        return 0
    sys.orig_argv = [sys.executable, "-m", "xml_pipeline.cli", *job["args"]]  # by which it starts itself again
    code = main()
    if job["at_once"]:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(serve(socket.socket(fileno=int(sys.argv[1]))))
