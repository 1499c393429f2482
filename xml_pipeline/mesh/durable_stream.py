"""The stream that a durable consumer reads: it is found by its subject, or made, and has to keep all of it.

A server names every stream that keeps *some* of a subject, and gives a consumer of any of them only what that one
keeps. What else is published to the subject would be lost, and nobody would be told. So a reader does not begin with
such a stream; where one that is read becomes so, that is said, and what it still keeps is read. One that the mesh has
made is given the rest again: two who change it at the same time may undo what the other has done, for a server takes
the configuration as a whole, and the last one that comes.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xml_pipeline.mesh.errors import MeshError, StorageError
from xml_pipeline.mesh.jetstream import STREAM_NOT_FOUND
from xml_pipeline.mesh.stream_content import content_of
from xml_pipeline.mesh.subject_patterns import holds

if TYPE_CHECKING:
    from xml_pipeline.mesh.jetstream import JetStream

__all__ = ["OVERLAP", "DurableStream", "Found"]

_log = logging.getLogger(__name__)

OVERLAP: Final = 10065
"""The server's error for a stream some of whose subjects are another's."""

_LOOK_EVERY: Final = 30.0
_MOST_LOOKED_AT: Final = 64
_OURS: Final = "Made for a durable consumer of the mesh."


@dataclass(frozen=True, slots=True)
class Found:
    """The stream to read.

    Args:
        name: what it is called.
        is_ours: whether it is one that the mesh makes, or may change.
        config: as it is, where it has to be given more subjects; ``None`` where it does not.
    """

    name: str
    is_ours: bool = False
    config: dict[str, Any] | None = None


class DurableStream:
    """Which stream it is, and whether it keeps what is asked for.

    Args:
        jetstream: what the server stores.
        subject: which messages; it must have been checked. May have wildcards.
        consumer: the name of the consumer.
        said: what the stream is called; empty to find it, or to make one.
    """

    def __init__(self, jetstream: JetStream, subject: str, consumer: str, said: str) -> None:
        self._jetstream = jetstream
        self._subject = subject
        self._consumer = consumer
        self._said = said
        self._own = f"mesh-{consumer}"
        self._made: dict[str, Any] | None = None  # a stream of our own that keeps more than it need
        self._read = ""
        self._told = ""
        self._is_asked = asyncio.Event()

    # -- before it is read

    async def find(self) -> Found:
        """The stream to read. Nothing is changed yet. A reader that has begun is given one that keeps not enough, too.

        Raises:
            StorageError: there is none that keeps the whole subject, and none can be made.
            MeshError: the server does not say.
        """
        if self._said:
            return await self._the_said()
        overlapping = await self._overlapping()
        faults = []
        for name, config in overlapping.items():
            fault, _ = await self._fault_of(config)
            if not fault:
                return Found(name, is_ours=name == self._own)
            faults.append(fault)
        if not overlapping:
            found = await self._jetstream.stream(self._own)
            return Found(self._own, True, None if found is None else found["config"])
        name, config = next(iter(overlapping.items()))
        if len(overlapping) == 1 and self._may_have_more(config):
            return Found(name, True, config)
        self._refuse(name, "; ".join(faults))
        return Found(name)

    def _may_have_more(self, config: dict[str, Any]) -> bool:
        """Whether it is a stream of the mesh, and not asked for all of the subject yet."""
        is_ours = config["name"] == self._own or config.get("description") == _OURS
        return is_ours and not self._said and not holds(config.get("subjects") or (), self._subject)

    async def _the_said(self) -> Found:
        found = await self._jetstream.stream(self._said)
        if found is None:
            text = f"There is no stream {self._said}."
            raise StorageError(text, details={"err_code": STREAM_NOT_FOUND, "stream": self._said})
        fault, is_sure = await self._fault_of(found["config"])
        if is_sure and fault:
            self._refuse(self._said, fault)
        return Found(self._said)

    async def _overlapping(self) -> dict[str, dict[str, Any]]:
        """The streams that keep a part of the subject, by their names."""
        answer = await self._jetstream.api("STREAM.NAMES", {"subject": self._subject})
        found: dict[str, dict[str, Any]] = {}
        for name in (answer.get("streams") or [])[:_MOST_LOOKED_AT]:
            info = await self._jetstream.stream(name)
            if info is not None:
                found[name] = info["config"]
        return found

    async def _fault_of(self, config: dict[str, Any]) -> tuple[str, bool]:
        """Why the stream should not be read, empty where it should; and whether that is sure."""
        content = await content_of(self._jetstream, config, self._subject)
        if content.holds(self._subject):
            return "", True
        return f"the stream {config['name']} keeps {str(content) or 'nothing'}", content.is_all

    def _refuse(self, name: str, fault: str) -> None:
        if self._read:
            return  # `watch` says it
        raise StorageError(
            f"The durable consumer {self._consumer} is to read {self._subject}, and {fault}: the rest of "
            f"{self._subject} would be lost. Give one stream the whole of it, or have one consumer for each stream, "
            "which asks for no more than that keeps.",
            details={"stream": name, "subject": self._subject, "consumer": self._consumer},
        )

    def begun(self, found: Found) -> None:
        """There is a consumer, and the stream is read."""
        self._read = found.name
        self._is_asked.set()

    # -- changing it

    async def prepare(self, found: Found, *, is_awaited: bool) -> None:
        """See to it that one of the mesh's own is there, and keeps the whole subject.

        Args:
            found: by `find`.
            is_awaited: whether there is a consumer already that is to get what it will keep from now on.

        Raises:
            MeshError: that cannot be done.
        """
        if not found.is_ours:
            return
        # With "interest", what is stored before there is the first consumer is confirmed and gone: see `keep_less`.
        config = {"subjects": [self._subject], "retention": "limits", "storage": "file", "description": _OURS}
        made = (await self._jetstream.bind_or_create(found.name, config))["config"]
        kept = made.get("subjects") or []
        if not holds(kept, self._subject):
            # It was made for another subject, which others may still need.
            subjects = [each for each in kept if not holds([self._subject], each)] + [self._subject]
            made = {**made, "subjects": subjects}
            if not is_awaited and made.get("description") == _OURS and made.get("retention") == "interest":
                made["retention"] = "limits"  # what comes before a consumer of it is there must not be lost either
            await self._jetstream.api(f"STREAM.UPDATE.{found.name}", made)
        self._made = made if made.get("description") == _OURS and made.get("retention") == "limits" else None

    async def keep_less(self) -> None:
        """Now that there is a consumer, a stream of our own need not keep what all consumers have handled."""
        made, self._made = self._made, None
        if made is None:
            return
        name = made["name"]
        found = await self._jetstream.stream(name)
        config = made if found is None else found["config"]
        try:
            await self._jetstream.api(f"STREAM.UPDATE.{name}", {**config, "retention": "interest"})
        except MeshError as error:
            text = "the stream %s keeps everything for ever, until its retention is set to interest: %s"
            _log.warning(text, name, error)

    # -- while it is read

    def look(self) -> None:
        """Something may have changed, e.g. while there was no connection: look at once, and say again what is wrong."""
        self._is_asked.set()

    async def watch(self) -> None:
        """Wait until it is time to look, and mend it, or say it, if what is read does not keep all any more.

        Raises:
            MeshError: the server does not say.
        """
        is_asked = await self._until_asked()
        found = await self._jetstream.stream(self._read)
        if found is None:
            return  # the reader finds out
        fault, is_sure = await self._fault_of(found["config"])
        if fault and await self._is_mended(found["config"], fault):
            fault = ""
        self._tell(fault, is_sure, again=is_asked)

    async def _is_mended(self, config: dict[str, Any], fault: str) -> bool:
        if not self._may_have_more(config):
            return False
        try:
            await self.prepare(Found(self._read, True, config), is_awaited=True)
        except MeshError as error:
            _log.debug("giving %s to the stream %s again: %s", self._subject, self._read, error)
            return False
        _log.warning("%s, and was given the rest of %s again", fault, self._subject)
        return True

    async def _until_asked(self) -> bool:
        try:
            async with asyncio.timeout(_LOOK_EVERY):
                await self._is_asked.wait()
        except TimeoutError:
            return False
        self._is_asked.clear()
        return True

    def _tell(self, fault: str, is_sure: bool, *, again: bool) -> None:
        if fault and (again or fault != self._told):
            what = "is lost" if is_sure else "may be lost: that cannot be told from here"
            _log.log(
                logging.ERROR if is_sure else logging.WARNING,
                "the durable consumer %s reads %s, and %s; the rest %s",
                *(self._consumer, self._subject, fault, what),
            )
        elif self._told and not fault:
            _log.info("the stream %s keeps all of %s again", self._read, self._subject)
        self._told = fault
