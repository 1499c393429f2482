"""Runs commands in processes of their own, without each having to import everything: it has imported, and forks.

Reads a JSON object per line, ``{"args": [...], "cwd": ..., "stdin": ..., "env": {...}}``, and answers with one,
``{"code": ..., "out": ..., "err": ...}``.
"""

import json
import os
import sys
import tempfile

# Imported for the children: what their commands will import.
from xml_pipeline import organism  # noqa: F401 - for the children
from xml_pipeline.cli import conversation, loop, payloads, server, views  # noqa: F401 - for the children
from xml_pipeline.cli.main import main


def run(job):
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        stdin.write(job["stdin"].encode("latin-1"))
        stdin.seek(0)
        child = os.fork()
        if not child:
            become(job, stdin, out, err)
        _, status = os.waitpid(child, 0)
        out.seek(0)
        err.seek(0)
        return {"code": os.waitstatus_to_exitcode(status), "out": out.read().decode(), "err": err.read().decode()}


def become(job, stdin, out, err):
    for number, file in enumerate((stdin, out, err)):
        os.dup2(file.fileno(), number)
    sys.stdin = os.fdopen(0)
    os.environ.update(job["env"])
    os.chdir(job["cwd"])
    sys.argv = ["xml-pipeline", *job["args"]]
    code = 99
    try:
        code = main()
    except BaseException as error:
        sys.stderr.write(f"Traceback: {error!r}\n")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    answers.write(json.dumps(run(json.loads(line))) + "\n")
    answers.flush()
