"""``mesh kv``."""

from __future__ import annotations

import asyncio
import json
import os
import pty

import pytest

from tests.mesh.commands import Commands, commands  # noqa: F401 - fixtures


@pytest.fixture
def run(commands: Commands, server) -> Commands:  # noqa: F811
    commands.environment["OAM_URL"] = server.url
    return commands


BYTES = bytes(range(256)) * 300  # more than a pipe takes at once


async def test_a_value_comes_back_as_it_was_given(run, mesh):
    assert (await run("kv", "put", "a.b", "grün\tx")).out == "a.b: revision 1\n"
    result = await run("kv", "get", "a.b")
    assert (result.code, result.out, result.err) == (0, "grün\tx", "")
    assert await mesh.kv.get("a.b") == "grün\tx"
    assert await run.data("kv", "put", "a.b", "", stdin=b"not read") == {"key": "a.b", "revision": 2}
    assert (await run("kv", "get", "a.b")).out == ""
    assert (await run("kv", "put", "a.b", "--", "-5")).code == 0
    assert await run.data("kv", "get", "a.b") == {"key": "a.b", "value": "-5", "revision": 3}


@pytest.mark.parametrize("arguments", [(), ("-",)])
async def test_bytes_from_stdin_to_a_pipe(run, mesh, arguments):
    assert (await run("kv", "put", "k", *arguments, stdin=BYTES)).code == 0
    assert (await mesh.kv.entry("k")).value == BYTES
    getting = await run.follow("kv", "get", "k")
    assert await getting.rest() == (0, BYTES, b"")


async def test_bytes_as_json(run, mesh):
    await mesh.kv.put("k", b"\xff\x00")
    assert await run.data("kv", "get", "k") == {"key": "k", "base64": "/wA=", "revision": 1}


async def test_a_terminal_is_not_acted_on(run, mesh):
    await mesh.kv.put("k", b"one\n\ttwo\x1b]0;title\x07\xc2\x9b31m\xff")
    main, terminal = pty.openpty()
    getting = await run.follow("kv", "get", "k", stdout=terminal)
    os.close(terminal)
    assert await getting.process.ended() == 0
    assert os.read(main, 1000).replace(b"\r\n", b"\n") == b"one\n\ttwo\\x1b]0;title\\x07\\x9b31m\\xff\n"
    os.close(main)


async def test_a_value_is_missing(run):
    main, terminal = pty.openpty()
    putting = await run.follow("kv", "put", "k", stdin=terminal)
    code, _, err = await putting.end(None)
    os.close(main)
    os.close(terminal)
    assert (code, err) == (2, "error: a VALUE is missing; - reads it from standard input\n")


async def test_no_such_key(run, mesh):
    result = await run("kv", "get", "k")
    assert (result.code, result.out) == (1, "")
    assert result.err == 'Error [kv_key_not_found] There is no such key: k\n{\n  "key": "k"\n}\n'
    assert (await run("kv", "delete", "k")).code == 0
    await mesh.kv.put("k", "v")
    assert (await run("kv", "delete", "k")).out == "k: deleted\n"
    assert (await run("kv", "get", "k")).code == 1
    assert await run.data("kv", "delete", "k") == {"key": "k"}


@pytest.mark.parametrize("key", ["", "a..b", "a b", "a.*", "x" * 1000])
async def test_what_is_no_key_is_refused(run, key):
    for verb in ("get", "put", "delete"):
        assert "is not a key" in (await run("kv", verb, key)).complaint(2)
    if "*" not in key:
        for verb in ("list", "watch"):
            assert "is not a pattern of keys" in (await run("kv", verb, key)).complaint(2)


async def test_more_than_the_server_takes(run, mesh):
    result = await run("kv", "put", "k", stdin=b"x" * (mesh.parts.link.max_payload + 1))
    assert result.code == 1
    assert result.err.startswith("Error [payload_too_large] ")


async def test_keys_are_listed(run, mesh):
    assert (await run("kv", "list")).out == "KEY  REVISION  VALUE\n(empty)\n"
    for key, value in (("a.x", "one"), ("b.x", "line\nline\x1b[31m"), ("a.y", "z" * 200), ("a.z", "gone")):
        await mesh.kv.put(key, value)
    await mesh.kv.delete("a.z")
    lines = (await run("kv", "list")).out.splitlines()
    assert lines == [
        "KEY  REVISION  VALUE",
        "a.x  1         one",
        "b.x  2         line line [31m",
        f"a.y  3         {'z' * 77}...",
    ]
    assert await run.data("kv", "list", "a.*") == [
        {"key": "a.x", "value": "one", "revision": 1},
        {"key": "a.y", "value": "z" * 200, "revision": 3},
    ]


async def test_changes_are_followed(run, mesh):
    await mesh.kv.put("a.x", "line\nline\x1b[31m")
    text = await run.follow("kv", "watch")
    data = await run.follow("kv", "watch", "a.*", "--json")
    assert await text.line() == "PUT   a.x  1  line line [31m"
    assert await data.data() == {"key": "a.x", "value": "line\nline\x1b[31m", "revision": 1, "operation": "PUT"}
    await mesh.kv.put("b", "2")
    await mesh.kv.delete("a.x")
    assert [await text.line(), await text.line()] == ["PUT   b  2  2", "DEL   a.x  3"]
    assert await data.data() == {"key": "a.x", "value": "", "revision": 3, "operation": "DEL"}
    for following in (text, data):
        assert await following.end() == (130, "", "")


async def test_one_value_is_waited_for(run, mesh, peer):
    """That there is none any more is not one."""
    following = await run.follow("kv", "watch", "a", "--once", "--json")
    while not await peer.jetstream().consumers_info("KV_mesh-context"):
        pass
    await mesh.kv.delete("a")
    await mesh.kv.put("a", "now")
    assert await following.data() == {"key": "a", "value": "now", "revision": 2, "operation": "PUT"}
    assert await following.end(None) == (0, "", "")
    assert (await run("kv", "watch", "a", "--once")).out == "PUT   a  2  now\n"


async def test_a_name_goes_on_where_it_was(run, mesh):
    await mesh.kv.put("a", "1")
    first = await run.follow("kv", "watch", "--resume", "me", "--json")
    assert (await first.data())["value"] == "1"
    await mesh.kv.put("b", "2")
    assert (await first.data())["value"] == "2"
    assert (await first.end())[0] == 130
    await mesh.kv.put("c", "3")
    again = await run.follow("kv", "watch", "--resume", "me", "--json")
    seen = []
    while not seen or seen[-1] != "3":
        seen.append((await asyncio.wait_for(again.data(), 20))["value"])
    assert "1" not in seen, "it was handled"
    assert seen in (["2", "3"], ["3"]), "what was being handled may come again"


async def test_a_name_that_is_none_is_refused(run, server):
    assert "must have 1 to" in (await run("kv", "watch", "--resume", "x" * 10_000)).complaint(2)


async def test_a_closed_pipe_is_no_reason_to_complain(run, mesh):
    await mesh.kv.put("a", "1")
    reader, writer = os.pipe()
    os.close(reader)
    for verb in (("watch",), ("list",), ("get", "a")):
        following = await run.follow("kv", *verb, stdout=writer)
        code, _, err = await following.end(None)
        assert (code, err) == (1, ""), verb
    os.close(writer)


async def test_json_is_json(run, mesh):
    await mesh.kv.put("k", "\ud800".encode("utf-8", "surrogatepass") + "\u2028\U0001f600\x7f".encode())
    out = (await run("kv", "get", "k", "--json")).out
    assert "base64" in json.loads(out)
    await mesh.kv.put("k", "\u2028\U0001f600\x7f\U000e0001")
    out = (await run("kv", "get", "k", "--json")).out
    assert json.loads(out)["value"] == "\u2028\U0001f600\x7f\U000e0001"
    assert '"\\u2028\U0001f600\\u007f\\udb40\\udc01"' in out
