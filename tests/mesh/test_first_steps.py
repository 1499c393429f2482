"""What somebody sees who does it for the first time, and not quite right."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xml_pipeline.mesh import AgentMesh, AgentSpec, ConnectionFailed, MeshTimeout
from xml_pipeline.mesh.seconds import check_seconds

ROOT = Path(__file__).parents[2]

PROGRAM = """
from xml_pipeline.mesh import AgentMesh, AgentSpec

mesh = AgentMesh("nats://127.0.0.1:1")

@mesh.agent(AgentSpec(name="hello.greeter"))
async def greet(name: str) -> str:
    return f"Hello, {name}!"

mesh.run()
"""


def test_a_program_without_a_server_says_what_to_do(tmp_path):
    """In a few lines: nothing of the NATS client's own errors."""
    (tmp_path / "program.py").write_text(PROGRAM)
    ended = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert "nats://127.0.0.1:1" in last
    assert "`xml-pipeline mesh up`" in last
    assert "AgentMesh.local()" in last
    assert ended.stderr.count("Traceback") == 1
    assert "nats.errors" not in ended.stderr


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100 + b"\r\n"])
async def test_what_is_no_nats_server_is_said_so(greeting):
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as listener:
        mesh = AgentMesh(f"nats://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        with pytest.raises(ConnectionFailed, match="nats-server"):
            await mesh.__aenter__()


@pytest.mark.parametrize("url", [None, 4222, b"nats://localhost"])
def test_a_url_of_another_type(url):
    with pytest.raises(TypeError, match=r"nats://localhost:4222.*, not"):
        AgentMesh(url)


@pytest.mark.parametrize("spec", ["hello.greeter", None, {"name": "hello.greeter"}])
def test_what_is_no_spec(spec):
    with pytest.raises(TypeError, match=r"needs a spec, not .*AgentSpec\(name="):
        AgentMesh().agent(spec)


def test_a_decorator_without_parentheses_is_not_silently_nothing():
    with pytest.raises(TypeError, match="not the function"):

        @AgentMesh().agent
        async def greet(name: str) -> str:
            return name


def test_a_type_without_schema_is_named_without_advice_that_does_not_help():
    class Mystery: ...

    async def guess(thing: Mystery) -> str:
        return ""

    guess.__annotations__["thing"] = Mystery
    with pytest.raises(TypeError, match=r"'thing' of .*guess is of type .*Mystery") as caught:
        AgentMesh().agent(AgentSpec(name="a"))(guess)
    assert "arbitrary_types_allowed" not in str(caught.value)


def test_a_misspelt_field_of_a_spec_is_told(caplog):
    with caplog.at_level(logging.WARNING):
        assert AgentSpec(name="a", max_concurency=3).max_concurrency == 64
    assert "max_concurency" in caplog.text
    assert "did you mean 'max_concurrency'" in caplog.text


@pytest.mark.parametrize("value", ["5", None, True, [1]])
def test_time_limits_are_numbers(value):
    with pytest.raises(TypeError, match="timeout is a number of seconds"):
        check_seconds(value)
    with pytest.raises(TypeError, match="drain_timeout is a number of seconds"):
        AgentMesh(drain_timeout=value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_time_limits_are_finite(value):
    with pytest.raises(ValueError, match="finite"):
        check_seconds(value)


async def test_time_limits_are_looked_at_by_every_verb(mesh):
    for step in (
        mesh.call("a", timeout="5"),
        anext(mesh.stream("a", timeout="5")),
        mesh.send("a", timeout="5"),
        anext(mesh.subscribe(subject="a", timeout="5")),
    ):
        with pytest.raises(TypeError, match="number of seconds"):
            await step


@pytest.mark.parametrize("timeout", [0, -5])
async def test_a_time_limit_that_has_passed_is_a_timeout(host, mesh, timeout):
    @host.agent(AgentSpec(name="a.slow"))
    async def slow(value: int) -> int:
        await asyncio.Event().wait()
        return value

    async with host:
        with pytest.raises(MeshTimeout, match=r"within 0 s"):
            await mesh.call("a.slow", 1, timeout=timeout)
