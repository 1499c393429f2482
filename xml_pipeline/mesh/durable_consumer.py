"""The consumer on the server that remembers which messages of a subject were handled, and whose it is.

Whoever makes it leaves a mark in its metadata. It may be given another subject by those of the same mark, as when
their configuration has changed, and by nobody else: what others read of it would be gone. One without a mark was made
by a version that left none, or on a server that keeps none (before 2.10), and belongs to whoever comes.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xml_pipeline.mesh.errors import StorageError
from xml_pipeline.mesh.jetstream import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND
from xml_pipeline.mesh.payload import json_safe

if TYPE_CHECKING:
    from xml_pipeline.mesh.jetstream import JetStream

__all__ = ["DurableConsumer", "Owner"]

_log = logging.getLogger(__name__)

_NANOSECONDS: Final = 1_000_000_000
_IS_THERE: Final = 10148  # the consumer was made by somebody who said something else about it
_CHANGING: Final = ("filter_subject", "ack_wait")  # what may be another than when it was made
_ID: Final = "xml-pipeline.owner-id"
_NAME: Final = "xml-pipeline.owner"
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Owner:
    """To whom a consumer belongs.

    Args:
        id: the same for all of one owner, and for nobody else.
        name: for people.
    """

    id: str
    name: str

    @property
    def mark(self) -> dict[str, str]:
        """What stands in the metadata of what belongs to it."""
        return {_ID: self.id, _NAME: str(json_safe(self.name[:_SHOWN]))}


class DurableConsumer:
    """One consumer.

    Args:
        jetstream: what the server stores.
        name: of the consumer.
        subject: which messages.
        ack_wait: seconds after which the server gives up a reader that says nothing.
        owner: whose it is; ``None`` to leave no mark.
    """

    def __init__(self, jetstream: JetStream, name: str, subject: str, ack_wait: float, owner: Owner | None) -> None:
        self._jetstream = jetstream
        self._name = name
        self._owner = owner
        self._is_told = False
        self._config: dict[str, Any] = {
            "name": name,
            "durable_name": name,
            "ack_policy": "explicit",
            "ack_wait": int(ack_wait * _NANOSECONDS),
            "deliver_policy": "all",
            "filter_subject": subject,
            "max_deliver": -1,
            "replay_policy": "instant",
        }
        if owner is not None:
            self._config["metadata"] = owner.mark

    async def make(self, stream: str) -> None:
        """See to it that it is there, and gives what is wanted.

        Args:
            stream: that it reads.

        Raises:
            StorageError: it belongs to somebody else, and gives something else.
            MeshError: it cannot be made.
        """
        try:
            await self._send(stream, self._config, "create")
        except StorageError as error:
            if error.details.get("err_code") != _IS_THERE:
                raise
            await self._change(stream, await self._found(stream))

    async def check(self, stream: str) -> None:
        """See whether `make` would be refused, before anything else is changed for it.

        Args:
            stream: that it would read; it need not be there.

        Raises:
            StorageError: it belongs to somebody else, and gives something else.
            MeshError: the server does not say.
        """
        try:
            found = await self._found(stream)
        except StorageError as error:
            if error.details.get("err_code") not in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                raise
        else:
            self._object(stream, found)

    async def _found(self, stream: str) -> dict[str, Any]:
        config: dict[str, Any] = (await self._jetstream.api(f"CONSUMER.INFO.{stream}.{self._name}"))["config"]
        return config

    async def _send(self, stream: str, config: dict[str, Any], action: str) -> None:
        creation = {"stream_name": stream, "config": config, "action": action}
        await self._jetstream.api(f"CONSUMER.CREATE.{stream}.{self._name}", creation)

    async def _change(self, stream: str, found: dict[str, Any]) -> None:
        """Have a consumer that was made for something else give what is wanted now. One that filters nothing, or in
        another way, was made by somebody who knows, and stays so."""
        self._object(stream, found)
        wanted = self._wanted(found)
        if self._is_unmarked(found):
            wanted["metadata"] = {**(found.get("metadata") or {}), **self._config["metadata"]}
        if not wanted:
            return
        before = found.get("filter_subject")
        if "filter_subject" in wanted:
            _log.warning("the consumer %s of %s gave %s; now %s", self._name, stream, before, wanted["filter_subject"])
        await self._send(stream, {**found, **wanted}, "update")

    def _wanted(self, found: dict[str, Any]) -> dict[str, Any]:
        """What has to be another."""
        changing = ("filter_subject",) if found.get("backoff") else _CHANGING  # that goes before `ack_wait`
        return {key: self._config[key] for key in changing if found.get(key) not in (None, "", self._config[key])}

    def _is_unmarked(self, found: dict[str, Any]) -> bool:
        """Whether it is one as is made here, but for the mark."""
        marked = _ID in (found.get("metadata") or {})
        return self._owner is not None and not marked and bool(found.get("filter_subject"))

    def _object(self, stream: str, found: dict[str, Any]) -> None:
        mark = found.get("metadata") or {}
        theirs, ours = mark.get(_ID), "" if self._owner is None else self._owner.id
        if theirs in (None, "", ours):
            return
        whose = f"The durable consumer {self._name} of the stream {stream} belongs to {_quoted(mark)}"
        wanted = self._wanted(found)
        if wanted:
            changes = " and ".join(f"the {key} {value}, not {found[key]}" for key, value in wanted.items())
            raise StorageError(
                f"{whose}, and stays as it is; wanted is {changes}. Take another name for one of the two. If its owner "
                f"is no more, or has got another name, remove {_ID!r} from the consumer's metadata.",
                details={"stream": stream, "consumer": self._name, "owner": mark.get(_NAME, ""), "owner_id": theirs},
            )
        if not self._is_told:
            _log.warning("%s, too: each message goes to one of both, not to each", whose)
            self._is_told = True


def _quoted(mark: dict[str, Any]) -> str:
    return repr(str(mark.get(_NAME) or mark.get(_ID))[:_SHOWN])
