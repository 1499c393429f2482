"""The link, against a server that comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from tests.mesh.kit import Tap, plain_peer, spin
from tests.mesh.secured import ConfiguredServer
from xml_pipeline.mesh import ConnectionDenied, ConnectionFailed, ConnectionLost, EmbeddedServer, PayloadTooLarge
from xml_pipeline.mesh.connection import Connection
from xml_pipeline.mesh.link import Link
from xml_pipeline.mesh.options import ConnectionOptions
from xml_pipeline.mesh.replies import Replies


@pytest.fixture
async def link(lasting_server):
    link = Link(ConnectionOptions(url=lasting_server.url))
    await link.open()
    yield link
    await link.close()


async def crash(server: EmbeddedServer, link: Link) -> None:
    """Kill the server, and wait until the link has noticed."""
    lost = asyncio.Event()
    link.on_lost.append(lambda error: lost.set())
    server.kill()
    await server.wait()
    await server.stop()
    await asyncio.wait_for(lost.wait(), 10)


async def test_without_a_server_it_fails_at_once_and_says_where():
    async with EmbeddedServer() as server:
        url = server.url
    with pytest.raises(ConnectionFailed, match=url):
        await Link(ConnectionOptions(url=url)).open()


async def test_a_password_is_not_told():
    with pytest.raises(ConnectionFailed) as caught:
        await Link(ConnectionOptions(url="nats://me:secret@127.0.0.1:1")).open()
    assert "secret" not in str(caught.value)


async def test_wrong_credentials_are_denied(server):
    url = server.url.replace("//", "//somebody:wrong@")
    with pytest.raises(ConnectionDenied):
        await Link(ConnectionOptions(url=url)).open()


@pytest.mark.parametrize("field", ["creds", "tls_cert", "tls_ca"])
async def test_a_file_that_is_missing_is_named(server, field):
    options = replace(ConnectionOptions(url=server.url), **{field: "/nowhere/file"})
    with pytest.raises(ConnectionFailed, match="/nowhere/file"):
        await Link(options).open()


async def test_before_it_is_open_nothing_works():
    link = Link(ConnectionOptions())
    with pytest.raises(ConnectionFailed, match="async with mesh"):
        await link.publish("a", b"")
    with pytest.raises(ConnectionFailed):
        await link.subscribe("a", lambda message: None)
    await link.close()


async def test_while_it_is_down_everything_is_refused_at_once(lasting_server, link):
    await crash(lasting_server, link)
    assert not link.is_up
    with pytest.raises(ConnectionLost, match="nothing was sent"):
        await link.publish("a", b"")
    with pytest.raises(ConnectionLost):
        await link.subscribe("a", lambda message: None)
    with pytest.raises(ConnectionLost):
        await link.flush()
    with pytest.raises(ConnectionLost):
        await link.wait_up(0.01)


async def test_subscriptions_are_there_again_and_nothing_old_is_sent(lasting_server, link):
    came: asyncio.Queue[bytes] = asyncio.Queue()
    await link.subscribe("news.*", lambda message: came.put_nowait(message.data))
    ended = await link.subscribe("news.*", lambda message: came.put_nowait(b"ended " + message.data))
    await ended.close()
    for round_ in range(3):
        await crash(lasting_server, link)
        with pytest.raises(ConnectionLost):
            await link.publish("news.old", b"old")
        await lasting_server.start()
        await link.wait_up(10)
        await link.publish("news.new", b"%d" % round_)
        assert await asyncio.wait_for(came.get(), 10) == b"%d" % round_
    assert came.empty()
    assert link.losses == 3


async def test_parts_are_told_when_it_is_up_and_can_publish_then(lasting_server, link):
    async def say() -> None:
        await link.publish("hello", b"again")

    told = []
    link.on_restored.append(lambda: told.append(asyncio.create_task(say())))
    await crash(lasting_server, link)
    await lasting_server.start()
    await link.wait_up(10)
    await asyncio.gather(*told)
    assert len(told) == 1


async def test_what_waits_for_an_answer_is_failed_when_it_is_lost(lasting_server, link):
    replies = Replies(link)
    await replies.open()
    async with plain_peer(lasting_server.url) as peer:
        tap = await Tap.on(peer, "deaf")
        waiting = asyncio.create_task(replies.ask("deaf", b"", 60.0))
        await tap.next()
    await crash(lasting_server, link)
    with pytest.raises(ConnectionLost):
        await waiting
    await lasting_server.start()
    await link.wait_up(10)
    async with plain_peer(lasting_server.url) as peer:

        async def answer(message):
            await message.respond(b"yes")

        await peer.subscribe("ears", cb=answer)
        await peer.flush()
        assert (await replies.ask("ears", b"", 10.0)).data == b"yes"
    await replies.close()


async def test_closing_while_it_is_down(lasting_server, link):
    await crash(lasting_server, link)
    await link.close()
    await link.close()
    with pytest.raises(ConnectionFailed):
        await link.publish("a", b"")


async def test_too_large_a_message_is_refused_and_the_connection_stays(link):
    with pytest.raises(PayloadTooLarge, match="1048577"):
        await link.publish("a", b"x" * (link.max_payload + 1))
    with pytest.raises(PayloadTooLarge):
        await link.publish("a", b"x" * (link.max_payload - 10), headers={"X": "y" * 10})
    await link.publish("a", b"x" * link.max_payload)
    await link.flush()
    assert link.is_up


async def test_a_publisher_waits_for_a_slow_connection(link):
    """Much more than may wait to be written is handed over; never more than a little above the limit does wait."""
    highest = 0
    for _ in range(40):
        await link.publish("a", b"x" * 500_000)
        highest = max(highest, link.connection().pending)
    assert highest < 3 * link.options.high_water


async def test_a_callback_that_raises_ends_nothing(link, caplog):
    came: asyncio.Queue[bytes] = asyncio.Queue()

    def take(message):
        if message.data == b"bad":
            raise ValueError("oh")
        came.put_nowait(message.data)

    await link.subscribe("a", take)
    await link.publish("a", b"bad")
    await link.publish("a", b"good")
    assert await asyncio.wait_for(came.get(), 10) == b"good"
    assert "a callback of a subscription failed" in caplog.text


async def test_draining_delivers_what_the_server_has_sent(link):
    came = []
    subscription = await link.subscribe("a", lambda message: came.append(message.data))
    for number in range(500):
        await link.publish("a", b"%d" % number)
    await subscription.drain(10.0)
    assert len(came) == 500


async def test_what_is_not_permitted_is_told(tmp_path):
    server = EmbeddedServer(tmp_path)
    folder = server._prepare()
    config = folder / "nats.conf"
    permissions = 'permissions: {publish: {deny: ["forbidden.>"]}, subscribe: {deny: ["secret.>"]}}'
    text = config.read_text().replace("{user: oam-app,", f"{{user: oam-app, {permissions},")
    server._prepare = lambda: (config.write_text(text), folder)[1]
    async with server:
        link = Link(ConnectionOptions(url=server.url))
        await link.open()
        replies = Replies(link)
        await replies.open()
        with pytest.raises(ConnectionDenied, match=r"publish to forbidden\.x") as caught:
            await replies.ask("forbidden.x", b"", 30.0)
        assert caught.value.details == {"operation": "publish", "subject": "forbidden.x"}
        denied = asyncio.Event()
        link.on_denied.append(lambda subject, error: denied.set() if subject == "secret.x" else None)
        await link.subscribe("secret.x", lambda message: None)
        await asyncio.wait_for(denied.wait(), 10)
        assert link.is_up
        await replies.close()
        await link.close()


async def test_a_server_that_ends_every_connection_is_not_asked_without_a_pause():
    """Of too many subscriptions a server complains again and again; the pauses grow as if it were away."""
    async with ConfiguredServer("max_subscriptions: 2") as server:
        link = Link(ConnectionOptions(url=server.url, first_delay=3600, longest_delay=3600))
        await link.open()
        for subject in "ab":
            await link.subscribe(subject, lambda _: None)

        def ask_for_more() -> None:
            link.connection().subscribe("c", lambda _: None)

        link.on_restored.append(ask_for_more)
        ask_for_more()
        await spin(lambda: link.losses == 2)  # the first attempt is made at once
        with pytest.raises(ConnectionLost):
            await link.wait_up(0.2)
        assert link.losses == 2
        await link.close()


async def test_closing_ends_it_also_where_a_cancellation_gets_lost(lasting_server, monkeypatch):
    """The NATS client takes some of them for something else."""
    link = Link(ConnectionOptions(url=lasting_server.url))
    await link.open()
    began = asyncio.Event()

    async def stubborn(*_):
        began.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        raise ConnectionFailed

    monkeypatch.setattr(Connection, "open", stubborn)
    await crash(lasting_server, link)
    await began.wait()
    await asyncio.wait_for(link.close(), 10)
