"""Whatever comes on a subject, as it comes; on any NATS server, also one without JetStream."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from xml_pipeline.mesh.inbound import Inbound
from xml_pipeline.mesh.link import Link
from xml_pipeline.mesh.options import ConnectionOptions
from xml_pipeline.mesh.subjects import new_id

if TYPE_CHECKING:
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.mesh.place import Place

__all__ = ["messages"]


async def messages(place: Place, subject: str) -> AsyncGenerator[Message, None]:
    """Every message, for as long as it is iterated, across whatever happens to the connection.

    Args:
        place: where, and as whom.
        subject: what to listen to; it must have been checked.

    Raises:
        ConnectionFailed: there is no server.
        ConnectionDenied: it does not permit this.
        Overloaded: far too many wait for the reader.
    """
    link = Link(ConnectionOptions(url=place.url, creds=place.creds, name=f"oam-listener-{new_id()}"))
    inbound = Inbound(subject)
    await link.open()
    try:
        await link.subscribe(subject, inbound.put, on_denied=inbound.fail)
        while (message := await inbound.get(None)) is not None:
            yield message
    finally:
        await link.close()
