"""`SubjectFollowed`: what is published to a subject, or by a publisher, as messages.

At most once: what is published while there is no connection is lost, as on every plain subject. What comes faster than
it is handled waits; when too much waits, the oldest is given up, and that is logged and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from third_party.xmlable import codec_of
from xml_pipeline.bridge.extensions import subject_element
from xml_pipeline.bridge.forms import JsonForm
from xml_pipeline.bridge.kept import keep
from xml_pipeline.bridge.senders import claimed_by, sender_of
from xml_pipeline.bridge.templates import Template
from xml_pipeline.errors import PipelineError, ValidationError
from xml_pipeline.mesh.protocol import Frame, FrameKind
from xml_pipeline.message_bus.gateway import Arrival, Gateway

if TYPE_CHECKING:
    from xml_pipeline.mesh import AgentMesh, ConnectionDenied
    from xml_pipeline.mesh.link import Subscription
    from xml_pipeline.mesh.message import Message
    from xml_pipeline.message_bus.dead_letters import DeadLetters
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["IsOwn", "SubjectFollowed"]

logger = logging.getLogger(__name__)

_MOST_WAITING: Final = 1_000

IsOwn = Callable[[Mapping[str, str]], bool]
"""Says of the headers of a message whether this organism has sent it."""


class SubjectFollowed:
    """One entry of ``mesh.subjects`` with ``subscribe``, or of ``mesh.agents`` with ``subscribe``.

    Args:
        subject: what to follow, with holes and wildcards.
        target: the listener that gets the messages.
        cls: their class.
        gateway: the way into the pump.
        dead_letters: where messages are kept that are no payload.
        queue: the group in which each message goes to one member only; empty for none.
        max_in_flight: messages under way at a time.
        frames: these are a publisher's events, whose end and errors are no payloads.
        is_own: says of the headers of a message whether this organism has sent it; with ``None`` its own come back.
    """

    listeners: Sequence[Listener] = ()

    def __init__(
        self,
        subject: str,
        target: str,
        cls: type,
        gateway: Gateway,
        dead_letters: DeadLetters,
        *,
        queue: str = "",
        max_in_flight: int = 64,
        frames: bool = False,
        is_own: IsOwn | None = None,
    ) -> None:
        self._template = Template(subject)
        self._target = target
        self._form = JsonForm([codec_of(cls)])
        self._gateway = gateway
        self._dead_letters = dead_letters
        self._queue = queue
        self._max_in_flight = max_in_flight
        self._frames = frames
        self._is_own = is_own
        self._mesh: AgentMesh | None = None
        self._subscription: Subscription | None = None
        self._waiting: deque[Message] = deque()
        self._working: set[asyncio.Task[None]] = set()
        self.dropped = 0
        """Messages that were given up because too many waited."""

    async def start(self, mesh: AgentMesh) -> None:
        """Begin to follow; when this returns, the server knows of it."""
        self._mesh = mesh
        link = mesh.parts.link
        if self._subscription is None:  # an attempt before may have come so far
            self._subscription = await link.subscribe(self._template.pattern, self._arrived, self._queue, self._denied)
        await link.flush()

    async def refresh(self) -> None:
        """Nothing of it depends on the listeners but where messages go, which is looked up for each."""

    async def stop(self, timeout: float) -> None:
        """Leave the subject, and finish what came."""
        subscription, self._subscription = self._subscription, None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        if subscription is not None:
            await subscription.drain(timeout)
        while self._working and loop.time() < deadline:
            await asyncio.wait(self._working, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED)
        left = len(self._waiting) + len(self._working)
        self._waiting.clear()
        for task in list(self._working):
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
        if left:
            logger.warning("mesh: %d messages of %s were given up at the end", left, self._template.text)

    # -- arriving

    def _denied(self, error: ConnectionDenied) -> None:
        logger.error("mesh: following %s is not permitted: %s", self._template.text, error)

    def _arrived(self, message: Message) -> None:
        if self._is_own is not None and (self._is_ours(message) or self._is_own(message.headers or {})):
            return  # of this node, or another one of the organism: it would come round for ever
        self._waiting.append(message)
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.popleft()
            self.dropped += 1
            if self.dropped & (self.dropped - 1) == 0:  # the first, the second, the fourth, ...
                logger.error("mesh: %s comes too fast: %d given up so far", self._template.text, self.dropped)
        self._begin()

    def _is_ours(self, message: Message) -> bool:
        return self._mesh is not None and claimed_by(message.headers) == self._mesh.instance_id

    def _begin(self) -> None:
        while self._waiting and len(self._working) < self._max_in_flight:
            task = asyncio.create_task(self._handle(self._waiting.popleft()))
            self._working.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("mesh: a message of %s", self._template.text, exc_info=task.exception())
        self._begin()

    # -- one message

    async def _handle(self, message: Message) -> None:
        values = self._template.values(message.subject)
        if values is None or (self._frames and not self._is_event(message)):
            return
        sender = sender_of(claimed_by(message.headers))
        try:
            payload = self._form.read(message.data, values)
        except ValidationError as error:
            logger.error("mesh: what came on %s is no %s: %s", message.subject, self._form.names, error.detail)
            self._keep(message, sender, error)
            return
        element = subject_element(message.subject)
        begun: list[str] = []
        arrival = Arrival(self._target, payload, sender, (element,), wait=True, on_begin=begun.append)
        try:
            await self._gateway.deliver(arrival)
        except PipelineError as error:
            logger.warning("mesh: %s: %s", message.subject, error.detail or error)
            if not begun:
                self._keep(message, sender, error)  # the pump keeps only what fails later

    def _is_event(self, message: Message) -> bool:
        kind = Frame.read(message.headers, message.data).kind
        if kind is FrameKind.ERROR:
            logger.warning("mesh: the publisher of %s failed: %.500r", message.subject, message.data)
        return kind is FrameKind.CHUNK

    def _keep(self, message: Message, sender: str, error: PipelineError) -> None:
        place = message.subject
        keep(self._dead_letters, error, message.data, place=place, sender=sender, target=self._target)
