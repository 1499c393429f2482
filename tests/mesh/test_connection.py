"""What one connection does beyond the NATS client: order, size, and callbacks that fail."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.mesh.kit import spin
from tests.mesh.misbehaving import GREETING, stranger
from tests.mesh.secured import ConfiguredServer, NKey, creds_of, jwt_of, operator_config
from xml_pipeline.mesh import ConnectionLost, MeshTimeout, PayloadTooLarge
from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.link import Link
from xml_pipeline.mesh.options import ConnectionOptions
from xml_pipeline.mesh.replies import Replies


@pytest.fixture
def server(own_server):
    """Tests here hold it up, and kill it."""
    return own_server


@pytest.fixture
async def link(server):
    link = Link(ConnectionOptions(url=server.url))
    await link.open()
    yield link
    await link.close()


async def congest(link):
    """Publish more than sockets take, to a server that takes nothing."""
    for _ in range(4):
        for _ in range(10):
            link.publish_now("a", b"x" * 500_000)
        await asyncio.sleep(0)
    assert link.is_congested


async def test_a_callback_that_raises_is_logged_and_the_next_message_comes(link, caplog):
    came: asyncio.Queue[bytes] = asyncio.Queue()

    def take(message):
        if message.data == b"bad":
            raise ValueError("on purpose")
        came.put_nowait(message.data)

    await link.subscribe("a", take)
    for body in (b"bad", b"good"):
        await link.publish("a", body)
    assert await asyncio.wait_for(came.get(), 10) == b"good"
    assert "on purpose" in caplog.text
    assert link.losses == 0


async def test_messages_come_in_the_order_in_which_they_were_sent_however_they_are_written(link):
    """Those with headers of somebody's own are written by the NATS client, large ones at once."""
    came: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    def take(message):
        came.put_nowait((len(message.data), message.headers["X-Mesh-Stream-Seq"]))

    await link.subscribe("a", take)
    sent = []
    for number in range(200):
        size = 400_000 if number % 20 == 7 else number
        headers = {h.STREAM_SEQ: str(number)}
        if number % 3 == 0:
            headers["X-Mine"] = "1"
        await link.publish("a", b"x" * size, headers=headers)
        sent.append((size, str(number)))
    assert [await asyncio.wait_for(came.get(), 20) for _ in sent] == sent


async def test_a_burst_beyond_what_the_socket_takes_is_written_piece_by_piece(server, link):
    came: asyncio.Queue[int] = asyncio.Queue()
    await link.subscribe("a", lambda message: came.put_nowait(message.data[0]))
    await link.flush()
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for number in range(100):
            link.publish_now("a", bytes([number]) * 300_000)
        assert link.is_congested
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert [await asyncio.wait_for(came.get(), 20) for _ in range(100)] == list(range(100))
    await link.flush()
    assert not link.is_congested


async def test_a_subscription_that_ends_gets_nothing_more_and_others_do(link):
    first, second = asyncio.Queue(), asyncio.Queue()
    ended = await link.subscribe("a", lambda message: first.put_nowait(message.data))
    await link.subscribe("a", lambda message: second.put_nowait(message.data))
    await link.publish("a", b"1")
    await link.flush()
    await link.publish("a", b"2")
    await ended.close()
    await link.publish("a", b"3")
    await link.flush()
    assert [first.get_nowait(), first.empty()] == [b"1", True]
    assert [second.get_nowait() for _ in range(3)] == [b"1", b"2", b"3"]


async def test_draining_delivers_what_was_sent_before_and_nothing_after(link):
    came: list[bytes] = []
    subscription = await link.subscribe("a", lambda message: came.append(message.data))
    for number in range(50):
        await link.publish("a", b"%d" % number)
    await subscription.drain(10)
    await link.publish("a", b"late")
    await link.flush()
    assert came == [b"%d" % number for number in range(50)]


async def test_an_answer_that_nobody_waits_for_any_more_ends_nothing(link):
    """Whoever asks whether everything was sent may be cancelled before the server has said so."""
    asking = asyncio.create_task(link.flush())
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    await link.flush()
    assert asking.cancelled()
    assert link.losses == 0


async def test_an_answer_that_comes_after_its_timeout_does_no_harm(link):
    """The NATS client would read nothing any more, and say nothing."""
    came: asyncio.Queue[bytes] = asyncio.Queue()
    await link.subscribe("a", lambda message: came.put_nowait(message.data))
    for _ in range(3):
        with pytest.raises(MeshTimeout):
            await link.flush(0)
    await link.flush()
    await link.publish("a", b"1")
    assert await asyncio.wait_for(came.get(), 10) == b"1"
    assert link.losses == 0


async def test_a_subject_that_no_client_could_write_does_not_end_the_connection(server, link):
    """A server passes on whatever is no space: bytes that are no text, characters that are spaces elsewhere."""
    came: asyncio.Queue[str] = asyncio.Queue()
    await link.subscribe("a.>", lambda message: came.put_nowait(message.subject))
    await link.flush()
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b'CONNECT {"verbose":false}\r\n')
    for token in (b"\x0b", b"\xff", "\xa0".encode(), "\u2028".encode()):
        writer.write(b"PUB a.%s.b 0\r\n\r\n" % token)
    writer.write(b"PUB a.end 0\r\n\r\nPING\r\n")
    await writer.drain()
    found = [await asyncio.wait_for(came.get(), 10)]
    while found[-1] != "a.end":
        found.append(await asyncio.wait_for(came.get(), 10))
    assert len(found) > 1
    assert link.losses == 0
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("headers", [{h.SOURCE: "x" * 2_000_000}, {"X-Mine": "x" * 2_000_000}])
async def test_headers_that_are_too_large_are_refused_and_do_not_end_the_connection(link, headers):
    """The server closes the connection of whoever sends more than it takes."""
    with pytest.raises(PayloadTooLarge):
        await link.publish("a", b"", headers=headers)
    await link.flush()
    assert link.losses == 0


async def test_headers_and_body_may_have_as_much_as_the_server_takes(link):
    came: asyncio.Queue[int] = asyncio.Queue()
    await link.subscribe("a", lambda message: came.put_nowait(len(message.data)))
    headers = {h.SOURCE: "me"}
    size = link.max_payload - len("NATS/1.0\r\n" + f"{h.SOURCE}: me\r\n" + "\r\n")
    await link.publish("a", b"x" * size, headers=headers)
    assert await asyncio.wait_for(came.get(), 20) == size
    with pytest.raises(PayloadTooLarge):
        await link.publish("a", b"x" * (size + 1), headers=headers)
    assert link.losses == 0


async def test_whoever_waits_for_a_server_that_is_lost_is_told_at_once(server, link):
    """The server that answers no more is not waited for until the timeout."""
    os.kill(server.pid, signal.SIGSTOP)
    asking = asyncio.create_task(link.flush(3600))
    await congest(link)
    publishing = asyncio.create_task(link.publish("a", b"x"))
    await asyncio.sleep(0)
    os.kill(server.pid, signal.SIGKILL)
    done, _ = await asyncio.wait([asking, publishing], timeout=8)  # a round trip may take ten
    assert done == {asking, publishing}
    for task in done:
        assert isinstance(task.exception(), ConnectionLost)


async def test_a_message_that_has_to_wait_waits_no_longer_than_it_may(server, link):
    os.kill(server.pid, signal.SIGSTOP)
    try:
        await congest(link)
        with pytest.raises(MeshTimeout, match="nothing was sent"):
            await link.publish("a", b"x", timeout=0.01)
        replies = Replies(link)
        with pytest.raises(MeshTimeout):
            await replies.ask("a", b"x", 0.01)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    await link.flush()
    assert link.losses == 0


async def refuses_more_than(link: Link, size: int) -> None:
    """A message of one byte more is refused here, and not by the server, which would end the connection."""
    with pytest.raises(PayloadTooLarge, match=f"the {size} the server allows"):
        await link.publish("a", b"x" * (size + 1))
    with pytest.raises(PayloadTooLarge):
        await link.publish("a", b"x" * (size + 1), headers={"X-Mine": "1"})
    await link.publish("a", b"x" * size)
    await link.flush()
    assert link.losses == 0


async def test_a_limit_that_was_changed_is_known_when_the_server_says_so():
    """Servers do not at the reload itself, but whenever they have something else to say: here that they retire."""
    async with ConfiguredServer("max_payload: 100000\n") as server:
        link = Link(ConnectionOptions(url=server.url))
        await link.open()
        assert link.max_payload == 100_000
        server.config = "max_payload: 2000\n"
        server._prepare()
        os.kill(server.pid, signal.SIGHUP)
        await spin(lambda: "Reloaded: max_payload" in server.log)
        os.kill(server.pid, signal.SIGUSR2)
        await spin(lambda: link.max_payload == 2000)
        await refuses_more_than(link, 2000)
        await link.close()
        server.kill()  # it would take its time


async def test_a_limit_of_ones_own_is_known_as_soon_as_the_server_knows_who_we_are(tmp_path):
    """Its greeting tells that of the server."""
    config, account = operator_config()
    user = NKey("user")
    grants = {"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": 500, "type": "user", "version": 2}
    path = tmp_path / "me.creds"
    path.write_text(creds_of(jwt_of(account, user, "me", grants), user))
    async with ConfiguredServer(config) as server:
        link = Link(ConnectionOptions(url=server.url, creds=str(path)))
        await link.open()
        await link.flush()
        assert link.max_payload == 500
        await refuses_more_than(link, 500)
        await link.close()


@pytest.mark.parametrize("info", [b"INFO 5", b'INFO {"max_payload": null}', b'INFO {"max_payload": "x"}', b"INFO {"])
async def test_a_later_greeting_that_is_none_ends_the_connection(info):
    """The NATS client would read nothing any more, and say nothing."""
    async with stranger(GREETING, b"", b"PONG\r\n" + info + b"\r\n") as place:
        link = Link(ConnectionOptions(url=f"nats://{place}", ping_interval=3600, first_delay=3600, longest_delay=3600))
        await link.open()
        async with asyncio.timeout(20):
            await spin(lambda: link.losses)
        await link.close()


@pytest.mark.parametrize("size", [b"0", b"-1"])
async def test_a_later_greeting_without_a_limit_changes_nothing(size):
    greeting = b'INFO {"connect_urls": 5, "max_payload": %s}\r\n' % size
    async with stranger(GREETING, b"", b"PONG\r\n" + greeting, b"MSG a 1 1\r\nx\r\n") as place:
        link = Link(ConnectionOptions(url=f"nats://{place}"))
        await link.open()
        came: list[bytes] = []
        await link.subscribe("a", lambda message: came.append(message.data))
        await spin(lambda: came)
        assert link.max_payload == 1_048_576
        await link.close()
