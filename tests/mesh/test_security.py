"""Who may connect, who may do what, and how a refusal is told. The servers are real, and made for each test."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import shutil
import ssl
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.mesh.kit import Ask, Tap, chunks_on, echo_on, plain_peer, until_names
from tests.mesh.secured import Authority, ConfiguredServer, NKey, creds_of, jwt_of, operator_config
from xml_pipeline.mesh import (
    AgentMesh,
    AgentSpec,
    ConnectionDenied,
    ConnectionFailed,
    EmbeddedServer,
    MeshError,
    Monitor,
    NotFound,
    StorageError,
)
from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.options import ConnectionOptions
from xml_pipeline.mesh.server_config import ServerConfig
from xml_pipeline.mesh.subjects import answerable
from xml_pipeline.mesh.url import is_loopback, without_password

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "examples" / "mesh" / "roles"
ASK = Ask(message="x")


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch, tmp_path):
    """Nothing of the machine's own names credentials."""
    monkeypatch.delenv("OAM_CREDS", raising=False)
    monkeypatch.chdir(tmp_path)


async def refused(mesh: AgentMesh, kind: type[MeshError] = ConnectionFailed) -> str:
    """What it says when it is entered, and is not let in. Nothing stays behind."""
    with pytest.raises(MeshError) as caught:
        await mesh.__aenter__()
    assert type(caught.value) is kind, caught.value
    assert not mesh.is_connected
    return str(caught.value)


# -- TLS


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "ours", "authority")


def tls_config(authority: Authority, *, verify: bool = False, address: str = "127.0.0.1") -> str:
    certificate, key = authority.issue("server", address=address)
    more = f'ca_file: "{authority.ca}", verify: true' if verify else ""
    return f'tls {{ cert_file: "{certificate}", key_file: "{key}", {more} }}\n'


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_a_certificate_of_the_authority_is_trusted(authority, scheme):
    async with ConfiguredServer(tls_config(authority)) as server:
        host = AgentMesh(server.url.replace("nats:", f"{scheme}:"), tls_ca=authority.ca)
        echo_on(host)
        async with host:
            assert await host.call("demo.echo", ASK) == {"reply": "x"}
            assert isinstance(
                host.parts.link.connection()._client._transport._io_writer.get_extra_info("cipher"), tuple
            )


async def test_a_certificate_of_anybody_else_is_not(authority, tmp_path):
    other = Authority(tmp_path / "theirs", "stranger")
    async with ConfiguredServer(tls_config(authority)) as server:
        for mesh in (AgentMesh(server.url, tls_ca=other.ca), AgentMesh(server.url)):
            said = await refused(mesh)
            assert server.url in said
            assert "not trusted" in said
            assert "tls_ca=" in said


async def test_a_certificate_for_another_address_is_not_trusted(authority):
    async with ConfiguredServer(tls_config(authority, address="127.0.0.9")) as server:
        assert "127.0.0.1" in await refused(AgentMesh(server.url, tls_ca=authority.ca))


async def test_client_certificates(authority, tmp_path):
    certificate, key = authority.issue("client")
    strange = Authority(tmp_path / "theirs", "stranger").issue("client")
    async with ConfiguredServer(tls_config(authority, verify=True)) as server:
        async with AgentMesh(server.url, tls_ca=authority.ca, tls_cert=certificate, tls_key=key) as mesh:
            await mesh.kv.put("a", "1")
        for files in ({}, {"tls_cert": strange[0], "tls_key": strange[1]}):
            said = await refused(AgentMesh(server.url, tls_ca=authority.ca, **files), ConnectionDenied)
            assert "tls_cert=" in said


@pytest.mark.parametrize("given", ["scheme", "tls_ca"])
async def test_nothing_is_said_in_the_clear_where_tls_was_asked_for(authority, given):
    """Somebody between us and the server could otherwise leave out what asks for TLS, and read the password."""
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id": "X", "version": "2.12.0", "max_payload": 1048576, "auth_required": true}\r\n')
        heard.append(await reader.read())
        writer.close()

    listener = await asyncio.start_server(listen, "127.0.0.1", 0)
    async with listener:
        host = f"me:secret@127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        options: dict[str, Any] = {"tls_ca": authority.ca}
        mesh = AgentMesh(f"tls://{host}") if given == "scheme" else AgentMesh(f"nats://{host}", **options)
        assert "does not insist on TLS" in await refused(mesh)
        while not heard:  # noqa: ASYNC110  # it hears of the end
            await asyncio.sleep(0)
    assert heard == [b""]


@pytest.mark.parametrize("field", ["tls_ca", "tls_cert"])
@pytest.mark.parametrize("content", [None, b"", b"rubbish", b"\xff\xfe\x00"])
async def test_files_that_are_no_certificates_are_named(server, tmp_path, field, content):
    path = tmp_path / "file.pem"
    if content is not None:
        path.write_bytes(content)
    assert str(path) in await refused(AgentMesh(server.url, **{field: path}))


async def test_a_key_without_a_certificate(server, authority):
    key = authority.issue("client")[1]
    assert str(key) in await refused(AgentMesh(server.url, tls_key=key))


async def test_a_key_that_is_encrypted_is_not_asked_about_at_the_terminal(server, authority):
    from cryptography.hazmat.primitives import serialization

    certificate, key = authority.issue("client")
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"pw")
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    key.write_bytes(loaded.private_bytes(*pem))
    assert "encrypted" in await refused(AgentMesh(server.url, tls_cert=certificate, tls_key=key))


# -- credentials


@asynccontextmanager
async def operated(tmp_path: Path) -> AsyncIterator[tuple[ConfiguredServer, Path, Callable[..., str]]]:
    """A server that takes tokens, a good credentials file, and what makes the text of others."""
    config, account = operator_config()

    def issue(lasts: int = 3600, by: NKey = account, name: str = "me") -> str:
        user = NKey("user")
        grants = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2}
        return creds_of(jwt_of(by, user, name, grants, lasts), user)

    path = tmp_path / "me.creds"
    path.write_text(issue())
    async with ConfiguredServer(config) as server:
        yield server, path, issue


async def let_in(mesh: AgentMesh) -> bool:
    try:
        async with mesh:
            return await mesh.kv.put("a", "1") > 0
    except (ConnectionDenied, ConnectionFailed):
        return False


async def test_credentials_files(tmp_path, monkeypatch):
    async with operated(tmp_path) as (server, path, issue):
        assert "creds=" in await refused(AgentMesh(server.url), ConnectionDenied)
        assert await let_in(AgentMesh(server.url, creds=str(path)))
        assert await let_in(AgentMesh(server.url, creds=path))
        windows = tmp_path / "windows.creds"
        windows.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
        assert await let_in(AgentMesh(server.url, creds=windows))
        strange = tmp_path / "strange.creds"
        strange.write_text(issue(by=NKey("account")))
        assert not await let_in(AgentMesh(server.url, creds=strange))
        expired = tmp_path / "expired.creds"
        expired.write_text(issue(lasts=-1))
        await refused(AgentMesh(server.url, creds=expired), ConnectionDenied)


async def test_where_credentials_are_found(tmp_path, monkeypatch):
    async with operated(tmp_path) as (server, path, _):
        monkeypatch.setenv("OAM_CREDS", str(path))
        assert await let_in(AgentMesh(server.url))
        assert not await let_in(AgentMesh(server.url, creds="")), "asked for nobody"
        monkeypatch.delenv("OAM_CREDS")
        below = tmp_path / "a" / "b"
        below.mkdir(parents=True)
        monkeypatch.chdir(below)
        (tmp_path / ".oam-url").write_text(f'url = "{server.url}"\ncreds = "me.creds"\n')
        assert await let_in(AgentMesh(server.url))
        monkeypatch.setenv("OAM_CREDS", "/nowhere/else.creds")
        assert "/nowhere/else.creds" in await refused(AgentMesh(server.url))


async def test_credentials_may_be_replaced_while_a_program_runs(tmp_path):
    async with operated(tmp_path) as (server, path, _):
        mesh = AgentMesh(server.url, creds=path)
        good = path.read_text()
        path.write_text("rubbish")
        assert str(path) in await refused(mesh)
        path.write_text(good)
        assert await let_in(mesh)


async def test_a_pointer_that_cannot_be_read_is_named_but_not_by_a_local_mesh(tmp_path, server):
    pointer = tmp_path / ".oam-url"
    for text in ("creds = me.creds", "creds = 7", "\x00\x01 rubbish"):
        pointer.write_text(text)
        assert str(pointer) in await refused(AgentMesh(server.url))
        async with AgentMesh(server.url, creds=""):
            pass
    async with AgentMesh.local() as mesh:
        assert mesh.is_connected


async def test_a_key_alone(tmp_path):
    user, other = NKey("user"), NKey("user")
    path, wrong = tmp_path / "user.nk", tmp_path / "other.nk"
    path.write_text(user.seed + "\n")
    wrong.write_text(other.seed)
    async with ConfiguredServer(f"authorization {{ users: [ {{ nkey: {user.public} }} ] }}\n") as server:
        assert await let_in(AgentMesh(server.url, creds=path))
        await refused(AgentMesh(server.url, creds=wrong), ConnectionDenied)


GOOD = creds_of("e30.e30.AAAA", NKey("user"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rubbish",
        "S",
        NKey("account").seed,
        "SU" + "A" * 56,
        GOOD.replace("e30.e30.AAAA", "not a token"),
        GOOD.replace("e30.e30.AAAA", ""),
        GOOD.partition("-----BEGIN USER")[0],
        GOOD.replace("------END NATS USER JWT------", ""),
        GOOD[:-60],
        GOOD.replace("\nSU", "\nSV"),
        "\ufeff",
        b"\xff\xff",
        b"-----BEGIN NATS USER JWT-----",
    ],
    ids=range(14),
)
async def test_a_file_that_is_no_credentials_file_is_named_and_not_shown(server, tmp_path, text):
    """Also one in which the NATS client would look for the end of a token for ever."""
    path = tmp_path / "bad.creds"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    said = await refused(AgentMesh(server.url, creds=path))
    assert str(path) in said
    assert not any(len(word) > 20 and word in said for word in str(text).split())


async def test_a_credentials_file_that_is_missing_or_a_directory_is_named(server, tmp_path):
    assert str(tmp_path) in await refused(AgentMesh(server.url, creds=tmp_path))
    assert "/nowhere/me.creds" in await refused(AgentMesh(server.url, creds="/nowhere/me.creds"))


# -- nobody sees a password


@pytest.mark.parametrize("user", ["me:s3cret", "s3cret", "me:s3/cret", "me:s3@cret", "me:s3cret?x"])
async def test_no_password_in_any_error_log_or_repr(server, user, caplog):
    port = server.port
    urls = [f"nats://{user}@127.0.0.1:{at}" for at in (1, port)] + [f"nats://{user}@127.0.0.1:{port},nats://{user}@x"]
    with caplog.at_level(logging.DEBUG):
        for url in urls:
            mesh = AgentMesh(url)
            try:
                await mesh.__aenter__()
            except MeshError as error:
                told = ["".join(traceback.format_exception(error)), repr(error), str(error.to_dict())]
            shown = [*told, repr(mesh), repr(mesh._options), caplog.text]
            assert not any(part in text for text in shown for part in ("s3cret", "s3/cret", "s3@cret", "cret"))


async def test_a_servers_own_password_is_not_shown(own_server, caplog):
    password = own_server._password
    assert password not in repr(own_server) + repr(ServerConfig("store", password))
    assert password not in repr(ConnectionOptions(url=own_server.system_url))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://a:b@h:1", "nats://***@h:1"),
        ("nats://token@h", "nats://***@h"),
        ("nats://a:b@h,tls://c:d@i", "nats://***@h,tls://***@i"),
        ("a:b@h:1", "***@h:1"),
        ("nats://a:b/c@d@h", "nats://***@h"),
        ("nats://h:1", "nats://h:1"),
    ],
)
def test_urls_as_they_are_shown(url, shown):
    assert without_password(url) == shown


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("nats://127.0.0.1:4222", True),
        ("nats://localhost", True),
        ("localhost:4222", True),
        ("nats://a:b@localhost:1", True),
        ("nats://[::1]:4222", True),
        ("nats://example.org", False),
        ("nats://localhost,nats://example.org", False),
        ("nats://localhost.example.org", False),
        ("nats://10.0.0.1:4222", False),
    ],
)
def test_which_urls_are_this_machine(url, is_one):
    assert is_loopback(url) is is_one


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:4222", "nats://", "nats://a b", "nats://h:port", "nats://h:99999", ""]
)
async def test_what_is_no_url_is_said_so(url):
    assert "nats://localhost:4222" in await refused(AgentMesh(url))


# -- roles


KV = [f"$KV.{bucket}.>" for bucket in ("mesh-catalog", "mesh-registry", "mesh-context", "mesh-instances")]
KV += ["$KV.mesh-observability.>", "$O.mesh-artifacts.>"]
FOUND = ["_INBOX.>", "$KV.mesh-catalog.>", "$KV.mesh-registry.>", "mesh.agent.*.*.events", "mesh.death.>"]
# What another system gives to roles of these names.
FOREIGN = {
    "worker": (["mesh.>", "_INBOX.>", "$JS.API.>", *KV], ["mesh.>", "_INBOX.>", *KV]),
    "invoker": (["mesh.agent.>", "_INBOX.>", "$JS.API.>"], FOUND),
    "observer": (
        ["_INBOX.>", "$JS.API.>"],
        [*FOUND, "mesh.errors.>", "mesh.health.>", "mesh.logs.>", "$KV.mesh-observability.>"],
    ),
}


def foreign_config() -> str:
    users = [
        {"user": name, "password": "pw", "permissions": {"publish": publish, "subscribe": subscribe}}
        for name, (publish, subscribe) in FOREIGN.items()
    ]
    return f"accounts: {json.dumps({'APP': {'jetstream': 'enabled', 'users': users}})}\n"


def shipped_config(more: str = "") -> str:
    users = "".join(
        f"{{ user: {name}, password: pw, permissions: {{\n{(SHIPPED / name).with_suffix('.conf').read_text()}\n}} }}\n"
        for name in FOREIGN
    )
    return f"accounts {{ APP {{ jetstream: enabled, users: [\n{users}{more}] }} }}\n"


CONFIGS = {"foreign": foreign_config, "shipped": shipped_config}


@asynccontextmanager
async def guarded(config: str) -> AsyncIterator[ConfiguredServer]:
    """A server with roles, and a host with an agent of each kind that can be used."""
    async with ConfiguredServer(config) as server:
        host = AgentMesh(server.url_of("worker"), drain_timeout=5)
        echo_on(host)
        chunks_on(host)

        @host.agent(AgentSpec(name="demo.news"))
        async def news() -> AsyncIterator[int]:
            for number in range(1_000_000):
                yield number
                await asyncio.sleep(0.01)

        async with host:
            await host.kv.put("Key.a", "1")
            await host.workspace.put("file", b"1")
            yield server


async def first(items: Any) -> Any:
    async with aclosing(items):
        return await anext(items)


async def until_second(items: Any) -> Any:
    async with aclosing(items):
        await anext(items)
        return await anext(items)


async def answer_of_send(mesh: AgentMesh) -> Any:
    got = asyncio.get_running_loop().create_future()
    await mesh.send("demo.echo", ASK, on_reply=got.set_result, on_error=got.set_exception)
    return await got


async def registering(mesh: AgentMesh) -> Any:
    """What it does is said by the operation that follows, and by none after that."""
    name = f"mine.{mesh.instance_id}"
    echo_on(mesh, name)
    try:
        return await mesh.call(name, ASK)
    except ConnectionDenied:
        await mesh.catalog()
        assert name not in mesh.parts.host.names
        raise
    finally:
        mesh._roster.agents.pop(name)


OPERATIONS: dict[str, Callable[[AgentMesh], Coroutine[Any, Any, Any]]] = {
    "catalog": lambda mesh: mesh.catalog(),
    "contract": lambda mesh: mesh.contract("demo.echo"),
    "discover": lambda mesh: mesh.discover(),
    "call": lambda mesh: mesh.call("demo.echo", ASK),
    "stream": lambda mesh: first(mesh.stream("demo.chunks", Ask(message="x", n=3))),
    "send": answer_of_send,
    "forget": lambda mesh: mesh.send("demo.echo", ASK),
    "follow": lambda mesh: first(mesh.subscribe(agent="demo.news")),
    "channel": lambda mesh: first(mesh.subscribe(channel="demo")),
    "subscribe": lambda mesh: first(mesh.subscribe(subject="Elsewhere.*")),
    "publish": lambda mesh: mesh.publish("Elsewhere.x", "hello"),
    "logs": lambda mesh: first(mesh.observe.logs()),
    "level": lambda mesh: mesh.observe.get("demo.echo"),
    "set level": lambda mesh: mesh.observe.set("demo.echo", log_level="debug"),
    "get": lambda mesh: mesh.kv.get("Key.a"),
    "put": lambda mesh: mesh.kv.put("Key.b", "1"),
    "create": lambda mesh: mesh.kv.create(f"New.{mesh.instance_id}", "1"),
    "update": lambda mesh: mesh.kv.update("Key.a", lambda value: value + "1"),
    "delete": lambda mesh: mesh.kv.delete("Key.c"),
    "list": lambda mesh: mesh.kv.list(">"),
    "watch": lambda mesh: first(mesh.kv.watch("Key.*")),
    "resume": lambda mesh: until_second(mesh.kv.watch("Two.*", resume=mesh.instance_id)),
    "read file": lambda mesh: mesh.workspace.get("file"),
    "write file": lambda mesh: mesh.workspace.put("mine", b"1"),
    "register": registering,
}

FIND = {"catalog", "contract", "discover", "follow"}
USE = {"call", "stream", "send", "forget"}
READ = {"get", "list", "watch", "read file"}
WRITE = {"put", "create", "update", "delete", "resume", "write file"}
NEVER = {"subscribe", "publish"}
MAY = {
    ("shipped", "worker"): {*OPERATIONS} - NEVER,
    ("shipped", "invoker"): FIND | USE,
    ("shipped", "observer"): FIND | {"logs", "level"},
    # A member of this role may not say that it has handled a change.
    ("foreign", "worker"): {*OPERATIONS} - NEVER - {"resume"},
    # It may ask for a stream, but not hear it; and with the whole interface of the store it reads whatever is there.
    ("foreign", "invoker"): FIND | READ | {"call", "forget", "level"},
    ("foreign", "observer"): FIND | READ | {"logs", "level"},
}


@pytest.mark.parametrize(("config", "role"), MAY)
async def test_a_role_can_do_what_it_is_for_and_is_told_at_once_of_the_rest(config, role, caplog):
    """At once: nothing here may wait for a deadline, and the outer timeout is shorter than most of them."""
    async with guarded(CONFIGS[config]()) as server:
        async with AgentMesh(server.url_of("worker")) as worker:
            await worker.kv.put("Two.a", "1")
            await worker.kv.put("Two.b", "1")
            await until_names(worker, "demo.echo", "demo.chunks", "demo.news")
            await worker.observe.set("demo.echo", log_level="debug")
        mesh = AgentMesh(server.url_of(role), drain_timeout=5)
        async with mesh:
            could = set()
            for name, operation in OPERATIONS.items():
                if name == "logs" and name in MAY[config, role]:
                    could.add(name)  # see below: nobody may have something to say just now
                    continue
                try:
                    await asyncio.wait_for(operation(mesh), 20)
                except ConnectionDenied as error:
                    assert error.details["subject"] in str(error)
                else:
                    could.add(name)
            assert could == MAY[config, role]
            assert mesh.is_connected
            assert mesh.parts.link.losses == 0
    assert "Traceback" not in caplog.text


async def test_nobody_who_only_looks_can_change_what_is_there():
    """Of the other system's roles this is not true: there, one that only looks may delete a stream."""
    async with guarded(shipped_config()) as server:
        for role in ("invoker", "observer"):
            async with plain_peer(server.url_of(role)) as peer:
                denied = asyncio.Event()

                async def refuse(error: Exception, denied: asyncio.Event = denied) -> None:
                    denied.set()

                peer._error_cb = refuse
                for subject in (
                    "$JS.API.STREAM.DELETE.KV_mesh-catalog",
                    "$JS.API.STREAM.PURGE.KV_mesh-registry",
                    "$JS.API.STREAM.UPDATE.KV_mesh-catalog",
                    "$JS.API.STREAM.CREATE.WIRETAP",
                    "$KV.mesh-catalog.catalog",
                    "$KV.mesh-registry.demo.echo",
                    "mesh.agent.demo.news.events",
                    "mesh.death.demo.echo",
                    "mesh.errors.demo.echo",
                ):
                    denied.clear()
                    await peer.publish(subject, b"{}")
                    await peer.flush()
                    assert denied.is_set(), (role, subject)
        async with AgentMesh(server.url_of("invoker")) as mesh:
            assert {entry.name for entry in await mesh.catalog()} == {"demo.echo", "demo.chunks", "demo.news"}


@pytest.mark.parametrize("config", CONFIGS)
async def test_a_worker_leaves_no_traces(config):
    """Also where it may not hold a lease."""
    async with guarded(CONFIGS[config]()) as server:
        leaving = AgentMesh(server.url_of("worker"))
        echo_on(leaving, "demo.brief")
        async with AgentMesh(server.url_of("observer")) as observer:
            async with leaving:
                assert await observer.contract("demo.brief")
                assert leaving.instance_id in await leaving.parts.instances.all()
            await until_names(observer, "demo.echo", "demo.chunks", "demo.news")
        async with AgentMesh(server.url_of("worker")) as worker:
            assert leaving.instance_id not in await worker.parts.instances.all()


async def test_an_agent_that_may_not_be_served_stops_the_program_at_its_start(caplog):
    async with guarded(shipped_config()) as server:
        mesh = AgentMesh(server.url_of("invoker"))
        echo_on(mesh, "mine.echo")
        assert "mesh.agent.mine.echo" in await refused(mesh, ConnectionDenied)


TEAM = """
{ user: team, password: pw, permissions: {
    publish: ["mesh.>", "_INBOX.>", "$KV.>", "$JS.API.>", "$JS.ACK.>", "$JS.FC.>"]
    subscribe: ["_INBOX.>", "mesh.agent.team.>", "mesh.cancel.*", "mesh.death.>"] } }
{ user: mute, password: pw, permissions: {
    publish: ["mesh.agent.>"], subscribe: ["_INBOX.>"] } }
{ user: half, password: pw, permissions: {
    publish: { allow: [">"], deny: ["$KV.mesh-catalog.>"] }, subscribe: [">"] } }
{ user: slow, password: pw, permissions: {
    publish: { allow: [">"], deny: ["$JS.API.CONSUMER.MSG.NEXT.>"] }, subscribe: [">"] } }
{ user: deaf, password: pw, permissions: { publish: ">", subscribe: ["mesh.>"] } }
"""


async def test_of_several_agents_those_that_are_permitted_are_served(caplog):
    async with guarded(shipped_config(TEAM)) as server:
        mesh = AgentMesh(server.url_of("team"))
        async with mesh:
            for name in ("team.one", "other.two", "team.three"):
                echo_on(mesh, name)
            with pytest.raises(ConnectionDenied, match=r"mesh\.agent\.other\.two"):
                await mesh.catalog()
            async with AgentMesh(server.url_of("invoker")) as invoker:
                names = {entry.name for entry in await invoker.catalog()}
                assert names >= {"team.one", "team.three"}
                assert "other.two" not in names
                assert await invoker.call("team.three", ASK) == {"reply": "x"}


async def test_an_agent_that_nobody_could_find_is_not_served():
    """The catalog is written again and again when others are faster, but not when it is not permitted."""
    async with guarded(shipped_config(TEAM)) as server:
        mesh = AgentMesh(server.url_of("half"))
        echo_on(mesh, "half.echo")
        said = await asyncio.wait_for(refused(mesh, ConnectionDenied), 20)
        assert "$KV.mesh-catalog.catalog" in said
        async with AgentMesh(server.url_of("worker")) as worker:
            with pytest.raises(NotFound):
                await worker.call("half.echo", ASK)


async def test_who_may_not_fetch_is_told_and_does_not_wait():
    async with guarded(shipped_config(TEAM)) as server, AgentMesh(server.url_of("slow")) as mesh:
        for step in (mesh.kv.list(">"), first(mesh.kv.watch("Key.*", resume="r")), mesh.workspace.get("file")):
            with pytest.raises(ConnectionDenied, match=r"MSG\.NEXT"):
                await asyncio.wait_for(step, 30)


async def test_who_may_only_call_calls_and_is_told_that_there_is_no_catalog():
    async with guarded(shipped_config(TEAM)) as server, AgentMesh(server.url_of("mute")) as mesh:
        assert await mesh.call("demo.echo", ASK) == {"reply": "x"}
        for question in (mesh.catalog(), mesh.contract("demo.echo"), mesh.discover(), first(mesh.catalog_changes())):
            with pytest.raises(ConnectionDenied):
                await question


async def test_who_has_no_inbox_is_told_so():
    async with guarded(shipped_config(TEAM)) as server:
        assert "_INBOX." in await refused(AgentMesh(server.url_of("deaf")), ConnectionDenied)


async def test_a_watch_goes_on_where_nobody_may_say_that_they_keep_up():
    """The server would stop after some megabytes, and wait for a word that is not permitted."""
    async with guarded(foreign_config()) as server, AgentMesh(server.url_of("worker")) as mesh:
        for number in range(60):
            await mesh.kv.put(f"Large.{number}", "x" * 200_000)
        seen = set()
        async with aclosing(mesh.kv.watch_entries("Large.*")) as entries:
            async for entry in entries:
                seen.add(entry.key)
                if len(seen) == 60:
                    break


async def test_a_refused_subscription_fails_no_request_to_the_same_subject():
    async with guarded(shipped_config()) as server, AgentMesh(server.url_of("invoker")) as mesh:
        asked = asyncio.create_task(mesh.call("demo.echo", ASK))
        with pytest.raises(ConnectionDenied):
            await first(mesh.subscribe(subject="mesh.agent.demo.echo"))
        assert await asked == {"reply": "x"}


async def test_permissions_that_are_taken_away_end_what_they_were_for(tmp_path):
    """The server cuts the connection; what is not permitted on the next one is told, and does not wait for ever."""
    server = ConfiguredServer(shipped_config(), tmp_path)
    await server.start()
    try:
        mesh = AgentMesh(server.url_of("worker"))
        async with mesh:
            await mesh.kv.put("Key.a", "1")
            loops = [
                asyncio.create_task(until_second(mesh.kv.watch("Key.*"))),
                asyncio.create_task(until_second(mesh.subscribe(channel="demo"))),
            ]
            echo_on(mesh)
            await mesh.call("demo.echo", ASK)
            nothing = '{ user: worker, password: pw, permissions: { publish: [nothing], subscribe: ["_INBOX.>"] } }'
            server.config = f"accounts {{ APP {{ jetstream: enabled, users: [ {nothing} ] }} }}\n"
            server.kill()
            await server.wait()
            await server.stop()
            await server.start()
            await mesh.parts.link.wait_up(20)
            for loop in loops:
                with pytest.raises(ConnectionDenied):
                    await asyncio.wait_for(loop, 20)
            with pytest.raises(ConnectionDenied):
                await mesh.call("demo.echo", ASK)
    finally:
        await server.stop()


def documented_config() -> str:
    """The example of the documentation."""
    page = (ROOT / "docs" / "mesh-operations.md").read_text(encoding="utf-8")
    (found,) = [block for block in re.findall(r"^```text\n(.*?)^```", page, re.M | re.S) if "accounts {" in block]
    return found


async def test_the_configuration_of_the_documentation_works(tmp_path, monkeypatch):
    authority = Authority(tmp_path / "ours", "authority")
    certificate, key = authority.issue("server")
    folder = tmp_path / "nats"
    shutil.copytree(SHIPPED, folder / "roles")
    for user in ("HOST", "CALLER", "VIEWER", "MONITOR"):
        monkeypatch.setenv(f"{user}_PASSWORD", "pw")
    config = documented_config().replace("/etc/nats/server.pem", str(certificate))
    config = config.replace("/etc/nats/server.key", str(key)).replace("/var/lib/nats", str(folder / "store"))
    server = ConfiguredServer("", folder)
    server.text = lambda: config.replace("0.0.0.0:4222", f"127.0.0.1:{server.port or -1}")
    async with server:
        url = server.url_of("host").replace("nats:", "tls:")
        host, caller = (AgentMesh(url.replace("host", user), tls_ca=authority.ca) for user in ("host", "caller"))
        system = ConnectionOptions(url=url.replace("host", "monitor"), tls_ca=str(authority.ca))
        echo_on(host)
        async with host, caller, Monitor(replace(host._options, name="oam-monitor"), system) as monitor:
            assert await caller.call("demo.echo", ASK) == {"reply": "x"}
            assert await monitor.unserved(["demo.echo", "demo.other"]) == {"demo.other"}


# -- what comes from the wire becomes no subject


@pytest.mark.parametrize(
    ("subject", "is_answered"),
    [
        ("_INBOX.a.b", True),
        ("mesh.results.ab12", True),
        ("my.reply", True),
        ("$KV.mesh-catalog.catalog", False),
        ("$JS.API.STREAM.DELETE.KV_mesh-catalog", False),
        ("$SYS.REQ.SERVER.PING", False),
        ("mesh.agent.demo.other", False),
        ("mesh.agent.demo.echo.events", False),
        ("mesh.death.demo.echo", False),
        ("mesh.stream.ab12", False),
        ("mesh.logs.demo.echo", False),
        ("my.*", False),
        ("", False),
    ],
)
def test_where_callers_are_answered(subject, is_answered):
    assert answerable(subject) == (subject if is_answered else "")


async def test_a_caller_cannot_have_a_host_speak_where_it_may_not_itself(host, mesh, peer):
    """The answer goes where the caller says, with the rights of the host."""
    echo_on(host)
    chunks_on(host)
    async with host:
        await until_names(mesh, "demo.echo", "demo.chunks")
        store = peer.jetstream()
        before = await store.stream_info("KV_mesh-catalog")
        tap = await Tap.on(peer, "mesh.agent.demo.chunks.events")
        for reply in (
            "$KV.mesh-catalog.catalog",
            "$JS.API.STREAM.DELETE.KV_mesh-catalog",
            "$JS.API.STREAM.PURGE.KV_mesh-registry",
            "mesh.agent.demo.chunks.events",
        ):
            for body in (b'{"message": "x"}', b"{nope"):
                await peer.publish("mesh.agent.demo.echo", body, reply=reply, headers={h.REQUEST_ID: "r"})
            await peer.publish("$SRV.PING", b"", reply=reply)
        await peer.flush()
        assert await mesh.call("demo.echo", ASK) == {"reply": "x"}
        after = await store.stream_info("KV_mesh-catalog")
        assert after.state.last_seq == before.state.last_seq
        assert (await store.stream_info("KV_mesh-registry")).state.messages == 2
        assert tap.messages.empty()


async def test_names_in_the_catalog_that_are_none_hide_nobody(host, mesh, peer):
    echo_on(host)
    async with host:
        await until_names(mesh, "demo.echo")
        bucket = await peer.jetstream().key_value("mesh-catalog")
        entries = json.loads((await bucket.get("catalog")).value)
        bad = [{**entries[0], "name": name} for name in ("a b", "", ">", "a.*", "x" * 5000, "a\nb", "$KV.x", 7, None)]
        changes = mesh.catalog_changes()
        assert (await anext(changes)).name == "demo.echo"
        entries[0]["description"] = "seen"
        await bucket.put("catalog", json.dumps([*bad, *entries]).encode())
        assert (await anext(changes)).after.description == "seen"
        await changes.aclose()
        assert [entry.name for entry in await mesh.catalog()] == ["demo.echo"]
        assert [contract.name for contract in await mesh.discover()] == ["demo.echo"]


async def test_a_lease_under_a_key_that_is_no_id_keeps_nobody_from_being_buried(host, server, peer):
    """One that cannot be looked up, or deleted, would be the first one each time."""
    store = peer.jetstream()
    watching = AgentMesh(server.url)
    watching._options = replace(watching._options, lease=0.1)
    echo_on(watching, "demo.watching")
    async with watching:
        for key in ("a!b", "A.B", "dead"):
            await store.publish(f"$KV.mesh-leases.{key}", b'{"seconds": 0.05}')
            await store.publish(f"$KV.mesh-instances.{key}", b'{"agents": ["demo.gone", "a\\nb", 7]}')
        tap = await Tap.on(peer, "mesh.death.>")
        assert json.loads((await tap.next()).data)["instance_id"] == "dead"


async def test_a_file_whose_description_is_hostile_takes_no_others_with_it(mesh, peer):
    await mesh.workspace.put("good", b"good")
    await mesh.workspace.put("bad", b"bad")
    store = peer.jetstream()
    subject = f"$O.mesh-artifacts.M.{base64.urlsafe_b64encode(b'bad').decode()}"
    described = json.loads((await store.get_last_msg("OBJ_mesh-artifacts", subject)).data)
    for nuid in (">", "*", "a.>", ["x"], ""):
        await store.publish(subject, json.dumps({**described, "nuid": nuid}).encode(), headers={"Nats-Rollup": "sub"})
        with pytest.raises(StorageError):
            await mesh.workspace.get("bad")
        await mesh.workspace.put("bad", b"new")
        assert await mesh.workspace.get("good") == b"good"
        assert await mesh.workspace.get("bad") == b"new"


async def test_whoever_knows_an_inbox_cannot_have_us_publish_elsewhere(mesh, peer):
    tap = await Tap.on(peer, "victim.>")
    inboxes = [watch._subscription.subject for watch in (mesh.parts.catalog._watch, mesh.parts.leases._watch)]
    for inbox in inboxes:
        await peer.publish(inbox, b"", reply="victim.x", headers={"Status": "100"})
        await peer.publish(inbox, b"", headers={"Status": "100", "Nats-Consumer-Stalled": "victim.y"})
    await peer.flush()
    await mesh.kv.put("a", "1")  # it has seen them
    await peer.flush()
    assert tap.messages.empty()


# -- what a handler says


async def test_what_a_handler_raised_stays_with_its_host(host, mesh, peer, caplog):
    @host.agent(AgentSpec(name="demo.bad"))
    async def bad(value: int) -> AsyncIterator[int]:
        yield value
        raise RuntimeError("the password is s3cret")

    @host.agent(AgentSpec(name="demo.worse"))
    async def worse(value: int) -> int:
        try:
            raise KeyError("s3cret")
        except KeyError as error:
            raise ValueError(f"s3cret {value}") from error

    @host.agent(AgentSpec(name="demo.wrong"))
    async def wrong(value: int) -> int:
        return "s3cret"  # type: ignore[return-value]

    tap = await Tap.on(peer, ">")
    async with host:
        for step in (mesh.call("demo.worse", 1), mesh.call("demo.wrong", 1), until_second(mesh.stream("demo.bad", 1))):
            with pytest.raises(MeshError) as caught:
                await step
            assert caught.value.code == "handler_error"
            assert "s3cret" not in str(caught.value.to_dict())
    await peer.flush()
    assert tap.messages.qsize() > 6
    while not tap.messages.empty():
        message = tap.messages.get_nowait()
        assert b"s3cret" not in message.data
        assert "s3cret" not in str(message.headers)
    assert caplog.text.count("s3cret") >= 3


def test_tls_of_today():
    options = ConnectionOptions(url="tls://h")
    context = options.tls_context()
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_the_embedded_server_listens_on_this_machine_only():
    assert is_loopback(EmbeddedServer().url)
    assert '"127.0.0.1"' in ServerConfig("store", "pw").text()
