"""``mesh up`` and ``mesh down``: processes that outlive commands, and what is left when they are killed."""
# ruff: noqa: ASYNC220 - those that are started here do nothing but wait

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mesh.commands import Commands, commands  # noqa: F401 - fixtures
from tests.mesh.hosting import NAMES
from tests.mesh.kit import plain_peer, spin, until_names
from xml_pipeline.cli.mesh.process import ProcessId
from xml_pipeline.cli.mesh.state import Lock, Record, StateFolder
from xml_pipeline.mesh import AgentMesh


@pytest.fixture
def run(commands: Commands) -> Commands:  # noqa: F811
    return commands


def record(run: Commands) -> Record:
    found = StateFolder(run.state).record()
    assert found is not None
    return found


async def up(run: Commands, *arguments: str) -> Record:
    result = await run("up", "--port", "0", *arguments)
    assert result.code == 0, result
    return record(run)


def pointer(run: Commands) -> Path:
    return run.folder / ".oam-url"


# -- the usual


async def test_up_and_down(run):
    facts = await run.data("up", "--port", "0")
    assert facts["url"].startswith("nats://127.0.0.1:")
    assert pointer(run).read_text() == facts["url"] + "\n"
    assert facts["pointer"] == str(pointer(run))
    assert os.getsid(facts["pid"]) == facts["pid"], "it has no terminal, and is in nobody's group"
    assert stat.S_IMODE(run.state.stat().st_mode) == 0o700
    below = run.folder / "below"
    below.mkdir()
    assert (await run("kv", "put", "k", "v", cwd=below)).code == 0
    result = await run("down", cwd=below)
    assert (result.code, result.err) == (0, "")
    assert result.out == f"the mesh at {facts['url']} (process {facts['pid']}) was stopped\n"
    assert not pointer(run).exists()
    assert ProcessId.of(facts["pid"]) is ProcessId.of(facts["server_pid"]) is None
    assert (await run("down")).complaint(1) == "error: no mesh is up; to start one: xml-pipeline mesh up"
    # The files are kept, and the port is free at once.
    port = facts["url"].rpartition(":")[2]
    assert (await run.data("up", "--port", port))["url"] == facts["url"]
    assert (await run("kv", "get", "k")).out == "v"
    assert (await run.data("down"))["ended"] == "told"


async def test_up_tells_people_what_they_need(run):
    lines = (await run("up", "--port", "0")).out.splitlines()
    found = record(run)
    assert lines[0] == f"the mesh is up at {found.url}"
    assert f"  process    {found.supervisor.pid}" in lines
    assert f"  log        {run.state / 'log'}" in lines
    assert lines[-1] == "  stop it    xml-pipeline mesh down"


async def test_files_may_be_kept_elsewhere(run):
    await up(run, "--store", "here")
    assert record(run).store == str(run.folder / "here")
    assert (run.folder / "here" / "store").is_dir()
    await run("kv", "put", "k", "v")
    other = Commands(run._zygote, run.folder / "other")
    other.folder.mkdir()
    try:
        refused = (await other("up", "--port", "0", "--store", str(run.folder / "here"))).complaint(1)
    finally:
        await other.close()
    assert refused.startswith(f"error: the files in {run.folder / 'here'} are those of another mesh")
    await run("down")
    await up(run)
    assert (await run("kv", "get", "k")).code == 1, "these are other files"


async def test_dead_hosts_are_buried(run, hosting):
    url = (await up(run)).url
    async with AgentMesh(url) as mesh, hosting(url) as host:
        await until_names(mesh, *NAMES)
        host.process.kill()
        await asyncio.wait_for(until_names(mesh), 10)


async def test_all_buckets_are_there_before_anybody_comes(run):
    async with plain_peer((await up(run)).url) as peer:
        names = {info.config.name for info in await peer.jetstream().streams_info()}
    assert {"KV_mesh-catalog", "KV_mesh-registry", "KV_mesh-context", "KV_mesh-instances"} <= names


async def test_in_the_foreground_until_ctrl_c(run):
    following = await run.follow("up", "--port", "0", "--foreground")
    line = await following.line()
    assert line == f"the mesh is up at {pointer(run).read_text().strip()}"
    while await following.line() != "  stop it    Ctrl-C":
        pass
    assert (await run("up", "--port", "0")).code == 1
    server = record(run).server
    assert await following.end() == (0, "", "")
    assert not pointer(run).exists()
    assert not server.is_alive
    assert StateFolder(run.state).record() is None


async def test_the_foreground_ends_with_down_too(run):
    following = await run.follow("up", "--port", "0", "--foreground")
    await following.line()
    assert (await run("down")).code == 0
    assert (await following.end(None))[0] == 0


# -- refusals


async def test_one_mesh_at_a_time(run):
    found = await up(run)
    refused = (await run("up", "--port", "0")).complaint(1)
    assert refused == (
        f"error: the mesh is up already, at {found.url} (process {found.supervisor.pid}); "
        "to stop it: xml-pipeline mesh down"
    )
    assert record(run) == found
    assert pointer(run).exists()


async def test_several_at_the_same_time_are_one(run):
    starting = [await run.follow("up", "--port", "0") for _ in range(3)]
    ends = [await following.end(None) for following in starting]
    assert sorted(code for code, _, _ in ends) == [0, 1, 1]
    found = record(run)
    assert next(out for code, out, _ in ends if code == 0).startswith(f"the mesh is up at {found.url}\n")
    assert found.supervisor.is_alive
    stopping = [await run.follow("down") for _ in range(2)]
    assert 0 in [(await following.end(None))[0] for following in stopping]
    assert not found.supervisor.is_alive
    assert not found.server.is_alive
    assert not pointer(run).exists()


async def test_a_port_that_is_taken(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = (await run("up", "--port", str(port))).complaint(1)
    assert refused == (f"error: port {port} is taken by another program; choose another one with --port, or 0 for any")
    assert not pointer(run).exists()
    assert StateFolder(run.state).record() is None


@pytest.mark.parametrize("port", ["-1", "65536", "x"])
async def test_what_is_no_port(run, port):
    assert "--port" in (await run("up", "--port", port)).complaint(2)


async def test_a_pointer_of_somebody_else(run):
    pointer(run).write_text("nats://elsewhere:4222\n")
    refused = (await run("up", "--port", "0")).complaint(1)
    assert refused.startswith(f"error: {pointer(run)} is there, and says nats://elsewhere:4222; ")
    assert pointer(run).read_text() == "nats://elsewhere:4222\n"
    result = await run("up", "--port", "0", "--force")
    assert result.err == f"note: replaced {pointer(run)}, which said nats://elsewhere:4222\n"
    assert pointer(run).read_text() == record(run).url + "\n"
    pointer(run).write_text("nats://changed:1\n")
    assert (await run("down")).code == 0
    assert pointer(run).read_text() == "nats://changed:1\n", "it is somebody's again"


@pytest.mark.parametrize("text", ["no url", 'creds = "me"'])
async def test_a_pointer_that_says_something_else_or_nothing(run, text):
    pointer(run).write_text(text)
    assert "--force" in (await run("up", "--port", "0")).complaint(1)
    assert pointer(run).read_text() == text


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a directory is needed that not even root may write to")
async def test_a_directory_that_cannot_be_written_to(run):
    result = await run("up", "--port", "0", cwd=Path("/proc"))
    assert result.code == 0
    assert result.err.startswith("note: no .oam-url could be written in /proc: ")
    url = record(run).url
    assert result.err.endswith(f"; say --url {url}, or set OAM_URL\n")
    assert (await run("catalog", "--url", url)).code == 0
    assert (await run("down")).code == 0


async def test_a_store_that_cannot_be_made(run):
    (run.folder / "file").write_text("")
    assert "file/below cannot be made" in (await run("up", "--port", "0", "--store", "file/below")).complaint(1)
    assert StateFolder(run.state).record() is None
    await up(run)


async def test_a_state_folder_that_cannot_be_made(run):
    (run.folder / "file").write_text("")
    refused = (await run("up", XDG_STATE_HOME=str(run.folder / "file"))).complaint(1)
    assert "XDG_STATE_HOME chooses another place" in refused


async def test_without_a_server_it_says_what_to_install(run, tmp_path):
    program = (
        "import sys; from xml_pipeline.mesh import server, errors\n"
        "def find_server(): raise errors.ServerMissing\n"
        "server.find_server = find_server\n"
        "from xml_pipeline.cli.main import main; sys.exit(main(['mesh', 'up', '--foreground', '-p', '0']))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        cwd=tmp_path,
        env={**os.environ, **run.environment},
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode().startswith("error: There is no nats-server to start: install the extra `xml-pipeline[nats]`")
    assert not pointer(run).exists()


# -- what is killed


async def test_a_server_that_is_killed_is_started_again(run):
    found = await up(run)
    await run("kv", "put", "k", "v")
    found.server.signal(signal.SIGKILL)
    await spin(lambda: record(run).server not in (None, found.server))
    again = record(run)
    assert (again.url, again.supervisor) == (found.url, found.supervisor)
    assert (await run("kv", "get", "k")).out == "v"
    assert "the nats-server has ended" in (run.state / "log").read_text()
    assert (await run("down")).code == 0
    assert not again.server.is_alive


async def test_down_after_a_crash_removes_what_was_left(run):
    found = await up(run)
    found.supervisor.signal(signal.SIGKILL)
    await spin(lambda: not found.supervisor.is_alive)
    result = await run("down")
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("had ended already; what it left is gone\n")
    assert not found.server.is_alive
    assert not pointer(run).exists()
    assert (await run("down")).code == 1


async def test_up_after_a_crash_is_a_new_start(run):
    found = await up(run)
    await run("kv", "put", "k", "v")
    found.supervisor.signal(signal.SIGKILL)
    await spin(lambda: not found.supervisor.is_alive)
    result = await run("up", "--port", found.url.rpartition(":")[2])
    assert result.code == 0, result
    assert result.err.startswith(f"note: the mesh at {found.url} had ended without being told to")
    assert record(run).supervisor != found.supervisor
    assert (await run("kv", "get", "k")).out == "v"


async def test_one_that_does_not_hear_is_killed(run):
    found = await up(run)
    found.supervisor.signal(signal.SIGSTOP)
    result = await run("down", "--timeout", "0.2")
    assert result.code == 0
    assert result.out.endswith("had to be killed\n")
    assert not found.supervisor.is_alive
    assert not found.server.is_alive
    assert not pointer(run).exists()
    await up(run)


async def test_nobody_elses_process_is_ever_killed(run):
    """The numbers of a crashed mesh have been given to others meanwhile."""
    found = await up(run)
    found.supervisor.signal(signal.SIGKILL)
    await spin(lambda: not found.supervisor.is_alive)
    found.server.wait(10)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as innocent:
        theirs = dataclasses.replace(found.supervisor, pid=innocent.pid)
        StateFolder(run.state).write(dataclasses.replace(found, supervisor=theirs, server=theirs))
        assert (await run("down")).out.endswith("had ended already; what it left is gone\n")
        assert innocent.poll() is None
        StateFolder(run.state).write(dataclasses.replace(found, supervisor=theirs, server=theirs))
        await up(run)
        assert innocent.poll() is None
        innocent.communicate(b"\n")


async def test_a_record_that_makes_no_sense_is_none(run):
    run.state.mkdir(parents=True)
    for text in ("", "{", "[]", '{"supervisor": {"pid": "x", "started": ""}}', "\x00" * 100, "null"):
        (run.state / "up").write_text(text)
        assert (await run("down")).complaint(1).startswith("error: no mesh is up"), text
    await up(run)


async def test_ctrl_c_while_it_is_being_started(run):
    """Nothing of what was not wanted stays."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as server:
        run.state.mkdir(parents=True)
        left = Record(ProcessId(1, "never"), ProcessId.of(server.pid), "nats://127.0.0.1:1")
        StateFolder(run.state).write(left)  # so that it waits for the end of that server
        following = await run.follow("up", "--port", "0")
        await spin(lambda: (run.state / "lock").exists() and not is_free(run))
        assert await following.end() == (130, "", "")
        await spin(lambda: is_free(run))
        assert server.poll() is None
        assert record(run) == left
        server.communicate(b"\n")
    assert not pointer(run).exists()


def is_free(run: Commands) -> bool:
    """Whether nobody looks after the mesh."""
    lock = Lock(run.state / "lock")
    taken = lock.take()
    lock.release()
    return taken


# -- parts


def test_a_process_is_itself_and_no_other():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = ProcessId.of(child.pid)
        assert process.is_alive
        assert not process.wait(0.0)
        assert not dataclasses.replace(process, started="0").is_alive
        assert not dataclasses.replace(process, started="0").signal(signal.SIGKILL)
        assert process.signal(signal.SIGTERM)
        assert process.wait(10), "also as long as its parent has not asked for its exit code"
        assert child.poll() is None or child.returncode == -signal.SIGTERM
        assert not process.signal(signal.SIGTERM)
    assert ProcessId.of(0) is ProcessId.of(-1) is ProcessId.of(child.pid) is None


def test_a_process_as_other_systems_tell_it(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = ProcessId.of(child.pid)
        assert process is not None
        assert process.started
        assert not dataclasses.replace(process, started="other").signal(signal.SIGKILL)
        assert process.signal(signal.SIGTERM)
        assert process.wait(10)
    assert ProcessId.of(child.pid) is None


def test_a_record_comes_back_as_it_was_written(tmp_path):
    state = StateFolder(tmp_path)
    one = Record(ProcessId(1, "a"), ProcessId(2, "b"), "url", "store", "pointer")
    for record in (one, Record(ProcessId(1, "a"))):
        state.write(record)
        assert state.record() == record
    assert set(json.loads(one.text())) == {"supervisor", "server", "url", "store", "pointer"}
    state.forget()
    state.forget()
    assert state.record() is None


def test_a_lock_is_one_s_own(tmp_path):
    one, other = Lock(tmp_path / "lock"), Lock(tmp_path / "lock")
    assert one.take()
    assert not other.take()
    one.release()
    one.release()
    assert other.take()
    other.release()


def test_the_state_is_where_the_specification_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert StateFolder().path == tmp_path / ".local" / "state" / "xml-pipeline" / "mesh"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "x"))
    assert StateFolder().path == tmp_path / "x" / "xml-pipeline" / "mesh"
