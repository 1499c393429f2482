"""`SubjectDurable`: messages that are kept on the server until they are done.

At least once: a message is acknowledged when everything that it began is over. What fails is tried again, later each
time; after the last attempt, and at once where it is no payload, it goes to the dead-letter subject and to the dead
letters of the pump. Where the node is killed before, another one that shares the name gets it, or this one when it is
back.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from third_party.xmlable import codec_of
from xml_pipeline.bridge.extensions import subject_element
from xml_pipeline.bridge.forms import JsonForm
from xml_pipeline.bridge.kept import keep
from xml_pipeline.bridge.senders import claimed_by, sender_of
from xml_pipeline.bridge.templates import Template
from xml_pipeline.errors import HandlerError, PipelineError, PumpStopped, ValidationError
from xml_pipeline.mesh import MeshError
from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.durable import Delivery, Durable
from xml_pipeline.mesh.durable_consumer import Owner
from xml_pipeline.message_bus.gateway import Arrival, Gateway

if TYPE_CHECKING:
    from xml_pipeline.bridge.subject_followed import IsOwn
    from xml_pipeline.config.mesh import SubjectConfig
    from xml_pipeline.mesh import AgentMesh
    from xml_pipeline.message_bus.dead_letters import DeadLetters
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["SubjectDurable"]

logger = logging.getLogger(__name__)

_FIRST_DELAY: Final = 1.0
_LONGEST_DELAY: Final = 30.0
_REASON: Final = "X-Mesh-Dead-Reason"
_SUBJECT: Final = "X-Mesh-Dead-Subject"
_ATTEMPTS: Final = "X-Mesh-Dead-Attempts"


class SubjectDurable:
    """One entry of ``mesh.subjects`` with ``durable``.

    Args:
        entry: what the configuration says, with its class.
        gateway: the way into the pump.
        dead_letters: the pump's.
        is_own: says of the headers of a message whether this organism has sent it; with ``None`` its own come back.
        origin: gives the name that is sent with what is given up, and that the consumer on the server is marked with.
        organism: gives the organism's name, for people.
    """

    listeners: Sequence[Listener] = ()

    def __init__(
        self,
        entry: SubjectConfig,
        gateway: Gateway,
        dead_letters: DeadLetters,
        is_own: IsOwn | None,
        origin: Callable[[], str],
        organism: Callable[[], str],
    ) -> None:
        assert isinstance(entry.payload_class, type) and entry.to is not None
        self.entry = entry
        self._target = entry.to
        self._gateway = gateway
        self._dead_letters = dead_letters
        self._is_own = is_own
        self._origin = origin
        self._organism = organism
        self._template = Template(entry.subscribe)
        self._form = JsonForm([codec_of(entry.payload_class)])
        self._mesh: AgentMesh | None = None
        self._durable: Durable | None = None
        self._working: set[asyncio.Task[None]] = set()

    async def start(self, mesh: AgentMesh) -> None:
        """Begin to read.

        Raises:
            MeshError: it cannot begin; the text names the entry.
        """
        entry, parts = self.entry, mesh.parts
        self._mesh = mesh
        durable = Durable(
            parts.link,
            parts.replies,
            parts.jetstream,
            self._template.pattern,
            entry.durable,
            self._arrived,
            stream=entry.stream,
            owner=Owner(self._origin(), self._organism()),
            ack_wait=entry.ack_wait,
            max_in_flight=entry.max_in_flight,
        )
        try:
            await durable.start()
        except MeshError as error:
            named = copy.copy(error)
            named.message = f"subjects: {entry.subscribe!r}, durable {entry.durable!r}: {error.message}"
            raise named from error
        self._durable = durable

    async def refresh(self) -> None:
        """Nothing of it depends on the listeners but where messages go, which is looked up for each."""

    async def stop(self, timeout: float) -> None:
        """Take no more, finish what came, and hand the rest back."""
        durable, self._durable = self._durable, None
        if durable is None:
            return
        await durable.stop(timeout)
        for task in list(self._working):
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)

    # -- one message

    def _arrived(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._handle(delivery))
        self._working.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("mesh: a message of %s", self.entry.subscribe, exc_info=task.exception())

    async def _handle(self, delivery: Delivery) -> None:
        try:
            await self._deliver(delivery)
        except Exception as error:
            logger.exception("mesh: a message of %s", self.entry.subscribe)
            await self._try_again(delivery, HandlerError(f"it cannot be handled: {error!r}", step="mesh"))
        except BaseException:
            delivery.again()  # the pump stops: another one may handle it
            raise

    async def _deliver(self, delivery: Delivery) -> None:
        message = delivery.message
        if self._is_own is not None and self._is_own(message.headers or {}):
            await delivery.done()  # it would come round for ever
            return
        values = self._template.values(message.subject)
        if values is None and delivery.times <= self.entry.max_deliver:
            delivery.again(_FIRST_DELAY)  # a reload has changed the subject: it is for the entry as it is now
            return
        try:
            payload = self._form.read(message.data, values or {})
        except ValidationError as error:
            await self._bury(delivery, error)
            return
        sender = sender_of(claimed_by(message.headers))
        element = subject_element(message.subject)
        try:
            await self._gateway.follow(Arrival(self._target, payload, sender, (element,), wait=True))
        except PumpStopped:
            delivery.again()
        except PipelineError as error:
            await self._try_again(delivery, error)
        else:
            await delivery.done()

    async def _try_again(self, delivery: Delivery, error: PipelineError) -> None:
        if delivery.times >= self.entry.max_deliver:
            await self._bury(delivery, error)
            return
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** (delivery.times - 1))
        subject = delivery.message.subject
        logger.warning("mesh: %s, attempt %d, again in %s s: %s", subject, delivery.times, delay, error.detail)
        delivery.again(delay)

    async def _bury(self, delivery: Delivery, error: PipelineError) -> None:
        """Nobody will handle it any more: keep it where somebody can look at it, then give it up."""
        message = delivery.message
        logger.error("mesh: %s is given up after %d attempts: %s", message.subject, delivery.times, error.detail)
        sender = sender_of(claimed_by(message.headers))
        keep(self._dead_letters, error, message.data, place=message.subject, sender=sender, target=self._target)
        headers = {
            _REASON: error.code,
            _SUBJECT: message.subject,
            _ATTEMPTS: str(delivery.times),
            h.INSTANCE_ID: "" if self._mesh is None else self._mesh.instance_id,
            h.ORIGIN: self._origin(),
        }
        try:
            if self._mesh is not None:
                await self._mesh.parts.link.publish(self.entry.dead_letter_subject, message.data, headers=headers)
        except MeshError as lost:
            logger.warning("mesh: the dead letter of %s could not be published: %s", message.subject, lost)
            delivery.again(_FIRST_DELAY)
            return
        delivery.give_up()
