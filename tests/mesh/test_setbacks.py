"""What the log says when a server ends the connection: which, why, and what follows; and not again and again."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import pytest

from tests.mesh.kit import spin
from tests.mesh.misbehaving import GREETING, HANG_UP, stranger
from tests.mesh.secured import ConfiguredServer
from xml_pipeline.mesh import ConnectionDenied, ConnectionFailed, ConnectionLost
from xml_pipeline.mesh.link import Link
from xml_pipeline.mesh.options import ConnectionOptions
from xml_pipeline.mesh.setbacks import Setbacks

LOST = "the connection to the mesh is lost ({}: {}); it will be made again"
NOT_YET = "the connection to the mesh is not made again yet: {}; it is tried on"
USERS = "authorization { users: [ {user: me, password: pw} ] }\n"


def reload(server: ConfiguredServer, config: str) -> None:
    server.config = config
    server._prepare()
    os.kill(server.pid, signal.SIGHUP)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_server_that_has_no_room_any_more(caplog):
    """It says so, and says it again at each attempt; each is in the log once."""
    caplog.set_level(logging.DEBUG)
    async with ConfiguredServer(USERS) as server:
        links = [Link(ConnectionOptions(url=server.url_of("me"), longest_delay=0.01)) for _ in range(2)]
        for link in links:
            await link.open()
        reload(server, f"{USERS}max_connections: 1\n")
        await spin(lambda: caplog.text.count("does not let us in") > 3)
        (kept,) = [link for link in links if not link.losses]
        (ended,) = [link for link in links if link.losses]
        shown = f"nats://***@127.0.0.1:{server.port}"
        expected = [
            LOST.format(shown, "the server said: maximum connections exceeded"),
            NOT_YET.format(f"The server at {shown} does not let us in: maximum connections exceeded"),
        ]
        assert warnings_in(caplog) == expected
        await kept.close()
        await ended.wait_up(20)
        assert warnings_in(caplog) == expected
        await ended.close()


async def test_too_large_a_message_and_those_who_wait_are_told_why(server, caplog):
    link = Link(ConnectionOptions(url=server.url, longest_delay=0.0))
    await link.open()
    lost: list[Exception] = []
    link.on_lost.append(lost.append)
    link.connection()._client.push(b"PUB a 9999999\r\n" + b"x" * 9_999_999 + b"\r\n")
    await spin(lambda: lost)
    await link.wait_up(20)
    await link.close()
    assert isinstance(lost[0], ConnectionLost)
    # While it is still being sent something, the server's word may get lost on the way.
    if "Maximum Payload Violation" in str(lost[0].details["reason"]):
        assert lost[0].details == {"reason": "the server said: Maximum Payload Violation", "server": server.url}
    (told,) = warnings_in(caplog)
    assert told == LOST.format(server.url, lost[0].details["reason"])


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"-ERR 'Stale Connection'\r\n", "Stale Connection"),
        (b"-ERR 'Slow Consumer'\r\n-ERR 'Something else'\r\n", "Slow Consumer"),
        (b"-ERR 'User Authentication Expired'\r\n", "User Authentication Expired"),
        (b"-ERR no quotes \x1b[31m\r\n", "no quotes ?[31m"),
        (b"-ERR \r\n", "nothing"),
    ],
)
@pytest.mark.parametrize("lasts", [False, True])
async def test_what_a_server_says_at_the_end_is_told_and_once_while_no_connection_lasts(caplog, said, reason, lasts):
    """It lets us in each time, and ends each connection after the second question."""
    async with stranger(GREETING, b"", b"PONG\r\n", b"PONG\r\n", said, HANG_UP) as place:
        longest = 0.0 if lasts else 3600
        link = Link(ConnectionOptions(url=f"nats://{place}", first_delay=0.001, longest_delay=longest))
        await link.open()
        link.on_restored.append(lambda: link.connection()._client.ask() and None)
        for _ in range(2):  # when it has come back, the first one is its own
            link.connection()._client.ask()
        async with asyncio.timeout(20):
            await spin(lambda: link.losses == 3)
        told = warnings_in(caplog)
        await link.close()
    assert told == [LOST.format(f"nats://{place}", f"the server said: {reason}")] * (3 if lasts else 1)


async def test_a_connection_that_is_lost_in_another_way_is_told_with_its_server(lasting_server, caplog):
    link = Link(ConnectionOptions(url=lasting_server.url))
    await link.open()
    lasting_server.kill()
    await spin(lambda: link.losses)
    await link.close()
    (told,) = warnings_in(caplog)
    assert told.startswith(f"the connection to the mesh is lost ({lasting_server.url}: ")


def test_the_same_reason_is_news_again_after_a_connection_that_lasted(caplog):
    setbacks = Setbacks(logging.getLogger("test"))
    away, denied = ConnectionFailed("It is away."), ConnectionDenied("Not you.")
    lost = ConnectionLost(details={"server": "nats://a", "reason": "why"})
    for lasted in (True, False, False, True):
        setbacks.lost(lost, lasted=lasted)
        for _ in range(3):
            setbacks.refused(away)
            setbacks.refused(denied)
    again = [LOST.format("nats://a", "why"), NOT_YET.format("Not you")]
    assert warnings_in(caplog) == 2 * again


def test_reasons_that_are_ever_new_do_not_fill_the_log(caplog):
    setbacks = Setbacks(logging.getLogger("test"))
    for number in range(1000):
        setbacks.refused(ConnectionDenied(f"Reason {number}."))
    assert len(warnings_in(caplog)) == 256
