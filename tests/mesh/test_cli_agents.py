"""Commands that find and use agents; agents of ours and of the SDK."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import sys
import termios
from collections.abc import AsyncIterator

import pytest

from tests.mesh.commands import Commands, commands, subscribed  # noqa: F401 - fixtures
from tests.mesh.hosting import NAMES as AGENTS
from tests.mesh.kit import Ask, Told, chunks_on, echo_on, gated_on, plain_peer, spin, until_names
from xml_pipeline.mesh import AgentMesh, AgentSpec, MeshError

NAMES = ("demo.echo", "demo.chunks", "demo.evil", "demo.ticks", "demo.gated")
HOSTILE = "a\x1b]0;title\x07b\u009b31m\u202ec"


@pytest.fixture
async def host(server):
    """Agents of every shape, served in the test's own process."""
    async with AgentMesh(server.url, drain_timeout=5.0) as host:
        echo_on(host, tags=["t"], version="1.2.3")
        chunks_on(host)

        @host.agent(AgentSpec(name="demo.evil", description=f"Says {HOSTILE}\nand more"))
        async def evil(how: str) -> str:
            if how == "raise":
                raise MeshError(f"code{HOSTILE}", f"text{HOSTILE}\nError [ok] fake", details={"key": HOSTILE})
            return HOSTILE

        host.go, host.on = asyncio.Event(), asyncio.Event()  # type: ignore[attr-defined]

        @host.agent(AgentSpec(name="demo.ticks", description="Publishes"))
        async def ticks() -> AsyncIterator[dict[str, int]]:
            await host.go.wait()  # type: ignore[attr-defined]
            yield {"b": 1, "a": 1}
            yield {"b": 2, "a": 2}
            await host.on.wait()  # type: ignore[attr-defined]

        host.gate = gated_on(host)  # type: ignore[attr-defined]
        await until_names(host, *NAMES)
        yield host


@pytest.fixture
def run(commands: Commands, server) -> Commands:  # noqa: F811
    commands.environment["OAM_URL"] = server.url
    return commands


def is_tame(text: str) -> bool:
    """Whether a terminal would do nothing but show it."""
    return all(char.isprintable() or char == "\n" for char in text)


# -- who is there


async def test_the_catalog_is_a_table(run, host):
    result = await run("catalog")
    assert (result.code, result.err) == (0, "")
    assert [line.split(maxsplit=2)[:2] for line in result.out.splitlines()] == [
        ["NAME", "STREAMING"],
        ["demo.echo", "no"],
        ["demo.chunks", "yes"],
        ["demo.evil", "no"],
        ["demo.ticks", "yes"],
        ["demo.gated", "no"],
    ]
    assert result.out.splitlines()[1] == "demo.echo    no         Echoes"
    assert is_tame(result.out)
    assert "and more" not in result.out, "a line is a line"


async def test_the_catalog_of_nobody(run, server):
    assert (await run("catalog")).out.splitlines()[1] == "(empty)"
    assert await run.data("catalog") == []


async def test_the_catalog_as_json(run, host):
    entries = await run.data("catalog", "--channel", "demo.echo")
    assert entries == [
        {
            "name": "demo.echo",
            "description": "Echoes",
            "version": "1.2.3",
            "tags": ["t"],
            "invocable": True,
            "streaming": False,
        }
    ]
    assert await run.data("catalog", "--channel", "dem") == []
    everything = await run("catalog", "--json")
    assert is_tame(everything.out)
    assert json.loads(everything.out)[2]["description"] == f"Says {HOSTILE}\nand more", "escaped, and the same"


async def test_a_contract_as_json_and_for_people(run, host):
    found = json.loads((await run("contract", "demo.echo")).out)
    assert found["input_schema"] == Ask.model_json_schema()
    assert found["output_schema"] == Told.model_json_schema()
    lines = (await run("contract", "demo.chunks", "--text")).out.splitlines()
    assert lines[:2] == ["name:        demo.chunks", "description: Streams"]
    assert "streaming:   yes" in lines
    assert lines[-1] == "use:         xml-pipeline mesh stream demo.chunks JSON"
    assert is_tame((await run("contract", "demo.evil", "--text")).out)


@pytest.mark.parametrize("verb", ["contract", "call", "stream", "subscribe"])
async def test_nobody_of_that_name(run, server, verb):
    result = await run(verb, "no.body")
    assert (result.code, result.out) == (1, "")
    assert result.err == "Error [not_found] There is no agent 'no.body'.\nTry: xml-pipeline mesh catalog\n"


# -- calls


@pytest.mark.parametrize(
    ("argument", "stdin"), [('{"message": "x", "n": 2}', b""), (None, b'\xef\xbb\xbf{"message": "x", "n": 2}\n')]
)
async def test_a_call_prints_the_answer(run, host, argument, stdin):
    arguments = ("call", "demo.echo", *([argument] if argument else []))
    result = await run(*arguments, stdin=stdin)
    assert (result.code, result.out, result.err) == (0, '{"reply": "xx"}\n', "")
    assert (await run(*arguments, "--json", stdin=stdin)).out == '{\n  "reply": "xx"\n}\n'
    if argument is None:
        assert (await run(*arguments, "-", stdin=stdin)).out == result.out


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        ("Ada", "line 1, column 1: Expecting value"),
        ('\n{"a": x}', "line 2, column 7"),
        ('{"message": NaN}', "NaN is no number"),
        ("9" * 5000, "digit"),
        ("[" * 100_000, "nested too deeply"),
        ('"\udcff"', "byte 1 is not UTF-8"),
    ],
)
async def test_what_is_not_json_is_not_sent(run, host, payload, fault):
    complaint = (await run("call", "demo.echo", payload)).complaint(2)
    assert complaint.startswith("error: the payload is not JSON: ")
    assert fault in complaint


async def test_stdin_that_is_not_json_is_not_sent(run, host):
    for verb in ("call", "stream"):
        assert "byte 2 is not UTF-8" in (await run(verb, "demo.echo", stdin=b'{"\xff": 1}')).complaint(2)


async def test_no_payload_is_none(run, host):
    @host.agent(AgentSpec(name="demo.now", description="Takes nothing"))
    async def now() -> str:
        return "now"

    await until_names(host, *NAMES, "demo.now")
    assert (await run("call", "demo.now", stdin=b" \n")).out == '"now"\n'


async def test_a_payload_that_does_not_fit(run, host):
    result = await run("call", "demo.echo", '{"message": "x", "n": 0}')
    assert (result.code, result.out) == (1, "")
    first, *details = result.err.splitlines()
    assert first.startswith("Error [invalid_input] ")
    assert json.loads("\n".join(details))["errors"][0]["loc"] == ["n"]


@pytest.mark.parametrize(
    ("verb", "name", "advice"),
    [
        ("call", "demo.chunks", "stream demo.chunks [JSON]"),
        ("call", "demo.ticks", "subscribe demo.ticks"),
        ("stream", "demo.echo", "call demo.echo [JSON]"),
        ("subscribe", "demo.echo", "call demo.echo [JSON]"),
    ],
)
async def test_the_wrong_verb_is_told_the_right_one(run, host, verb, name, advice):
    result = await run(verb, name)
    assert result.code == 1
    assert result.err.startswith("Error [invocation_mismatch] ")
    assert result.err.endswith(f"\nTry: xml-pipeline mesh {advice}\n")


async def test_a_call_that_takes_too_long(run, host):
    result = await run("call", "demo.gated", "1", "--timeout", "0.3")
    assert (result.code, result.out) == (124, "")
    assert result.err.startswith("Error [timeout] ")


async def test_an_interrupted_call_is_cancelled(run, host):
    calling = await run.follow("call", "demo.gated", "7")
    assert await host.gate.begun.get() == 7
    assert await calling.end() == (130, "", "")
    await asyncio.wait_for(host.gate.cancelled.wait(), 10)


async def test_nothing_hostile_reaches_the_terminal(run, host):
    answer = await run("call", "demo.evil", '"say"')
    assert is_tame(answer.out)
    assert json.loads(answer.out) == HOSTILE
    refused = await run("call", "demo.evil", '"raise"')
    assert refused.code == 1
    assert is_tame(refused.err)
    first, *details = refused.err.splitlines()
    assert first.startswith("Error [code")
    assert first.endswith("Error [ok] fake"), "what it says stays on one line"
    assert json.loads("\n".join(details)) == {"key": HOSTILE}


async def test_a_long_complaint_is_cut(run, host):
    @host.agent(AgentSpec(name="demo.long"))
    async def long(x: int) -> int:
        """Complains."""
        raise MeshError("long", "x" * 100_000)

    await until_names(host, *NAMES, "demo.long")
    assert len((await run("call", "demo.long", "1")).complaint(1)) < 3000


# -- what goes on


async def test_a_stream_is_a_line_for_each_chunk(run, host):
    for arguments in ((), ("--json",)):
        result = await run("stream", "demo.chunks", '{"message": "ü", "n": 3}', *arguments)
        assert (result.code, result.err) == (0, "")
        assert result.out == '{"delta": "ü0"}\n{"delta": "ü1"}\n{"delta": "ü2"}\n'


@pytest.mark.parametrize("who", ["reader", "signal"])
async def test_a_stream_that_nobody_wants_any_more_is_stopped(run, host, who):
    stopped = asyncio.Event()

    @host.agent(AgentSpec(name="demo.endless"))
    async def endless(x: int) -> AsyncIterator[int]:
        """Never ends."""
        try:
            while True:
                yield x
        finally:
            stopped.set()

    await until_names(host, *NAMES, "demo.endless")
    if who == "signal":
        following = await run.follow("stream", "demo.endless", "1")
        assert await following.line() == "1"
        code, out, err = await following.end()
        assert (code, err) == (130, "")
        assert set(out.split()) <= {"1"}
    else:
        reader, writer = os.pipe()
        following = await run.follow("stream", "demo.endless", "1", stdout=writer)
        os.close(writer)
        await asyncio.to_thread(os.read, reader, 1)
        os.close(reader)
        code, _, err = await following.end(None)
        assert (code, err) == (1, ""), "no complaint about a closed pipe"
    await asyncio.wait_for(stopped.wait(), 10)


def waiting_in(pipe: int) -> int:
    """Bytes that are to be read."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


async def test_ctrl_c_ends_a_command_whose_reader_stands_still(run, host):
    @host.agent(AgentSpec(name="demo.flood"))
    async def flood(x: int) -> AsyncIterator[str]:
        """Never ends."""
        while True:
            yield "x" * 1000

    await until_names(host, *NAMES, "demo.flood")
    reader, writer = os.pipe()
    following = await run.follow("stream", "demo.flood", "1", stdout=writer)
    os.close(writer)
    room = fcntl.fcntl(reader, fcntl.F_GETPIPE_SZ)
    await spin(lambda: waiting_in(reader) > room - 4096)  # until the command waits
    code, _, err = await following.end()
    os.close(reader)
    assert (code, err) == (130, "")


async def test_events_until_the_publisher_ends(run, host):
    following = await run.follow("subscribe", "demo.ticks", "--json", "--timeout", "30")
    await subscribed(host, "mesh.agent.demo.ticks.events")
    host.go.set()
    assert await following.line() == '{"a": 1, "b": 1}'
    assert await following.line() == '{"a": 2, "b": 2}'
    host.on.set()
    assert await following.end(None) == (0, "", "")


async def test_events_that_do_not_come(run, host):
    result = await run("subscribe", "demo.ticks", "--timeout", "0.3")
    assert result.code == 124
    assert result.err.startswith("Error [timeout] ")


async def test_listening_shows_headers_and_body(run, host):
    following = await run.follow("listen", "any.*")
    await subscribed(host, "any.thing")
    await following.line(), await following.line()  # the question whether it listens
    await host.parts.link.publish("any.one", HOSTILE.encode() + b"\xff", "_INBOX.x", {"X-Name": "a\tvalue", "B": "1"})
    await host.parts.link.publish("any.two", b"")
    assert await following.line() == "[any.one] a ]0;title b 31m c\ufffd"
    assert [await following.line() for _ in range(3)] == ["  reply to _INBOX.x", "  X-Name: a value", "  B: 1"]
    assert await following.line() == "[any.two]"
    assert await following.end() == (130, "", "")


async def test_listening_as_json(run, host):
    following = await run.follow("listen", "any.>", "--json")
    await subscribed(host, "any.thing")
    assert (await following.data())["subject"] == "any.thing"
    link = host.parts.link
    for subject, body in (("any.json", b'{"a": [1]}'), ("any.text", HOSTILE.encode()), ("any.bytes", b"\xff")):
        await link.publish(subject, body, headers={"X": "1"})
    head = {"reply": None, "headers": {"X": "1"}}
    assert await following.data() == {"subject": "any.json", **head, "data": {"a": [1]}}
    line = await following.line()
    assert is_tame(line)
    assert json.loads(line) == {"subject": "any.text", **head, "data": HOSTILE}
    assert await following.data() == {"subject": "any.bytes", **head, "base64": "/w=="}


async def test_listening_survives_the_server(run, lasting_server):
    run.environment["OAM_URL"] = lasting_server.url
    following = await run.follow("listen", "any.>")
    async with AgentMesh(lasting_server.url) as mesh:
        await subscribed(mesh, "any.thing")
        await following.line(), await following.line()
        lasting_server.kill()
        await lasting_server.wait()
        await lasting_server.stop()
        await lasting_server.start()
        await mesh.parts.link.wait_up(10)
        await subscribed(mesh, "any.thing")
        assert await following.line() == "[any.thing]"
        _, _, err = await following.end()
        assert err.startswith("warning: the connection to the mesh is lost ")


@pytest.mark.parametrize("subject", ["", "a..b", "a b", "a.>.b"])
async def test_what_is_no_subject_is_refused(run, server, subject):
    assert "is not a subject to subscribe to" in (await run("listen", subject)).complaint(2)


# -- where the mesh is


async def test_a_mesh_that_is_not_there(run):
    result = await run("catalog", "--url", "nats://localhost:1")
    assert (result.code, result.out) == (1, "")
    first, second = result.err.splitlines()
    assert first.startswith("Error [connection_failed] There is no connection to the mesh at nats://localhost:1")
    assert second == "Try: xml-pipeline mesh up, or another --url"
    (run.folder / ".oam-url").write_text("nats://127.0.0.1:1\n")
    result = await run("kv", "list", OAM_URL="")
    assert result.err.splitlines()[1].endswith(f"(this one is from {run.folder / '.oam-url'})")


async def test_something_else_listens_there(run):
    """It may be anything, also something that waits for us to speak first."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = await run("catalog", "--url", f"nats://127.0.0.1:{silent.getsockname()[1]}")
    assert result.code == 1
    assert result.err.startswith("Error [connection_failed] ")


@pytest.mark.parametrize(
    ("arguments", "environment", "complaint"),
    [
        (("--url", "http://x"), {}, "error: 'http://x' is not the URL of a mesh"),
        ((), {"OAM_URL": "n ats"}, "error: OAM_URL: 'n ats' is not the URL of a mesh"),
        (("--creds", "none.creds"), {}, "error: The credentials file none.creds does not exist."),
        ((), {"OAM_CREDS": "none.creds"}, "error: The credentials file none.creds does not exist."),
    ],
)
async def test_a_place_that_makes_no_sense(run, arguments, environment, complaint):
    for verb in (("catalog",), ("listen", ">"), ("kv", "get", "k"), ("monitor", "--sys-url", "nats://x")):
        assert complaint in (await run(*verb, *arguments, **environment)).complaint(2)


async def test_the_flag_the_environment_and_the_file_in_this_order(run, server):
    below = run.folder / "a" / "b"
    below.mkdir(parents=True)
    (run.folder / ".oam-url").write_text(f"\n  {server.url}\n")
    assert (await run("catalog", cwd=below, OAM_URL="")).code == 0
    assert "nats://localhost:1:" in (await run("catalog", cwd=below, OAM_URL="nats://localhost:1")).err
    assert (await run("catalog", "--url", server.url, cwd=below, OAM_URL="nats://localhost:1")).code == 0
    (run.folder / ".oam-url").write_text(f'url = "{server.url}"\ncreds = "none.creds"\n')
    complaint = (await run("catalog", cwd=below, OAM_URL="")).complaint(2)
    assert f"{run.folder / 'none.creds'} does not exist" in complaint
    (below / ".oam-url").write_text("not a url")
    assert f"{below / '.oam-url'}: 'not a url' is not the URL" in (
        await run("catalog", cwd=below, OAM_URL="")
    ).complaint(2)


# -- monitor


@pytest.mark.parametrize("options", [[], ["--json"]])
async def test_a_monitor_tells_whom_it_buries(run, server, options, hosting):
    """One at a time: where several look after a mesh, whoever is first buries, and the others have nothing to tell."""
    monitor = await run.follow("monitor", "--sys-url", server.system_url, *options)
    if not options:
        assert await monitor.line() == f"watching {server.url}; Ctrl-C ends it"
    async with plain_peer(server.system_url) as system:
        await until_watched(system, monitors=1)
    async with hosting(server.url) as host:
        host.process.kill()
        agents = sorted(AGENTS)
        if options:
            assert await monitor.data() == {"instance_id": host.instance_id, "agents": agents}
        else:
            told = f"the host {host.instance_id} is gone; agents that left with it: {', '.join(agents)}"
            assert await monitor.line() == told
    assert await monitor.end() == (0, "", "")


async def until_watched(system, *, monitors: int) -> None:
    """Wait until so many subscribe to what the server says of connections that end."""
    asked = json.dumps({"acc": "SYS", "subscriptions": True, "test": "$SYS.ACCOUNT.APP.DISCONNECT"}).encode()
    while True:
        answer = await system.request("$SYS.REQ.SERVER.PING.SUBSZ", asked, timeout=10)
        found = json.loads(answer.data)["data"].get("subscriptions_list") or ()
        if sum(one["subject"] == "$SYS.ACCOUNT.*.DISCONNECT" for one in found) >= monitors:
            return


async def test_a_monitor_needs_the_system_account(run):
    assert "--sys-url" in (await run("monitor")).complaint(2)


async def test_sigterm_ends_what_goes_on(run, server):
    following = await run.follow("listen", ">")
    async with AgentMesh(server.url) as mesh:
        await subscribed(mesh, "any.thing")
    code, _, err = await following.end(signal.SIGTERM)
    assert (code, err) == (-signal.SIGTERM, "")
