"""Several servers: all are tried, and when none takes us, the error says of each why."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

import pytest
from nats.aio.client import Client

from tests.mesh.kit import spin
from tests.mesh.misbehaving import GREETING, HANG_UP, stranger
from tests.mesh.secured import Authority, ConfiguredServer, NKey, creds_of
from xml_pipeline.mesh import AgentMesh, ConnectionDenied, ConnectionFailed, MeshError, connection
from xml_pipeline.mesh.link import Link
from xml_pipeline.mesh.options import ConnectionOptions
from xml_pipeline.mesh.refusals import complaint_in

USERS = "authorization { users: [ {user: me, password: pw} ] }\n"

MISBEHAVIOUR = {
    "silent": ((), "nothing there answers as a nats-server does"),
    "silent after its greeting": ((GREETING,), "nothing there answers as a nats-server does"),
    "hangs up": ((HANG_UP,), "it hung up"),
    "hangs up after its greeting": ((GREETING, HANG_UP), "it hung up"),
    "complains at once": ((b"-ERR 'maximum connections exceeded'\r\n", HANG_UP), "maximum connections exceeded"),
    "complains later": ((GREETING, b"-ERR 'Authorization Violation'\r\n", HANG_UP), "Authorization Violation"),
    "complains without a word": ((GREETING, b"-ERR \r\n"), "nothing"),
    "a mail server": ((b"220 ready\r\n",), "no nats-server"),
    "no JSON": ((b"INFO {\r\n",), "no nats-server"),
    "no object": ((b"INFO 5\r\n",), "no nats-server"),
    "no size": ((b'INFO {"max_payload": "large"}\r\n',), "no nats-server"),
    "no nonce": ((b'INFO {"auth_required": true, "nonce": 5}\r\n', b"?\r\n"), "no nats-server"),
    "no end": ((b"x" * 100_000,), "no nats-server"),
    "another answer": ((GREETING, b"+OK\r\n"), "no nats-server"),
}


@pytest.fixture
def in_order(monkeypatch):
    """They are tried in the order in which they are named, so that the bad ones are tried at all."""
    monkeypatch.setattr(random, "sample", lambda urls, count: list(urls))


async def let_in(*urls: str, **options: Any) -> str:
    """Connect, and return to which of the servers."""
    link = Link(ConnectionOptions(url=",".join(urls), **options))
    await link.open()
    came: asyncio.Queue[bytes] = asyncio.Queue()
    await link.subscribe(inbox := link.inbox(), lambda message: came.put_nowait(message.data))
    await link.publish(inbox, b"x")
    assert await asyncio.wait_for(came.get(), 10) == b"x"
    url = link.connection()._url
    await link.close()
    return url


async def refused(*urls: str, **options: Any) -> MeshError:
    with pytest.raises(MeshError) as caught:
        await Link(ConnectionOptions(url=",".join(urls), **options)).open()
    return caught.value


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("says", [says for says, _ in MISBEHAVIOUR.values()], ids=MISBEHAVIOUR)
async def test_a_server_that_misbehaves_does_not_keep_the_next_from_being_tried(server, says):
    async with stranger(*says) as place:
        assert await let_in(f"nats://{place}", "nats://127.0.0.1:1", server.url) == server.url


@pytest.mark.parametrize(("says", "reason"), MISBEHAVIOUR.values(), ids=MISBEHAVIOUR)
async def test_one_server_that_misbehaves_is_told_as_before(says, reason):
    async with stranger(*says) as place:
        error = await refused(f"nats://{place}", connect_timeout=0.2)
    assert reason in str(error) and place in str(error)
    is_complaint = any(text.startswith(b"-ERR") for text in says)
    assert type(error) is (ConnectionDenied if is_complaint else ConnectionFailed)
    assert "No other server" not in str(error)


@pytest.mark.usefixtures("in_order")
async def test_credentials_that_one_server_refuses_do_for_the_next():
    async with ConfiguredServer(USERS) as first, ConfiguredServer(USERS) as second:
        good = second.url_of("me")
        assert await let_in(first.url_of("me", "wrong"), good) == good
        assert await let_in(first.url_of("me", "wrong").replace("me:wrong@", ""), good) == good


def tls(authority: Authority, name: str) -> ConfiguredServer:
    certificate, key = authority.issue(name)
    return ConfiguredServer(f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}\n')


@pytest.mark.usefixtures("in_order")
async def test_a_server_without_tls_or_with_a_strange_certificate_is_left_for_the_next(tmp_path):
    ours, theirs = Authority(tmp_path / "ours", "ours"), Authority(tmp_path / "theirs", "theirs")
    async with ConfiguredServer("") as plain, tls(theirs, "strange") as strange, tls(ours, "good") as good:
        urls = [strange.url, plain.url, good.url]
        assert await let_in(*urls, tls_ca=str(ours.ca)) == good.url
        error = await refused(*urls[:2], tls_ca=str(ours.ca))
        assert type(error) is ConnectionFailed
        assert f"The server at {strange.url} has a certificate that is not trusted" in str(error)
        assert f"{plain.url}: it does not insist on TLS" in str(error)


@pytest.mark.parametrize("turned", [False, True])
async def test_when_all_have_failed_the_most_telling_reason_comes_first_and_every_server_is_named(turned):
    """Whatever their order, and without any password."""
    async with ConfiguredServer(USERS) as server, stranger(b"220 ready\r\n") as mail:
        urls = ["nats://you:s3cret@127.0.0.1:1", f"nats://{mail}", server.url_of("me", "s3cret")]
        error = await refused(*(reversed(urls) if turned else urls))
    assert type(error) is ConnectionDenied
    assert "s3cret" not in str(error) and "me:" not in str(error)
    first, others = str(error).split(" No other server helps: ")
    shown = f"nats://***@127.0.0.1:{server.port}"
    assert first == f"The server at {shown} refused the credentials: Authorization Violation."
    stranger_told, away = others.split("; ")
    assert stranger_told == f"nats://{mail}: what answers there is no nats-server"
    assert away.startswith("nats://***@127.0.0.1:1: ") and away.endswith(".")


async def test_who_is_nobody_at_one_of_the_servers_is_told_so():
    async with ConfiguredServer(USERS) as server:
        anonymous = server.url_of("me").replace("me:pw@", "")
        error = await refused("nats://me:pw@127.0.0.1:1", anonymous)
    assert "wants to know who you are" in str(error)


async def test_what_no_server_could_help_is_told_once(server, tmp_path, monkeypatch):
    (tmp_path / "me.creds").write_text(creds_of("e30.e30.AAAA", NKey("user")))
    monkeypatch.setitem(sys.modules, "nkeys", None)
    error = await refused(server.url, server.url, creds=str(tmp_path / "me.creds"))
    assert "pip install" in str(error) and "No other server" not in str(error)


async def test_a_mesh_with_several_servers_is_entered_and_comes_back_at_another(own_server, server):
    """The connection that is lost is made again where there is a server, past those that are of no use."""
    async with stranger(GREETING, HANG_UP) as place:
        urls = f"{own_server.url},nats://{place}"
        async with AgentMesh(urls) as mesh:
            link = mesh.parts.link
            assert link.connection()._url == own_server.url
            object.__setattr__(link.options, "url", f"{urls},{server.url}")
            own_server.kill()
            await spin(lambda: link.losses)
            await link.wait_up(20)
            assert link.connection()._url == server.url


async def test_all_steps_together_take_no_longer_than_the_timeout(monkeypatch):
    """The NATS client has one for each of them."""
    settings = connection._settings
    monkeypatch.setattr(connection, "_settings", lambda options: {**settings(options), "connect_timeout": 3600})
    async with stranger(GREETING) as place, asyncio.timeout(20):
        assert "nothing there answers" in str(await refused(f"nats://{place}", connect_timeout=0.05))


async def test_a_cancellation_that_gets_lost_does_not_go_on_to_the_next_server(monkeypatch):
    tried = []

    async def stubborn(self: Client, servers: list[str], **_: Any) -> None:
        tried.extend(servers)
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            raise OSError("something else") from None

    monkeypatch.setattr(Client, "connect", stubborn)
    opening = asyncio.create_task(Link(ConnectionOptions(url="nats://a,nats://b", connect_timeout=60)).open())
    await spin(lambda: tried)
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled() and len(tried) == 1


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (" 'Slow Consumer' ", "Slow Consumer"),
        ("no quotes", "no quotes"),
        ("'\x1b[31mred\x07\u202e'", "?[31mred??"),
        ("'" + "x" * 300 + "'", "x" * 200 + "..."),
        ("", ""),
    ],
)
def test_complaints_as_they_are_shown(said, shown):
    assert complaint_in(said) == shown
