"""Reading what a stream holds now, once: some messages at a time, so that neither side has to hold more than it can."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.delivered import Delivered
from xml_pipeline.mesh.errors import MeshError, MeshTimeout
from xml_pipeline.mesh.subjects import new_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from xml_pipeline.mesh.errors import ConnectionDenied
    from xml_pipeline.mesh.jetstream import JetStream
    from xml_pipeline.mesh.link import Link
    from xml_pipeline.mesh.message import Message

__all__ = ["fetch"]

_log = logging.getLogger(__name__)

_AT_ONCE = 16
_TIMEOUT = 10.0
_ABANDONED = 60
_NANOSECONDS = 1_000_000_000


async def fetch(
    link: Link, jetstream: JetStream, stream: str, subject: str, *, last_of_each: bool = False
) -> AsyncGenerator[tuple[Message, Delivered], None]:
    """The messages that are stored, in order; some less where somebody removes them meanwhile.

    Args:
        link: the connection.
        jetstream: how to reach the stream.
        stream: its name.
        subject: which messages; may have wildcards.
        last_of_each: only the last one of each subject.

    Raises:
        MeshError: the server cannot be reached, does not answer, or does not permit it.
    """
    news: asyncio.Queue[Message | MeshError] = asyncio.Queue()
    inbox, consumer = link.inbox(), new_id()
    subscription = await link.subscribe(inbox, news.put_nowait)
    told = news.put_nowait
    asked = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"

    def denied(what: str, error: ConnectionDenied) -> None:
        if what == asked:
            news.put_nowait(error)

    link.on_lost.append(told)
    link.on_denied.append(denied)
    try:
        creation = _creation(stream, consumer, subject, last_of_each)
        made = await jetstream.api(f"CONSUMER.CREATE.{stream}.{consumer}", creation)
        pending = int(made.get("num_pending") or 0)
        while pending:
            batch = min(_AT_ONCE, pending)
            body = json.dumps({"batch": batch, "no_wait": True}).encode()
            await link.publish(asked, body, inbox)
            for _ in range(batch):
                message = await _next(news)
                numbers = Delivered.of(message.reply)
                if numbers is None or (message.headers or {}).get(h.SERVER_STATUS):
                    return  # there is less than there was
                pending = numbers.pending
                yield message, numbers
                if not pending:
                    return
    finally:
        link.on_lost.remove(told)
        link.on_denied.remove(denied)
        await subscription.close()
        await _forget(jetstream, stream, consumer)


def _creation(stream: str, consumer: str, subject: str, last_of_each: bool) -> dict[str, Any]:
    config = {
        "name": consumer,
        "ack_policy": "none",
        "deliver_policy": "last_per_subject" if last_of_each else "all",
        "filter_subject": subject,
        "inactive_threshold": _ABANDONED * _NANOSECONDS,
        "max_deliver": 1,
        "mem_storage": True,
        "num_replicas": 1,
        "replay_policy": "instant",
    }
    return {"stream_name": stream, "config": config}


async def _next(news: asyncio.Queue[Message | MeshError]) -> Message:
    try:
        async with asyncio.timeout(_TIMEOUT):
            found = await news.get()
    except TimeoutError:
        raise MeshTimeout(message="The server did not send what it has in time.", timeout=_TIMEOUT) from None
    if isinstance(found, MeshError):
        raise found
    return found


async def _forget(jetstream: JetStream, stream: str, consumer: str) -> None:
    try:
        await jetstream.api(f"CONSUMER.DELETE.{stream}.{consumer}")
    except MeshError as error:  # the server forgets it by itself, a little later
        _log.debug("removing a consumer of %s: %s", stream, error)
