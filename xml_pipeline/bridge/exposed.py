"""`Exposed`: a listener as an agent of the mesh.

A request becomes a message from ``mesh:<who sent it>``, on a conversation of its own, and goes through everything that
messages from outside go through. The listener's first answer is the reply; all answers are the chunks of a listener
that is an async generator. Where the queues are full, the caller is told at once.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from third_party.xmlable import Codec
from xml_pipeline.bridge.failures import to_mesh
from xml_pipeline.bridge.forms import JsonForm
from xml_pipeline.errors import PipelineError, RoutingError, ValidationError
from xml_pipeline.mesh import AgentContract, AgentSpec, MeshError, NotAvailable
from xml_pipeline.mesh.agent import Agent
from xml_pipeline.mesh.raw import RawRequest, Told, raw_agent
from xml_pipeline.mesh.shapes import Shape

if TYPE_CHECKING:
    from xml_pipeline.bridge.incoming import IncomingCall, IncomingCalls
    from xml_pipeline.config.mesh import ExposeConfig
    from xml_pipeline.mesh import AgentMesh
    from xml_pipeline.message_bus.exchange import Taker
    from xml_pipeline.message_bus.gateway import Gateway
    from xml_pipeline.message_bus.listener import Listener

__all__ = ["Exposed"]

logger = logging.getLogger(__name__)

_FAREWELL: Final = 30.0
"""Seconds that calls have to end when their listener is taken away."""


class Exposed:
    """One exposed listener.

    Args:
        entry: what the configuration says, with the name on the mesh and the version.
        find: gives the listener in force; ``None`` while there is none of this name.
        gateway: the way into the pump.
        calls: lets requests in.
    """

    listeners: Sequence[Listener] = ()

    def __init__(
        self,
        entry: ExposeConfig,
        find: Callable[[str], Listener | None],
        gateway: Gateway,
        calls: IncomingCalls,
    ) -> None:
        self.entry = entry
        self.name = entry.name
        self._find = find
        self._gateway = gateway
        self._calls = calls
        self._mesh: AgentMesh | None = None
        self._listener: Listener | None = None
        self._offered: Agent | None = None

    async def start(self, mesh: AgentMesh) -> None:
        """Offer it."""
        self._mesh, self._listener = mesh, None
        await self.refresh()

    async def refresh(self) -> None:
        """Offer the listener that is in force now, or none."""
        listener = self._find(self.entry.listener)
        mesh = self._mesh
        if mesh is None or listener is self._listener:
            return
        self._listener = listener
        if listener is None:
            await self._withdraw(mesh, _FAREWELL)
        else:
            self._offered = self._agent(listener)
            await mesh.offer(self._offered)

    async def stop(self, timeout: float) -> None:
        """Take no requests any more, and answer those that were taken."""
        mesh, self._mesh, self._listener = self._mesh, None, None
        if mesh is not None:
            await self._withdraw(mesh, timeout)

    async def _withdraw(self, mesh: AgentMesh, timeout: float) -> None:
        """Unless another entry has taken the name meanwhile."""
        offered, self._offered = self._offered, None
        if offered is not None and mesh.registered(self.name) is offered:
            await mesh.withdraw(self.name, timeout)

    # -- what others are told

    def _agent(self, listener: Listener) -> Agent:
        entry = self.entry
        form = JsonForm(list(listener.codecs.values()))
        takes, gives = form.schema(), _schema_of(listener.output_codec)
        shape = _shape(takes is not None, listener.streams)
        if not entry.invocable:
            takes, gives, shape = None, None, Shape.BACKGROUND
        spec = AgentSpec(
            name=self.name,
            description=entry.description or listener.description,
            tags=entry.tags,
            version=entry.version,
            max_concurrency=entry.max_concurrency,
            max_queue=entry.max_queue,
            timeout=entry.timeout,
        )
        contract = AgentContract(
            name=self.name,
            description=spec.description,
            version=spec.version,
            tags=list(spec.tags),
            invocable=shape.invocable,
            streaming=shape.streaming,
            input_schema=takes,
            output_schema=None if shape.streaming else gives,
            chunk_schema=gives if shape.streaming else None,
        )
        if shape is Shape.BACKGROUND:
            return raw_agent(spec, contract, shape, _nothing)
        if shape.streaming:
            own = not shape.invocable
            return raw_agent(spec, contract, shape, lambda request: self._stream(form, request, own))
        return raw_agent(spec, contract, shape, partial(self._answer, form), partial(self._begin, form))

    # -- requests

    async def _answer(self, form: JsonForm, request: RawRequest) -> bytes:
        try:
            call = await self._calls.admit(request, self.name, self.entry, form)
            return call.answer(await self._gateway.request(call.arrival, None))
        except PipelineError as error:
            raise self._refusal(error) from error

    def _begin(self, form: JsonForm, request: RawRequest, told: Told) -> Callable[[], object] | None:
        """`_answer`, from the pump's own turn, for a request that need not wait for anything else."""
        try:
            call = self._calls.admit_now(request, self.name, self.entry, form)
            if call is None:
                return None
            conversation_id = self._gateway.begin(call.arrival, self._taker(call, told))
        except PipelineError as error:
            raise self._refusal(error) from error
        return partial(self._gateway.give_up, conversation_id)

    def _taker(self, call: IncomingCall, told: Told) -> Taker:
        """What makes an answer of what the pump gives, and tells it."""
        context = copy_context()  # what the payload's class sets is not for the next handler of the pump's worker

        def take(payload: Any, error: PipelineError | None) -> None:
            if error is not None:
                told(b"", self._refusal(error))
                return
            try:
                body = context.run(call.answer, payload)
            except PipelineError as failure:
                told(b"", self._refusal(failure))
            except KeyboardInterrupt:
                raise
            except BaseException as defect:
                told(b"", defect)
            else:
                told(body, None)

        return take

    async def _stream(self, form: JsonForm, request: RawRequest, own: bool) -> AsyncGenerator[bytes, None]:
        try:
            call = await self._calls.admit(request, self.name, self.entry, form, own=own)
            async with aclosing(self._gateway.stream(call.arrival)) as answers:
                async for answer in answers:
                    yield call.chunk(answer)
            end = call.end()
            if end is not None:
                yield end
        except PipelineError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: PipelineError) -> MeshError:
        if isinstance(error, RoutingError) and self._find(self.entry.listener) is None:
            return NotAvailable(agent=self.name)  # a reload has taken the listener away
        if isinstance(error, ValidationError) and error.step == "mesh":
            # It never became a message, so nothing else tells of it; and the caller is not told why.
            logger.warning("a request to %s was refused: %.300s", self.name, error.detail)
        return to_mesh(error)


async def _nothing(_: RawRequest) -> bytes:
    """What a watcher does by itself: it waits for what comes in by other ways."""
    return b""


def _shape(takes: bool, streams: bool) -> Shape:
    if streams:
        return Shape.STREAMER if takes else Shape.PUBLISHER
    return Shape.RESPONDER if takes else Shape.TRIGGER


def _schema_of(codec: Codec[Any] | None) -> dict[str, Any] | None:
    return None if codec is None else JsonForm([codec]).schema()
