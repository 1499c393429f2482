"""``tail``, and ``run --mesh``: real processes on a real server."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.cli.conftest import ORGANISM
from tests.mesh.commands import Following, subscribed
from tests.mesh.kit import plain_peer, until_names
from xml_pipeline.mesh import AgentMesh, HandlerError

MESH = """
mesh:
  url: {url}
  events: true
  expose: [{{listener: echo}}, {{listener: two}}]
"""


@pytest.fixture
def server(shared_server):
    shared_server.forget()
    return shared_server


@pytest.fixture
async def mesh(server):
    async with AgentMesh(server.url) as mesh:
        yield mesh


@pytest.fixture
async def begin(zygote, organism):
    """Start a command in the organism's directory."""
    started = []

    async def begin(*args, **options):
        started.append(await Following.start(zygote, organism, args, {"OAM_URL": ""}, **options))
        return started[-1]

    yield begin
    for following in started:
        await following.close()


@pytest.fixture
async def tail(begin, server, mesh):
    """Start a tail, and wait until the server has its subscription."""

    async def tail(*args, organism="test", **options):
        following = await begin("tail", "--mesh", server.url, *args, **options)
        await subscribed(mesh, f"mesh.pump.{organism}.events")
        return following

    return tail


@pytest.fixture
async def running(organism, begin, server, mesh):
    """The organism ``test`` in a process."""
    (organism / "organism.yaml").write_text(ORGANISM + MESH.format(url=server.url))
    process = await begin("run")
    await until_names(mesh, "test.echo", "test.two")
    return process


async def lines_until(following, text):
    seen = []
    while not seen or text not in seen[-1]:
        line = await following.line()
        assert line, f"it ended; {text!r} was not among {seen}"
        seen.append(line)
    return seen


async def test_a_tail_sees_what_happens_in_another_process(running, tail, mesh):
    following = await tail()
    assert await mesh.call("test.echo", {"text": "hi"}) == {"text": "echo hi"}
    lines = await lines_until(following, "conversation completed")
    sender = f"mesh:{mesh.instance_id}"
    lines = [line for line in lines if "system.boot" not in line]  # it may not have ended when the tail began
    first = next(line for line in lines if "->" in line)
    assert first.split("  ")[0].endswith(f" {sender} -> echo")
    assert {line.split()[1] for line in lines} == {"test"}
    assert len({line.split()[2] for line in lines}) == 1
    with pytest.raises(HandlerError):
        await mesh.call("test.echo", {"text": "crash"})
    (failed, *_) = [line for line in await lines_until(following, "error") if "failed" in line]
    assert "echo  failed: handler" in failed
    assert await following.end() == (130, "", "")


async def test_only_a_listener(running, tail, mesh):
    following = await tail("--listener", "two", "--json")
    await mesh.call("test.echo", {"text": "no"})
    await mesh.call("test.two", {"text": "yes"})
    event = await following.data()
    assert "two" in (event.get("from_id"), event.get("to_id"), event.get("agent_name"))
    assert event["organism"] == "test"
    await following.end()


async def test_only_a_conversation(running, tail, mesh):
    thread = "3e1f2d0c-5b1a-4c60-8f0a-6a2f2b7d9c11"
    only = await tail("--json", "--thread", thread)
    await mesh.call("test.echo", {"text": "b"})
    events = [{"event": "X", "conversation_id": thread}, {"event": "Y", "thread_id": thread, "conversation_id": "z"}]
    async with plain_peer(mesh.url) as peer:
        for event in events:
            await peer.publish("mesh.pump.test.events", json.dumps(event).encode())
    assert [await only.data(), await only.data()] == events
    await only.end()


async def test_only_an_organism(tail, mesh):
    one = await tail("--organism", "my shop.de", "--json", organism="my-shop.de")
    async with plain_peer(mesh.url) as peer:
        await peer.publish("mesh.pump.other.events", b'{"event": "Other"}')
        await peer.publish("mesh.pump.my-shop.de.events", b'{"event": "Ours"}')
    assert await one.data() == {"event": "Ours"}
    await one.end()


HOSTILE = [
    b"",
    b"no json",
    b"[]",
    b"5",
    b'"text"',
    b"null",
    b"{}",
    b'{"event": 5}',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"event": "ThreadEvent"}',
    b'{"event": "NoSuchEvent", "time": "x"}',
    b'{"event": "ThreadEvent", "status": ["created"]}',
    b'{"event": "OutcomeEvent", "code": {"a": 1}, "time": 1e300, "conversation_id": 5, "to_id": null}',
    b'{"event": "OutcomeEvent", "code": "x", "time": NaN}',
    b'{"event": "OutcomeEvent", "code": "x", "time": -1e18, "detail": "a\\nb\\u001b[2Jc\\u202ed\\ud800"}',
    b'{"event": "MessageReceivedEvent", "from_id": "\\u001b]0;x\\u0007", "to_id": "a\\r\\nb", "time": true}',
]


@pytest.mark.parametrize("flags", [(), ("--json",)])
async def test_what_anybody_publishes_does_no_harm(tail, mesh, flags):
    following = await tail(*flags)
    async with plain_peer(mesh.url) as peer:
        for body in HOSTILE:
            await peer.publish("mesh.pump.test.events", body)
        await peer.publish("mesh.pump.test.events", b'{"event": "SourceEvent", "name": "last", "status": "x"}')
    lines = await lines_until(following, "last")
    assert all(line.isprintable() for line in lines), lines
    if flags:
        assert all(isinstance(json.loads(line, parse_constant=pytest.fail), dict) for line in lines)
        assert len(lines) == sum(b'"event": "' in body for body in HOSTILE) - 1 + 1  # NaN is no JSON
    else:
        assert len(lines) == 3 + 1
    code, _, err = await following.end()
    assert (code, err) == (130, "")


async def test_it_ends_when_nobody_reads_any_more(tail, mesh):
    reads, writes = os.pipe()
    following = await tail("--json", stdout=writes)
    os.close(writes)
    os.close(reads)
    async with plain_peer(mesh.url) as peer:
        while following.process.poll() is None:
            await peer.publish("mesh.pump.test.events", b'{"event": "X"}')
            await peer.flush()
    assert (await following.end(None))[2] == ""


async def test_sigterm_ends_it(tail):
    following = await tail()
    code, out, err = await following.end(signal.SIGTERM)
    assert (out, err) == ("", "")
    assert code in (143, -signal.SIGTERM)


async def test_without_a_server_it_says_so(begin):
    following = await begin("tail", "--mesh", "nats://127.0.0.1:1")
    code, out, err = await following.end(None)
    assert (code, out) == (1, "")
    assert err.startswith("Error [connection_failed]")
    assert "Try: " in err
    assert "Traceback" not in err


async def test_an_address_that_is_none_is_a_usage_error(begin):
    code, _, err = await (await begin("tail", "--mesh", "ftp://x")).end(None)
    assert code == 2
    assert err.startswith("error: ")


# -- run --mesh --------------------------------------------------------------------------------------------------------


async def test_run_takes_another_server_than_that_of_the_file(organism, begin, server, mesh):
    (organism / "organism.yaml").write_text(ORGANISM + MESH.format(url="nats://127.0.0.1:1"))
    running = await begin("run", "--mesh", server.url)
    await until_names(mesh, "test.echo", "test.two")
    assert await mesh.call("test.echo", {"text": "hi"}) == {"text": "echo hi"}
    code, out, err = await running.end(signal.SIGTERM)
    assert (code, err) == (0, "")
    assert "everything was finished" in out
    await until_names(mesh)


async def test_a_file_without_the_section_has_nothing_to_do_on_a_mesh(organism, begin, server):
    code, out, err = await (await begin("run", "--mesh", server.url)).end(None)
    assert (code, out) == (1, "")
    assert "there is no 'mesh' section" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("url", ["nats://127.0.0.1:1", "nats://127.0.0.1:1,nats://127.0.0.1:2"])
async def test_a_server_that_is_not_there_ends_it(organism, begin, url):
    (organism / "organism.yaml").write_text(ORGANISM + MESH.format(url="local"))
    code, out, err = await (await begin("run", "--mesh", url)).end(None)
    assert (code, out) == (1, "")
    assert err.startswith("error: mesh: ") and "127.0.0.1:1" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("url", "expected", "told"),
    [
        ("ftp://x", 1, "error: mesh: 'ftp://x' is not"),
        ("nats://", 1, "error: mesh: 'nats://' is not"),
        ("", 2, "error: "),
    ],
)
async def test_an_address_that_is_none_is_told(organism, begin, url, expected, told):
    (organism / "organism.yaml").write_text(ORGANISM + MESH.format(url="local"))
    code, out, err = await (await begin("run", "--mesh", url)).end(None)
    assert (code, out) == (expected, "")
    assert err.startswith(told) and len(err.splitlines()) == 1


async def test_a_section_of_its_own_server(organism, begin):
    (organism / "organism.yaml").write_text(ORGANISM + MESH.format(url="local"))
    running = await begin("run")
    assert "is running" in await running.line()
    told = await running.line()
    url = told.removeprefix("its mesh is at ").removesuffix(" as long as it runs")
    async with AgentMesh(url) as member:
        await until_names(member, "test.echo", "test.two")
    code, _, err = await running.end(signal.SIGTERM)
    assert (code, err) == (0, "")
