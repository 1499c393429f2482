"""The consumer on the server that remembers which messages of a subject were handled, and whose it is.

Whoever makes it leaves a mark in its metadata. It may be given another subject by those of the same mark, as when
their configuration has changed, and by nobody else: what others read of it would be gone. Of several of one mark, the
one that began last decides; who has begun before, and has to look for it again, leaves it as it is. One without a mark
was made by a version that left none, or on a server that keeps none (before 2.10), and belongs to whoever comes.

Where its stream has yet to be told to keep the other subject, it gives both for a moment: a message that was stored
before it is asked for goes past whoever reads on meanwhile.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xml_pipeline.mesh.errors import StorageError
from xml_pipeline.mesh.jetstream import CONSUMER_NOT_FOUND, STREAM_NOT_FOUND
from xml_pipeline.mesh.payload import json_safe
from xml_pipeline.mesh.subject_patterns import common

if TYPE_CHECKING:
    from xml_pipeline.mesh.jetstream import JetStream

__all__ = ["DurableConsumer", "Owner"]

_log = logging.getLogger(__name__)

_NANOSECONDS: Final = 1_000_000_000
_IS_THERE: Final = 10148  # the consumer was made by somebody who said something else about it
_NOT_KEPT: Final = 10093  # the stream keeps nothing of what is asked for; before 2.10
_CHANGING: Final = ("filter_subject", "ack_wait")  # what may be another than when it was made
_ID: Final = "xml-pipeline.owner-id"
_NAME: Final = "xml-pipeline.owner"
_NEXT: Final = "xml-pipeline.next-filter"  # gives what it gave and this, until the stream keeps this
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
        self._subject = subject
        self._owner = owner
        self._is_told = self._is_made = False
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
        """See to it that it is there, and, the first time, that it gives what is wanted.

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
            found = await self._found(stream)
            if not self._is_left(found):
                await self._change(stream, found)
        self._is_made = True

    async def reach(self, stream: str) -> bool:
        """Have it give what is wanted, beside what it gives, before the stream keeps it; then comes `make`.

        Args:
            stream: that it will read; it is there.

        Returns:
            Whether it does. On servers before 2.10, which keep no marks, none can.

        Raises:
            StorageError: it belongs to somebody else, and gives something else.
            MeshError: it cannot be made, or changed.
        """
        found = await self._found_or_none(stream)
        if found is None:
            return await self._is_sent(stream, self._config, "create")
        if self._is_unmarked(found):
            await self._send(stream, {**found, "metadata": self._marked(found)}, "update")
            found = await self._found(stream)
        self._object(stream, found)
        given = _filters(found)
        both = [each for each in given if not common(each, self._subject)] + [self._subject]
        if not given or both == given or self._is_left(found):
            return True
        if (len(both) > 1 and not self._is_ours(found)) or (len(given) > 1 and _NEXT not in _mark(found)):
            return False
        if len(both) == 1:
            self._tell(stream, found)
        return await self._is_sent(stream, self._filtering(found, both), "update")

    async def check(self, stream: str) -> None:
        """See whether `make` would be refused.

        Args:
            stream: that it reads; it need not be there.

        Raises:
            StorageError: it belongs to somebody else, and gives something else.
            MeshError: the server does not say.
        """
        found = await self._found_or_none(stream)
        if found is not None:
            self._object(stream, found)

    async def _found_or_none(self, stream: str) -> dict[str, Any] | None:
        try:
            return await self._found(stream)
        except StorageError as error:
            if error.details.get("err_code") not in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                raise
            return None

    async def _found(self, stream: str) -> dict[str, Any]:
        config: dict[str, Any] = (await self._jetstream.api(f"CONSUMER.INFO.{stream}.{self._name}"))["config"]
        return config

    async def _send(self, stream: str, config: dict[str, Any], action: str) -> None:
        creation = {"stream_name": stream, "config": config, "action": action}
        await self._jetstream.api(f"CONSUMER.CREATE.{stream}.{self._name}", creation)

    async def _is_sent(self, stream: str, config: dict[str, Any], action: str) -> bool:
        try:
            await self._send(stream, config, action)
        except StorageError as error:
            if error.details.get("err_code") not in (_NOT_KEPT, _IS_THERE):
                raise
            return False
        return True

    async def _change(self, stream: str, found: dict[str, Any]) -> None:
        """Have a consumer that was made for something else give what is wanted now. One that filters nothing, or in
        another way, was made by somebody who knows, and stays so."""
        self._object(stream, found)
        wanted = self._wanted(found)
        if self._is_unmarked(found):
            wanted["metadata"] = self._marked(found)
        if not wanted:
            return
        if "filter_subject" in wanted:
            self._tell(stream, found)
            found = self._filtering(found, [self._subject])
        await self._send(stream, {**found, **wanted}, "update")

    def _tell(self, stream: str, found: dict[str, Any]) -> None:
        before = ", ".join(_filters(found))
        _log.warning("the consumer %s of %s gave %s; now %s", self._name, stream, before, self._subject)

    def _filtering(self, found: dict[str, Any], subjects: list[str]) -> dict[str, Any]:
        """The configuration with another filter, and nothing else changed."""
        config = {key: value for key, value in found.items() if key not in ("filter_subject", "filter_subjects")}
        mark = {key: value for key, value in _mark(found).items() if key != _NEXT}
        if len(subjects) == 1:
            return {**config, "filter_subject": subjects[0], "metadata": mark}
        return {**config, "filter_subjects": subjects, "metadata": {**mark, _NEXT: self._subject}}

    def _wanted(self, found: dict[str, Any]) -> dict[str, Any]:
        """What has to be another."""
        changing = ("filter_subject",) if found.get("backoff") else _CHANGING  # that goes before `ack_wait`
        wanted = {key: self._config[key] for key in changing if found.get(key) not in (None, "", self._config[key])}
        if _NEXT in _mark(found):  # nobody has said that the stream keeps it now
            wanted["filter_subject"] = self._subject
        return wanted

    def _is_unmarked(self, found: dict[str, Any]) -> bool:
        """Whether it is one as is made here, but for the mark."""
        return self._owner is not None and not _mark(found).get(_ID) and bool(found.get("filter_subject"))

    def _is_ours(self, found: dict[str, Any]) -> bool:
        return self._owner is not None and _mark(found).get(_ID) == self._owner.id

    def _is_left(self, found: dict[str, Any]) -> bool:
        """Whether another one of the same mark may have begun since we did, and wants it as it is."""
        return self._is_made and self._is_ours(found)

    def _marked(self, found: dict[str, Any]) -> dict[str, Any]:
        return {**_mark(found), **self._config["metadata"]}

    def _object(self, stream: str, found: dict[str, Any]) -> None:
        mark = _mark(found)
        theirs, ours = mark.get(_ID), "" if self._owner is None else self._owner.id
        if theirs in (None, "", ours):
            return
        whose = f"The durable consumer {self._name} of the stream {stream} belongs to {_quoted(mark)}"
        wanted = self._wanted(found)
        if wanted:
            given = {**found, "filter_subject": ", ".join(_filters(found))}
            changes = " and ".join(f"the {key} {value}, not {given[key]}" for key, value in wanted.items())
            raise StorageError(
                f"{whose}, and stays as it is; wanted is {changes}. Take another name for one of the two. If its owner "
                f"is no more, or has got another name, remove {_ID!r} from the consumer's metadata.",
                details={"stream": stream, "consumer": self._name, "owner": mark.get(_NAME, ""), "owner_id": theirs},
            )
        if not self._is_told:
            _log.warning("%s, too: each message goes to one of both, not to each", whose)
            self._is_told = True


def _mark(found: dict[str, Any]) -> dict[str, Any]:
    return found.get("metadata") or {}


def _filters(found: dict[str, Any]) -> list[str]:
    return list(found.get("filter_subjects") or filter(None, [found.get("filter_subject")]))


def _quoted(mark: dict[str, Any]) -> str:
    return repr(str(mark.get(_NAME) or mark.get(_ID))[:_SHOWN])
