"""`MeshPeer`: an agent of the mesh as a listener.

Whoever may call the listener may call the agent. The call waits for its answer without taking a handler's slot from
others; the answer is read as the class that was said, and is an answer like any other; so is every chunk of a stream.
What fails there fails here, see `failures`. When the call is cancelled here, it is cancelled there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager, aclosing
from functools import partial
from typing import TYPE_CHECKING, Any

from third_party.xmlable import Codec, XError, codec_of
from xml_pipeline.bridge.classes import MeshReply
from xml_pipeline.bridge.failures import to_pump
from xml_pipeline.bridge.forms import JsonForm
from xml_pipeline.bridge.outgoing import END
from xml_pipeline.bridge.outward import Outward
from xml_pipeline.bridge.waiting import until_connected
from xml_pipeline.errors import HandlerError, ValidationError
from xml_pipeline.mesh import MeshError
from xml_pipeline.message_bus.listener import make_listener
from xml_pipeline.message_bus.message_state import HandlerMetadata, HandlerResponse
from xml_pipeline.strict_xml import canonical_bytes

if TYPE_CHECKING:
    from lxml import etree

    from xml_pipeline.bridge.outgoing import OutgoingCalls
    from xml_pipeline.config.mesh import MeshAgentConfig
    from xml_pipeline.mesh import AgentMesh

__all__ = ["MeshPeer"]

_END: Any = object()


class MeshPeer:
    """One agent that is called by its name.

    Args:
        entry: what the configuration says, with its classes.
        lending: what to enter while an answer is waited for, so that others may use the slot.
        calls: makes them.

    Attributes:
        entry: see above.
        part: what the bridge has of it.
    """

    def __init__(
        self, entry: MeshAgentConfig, lending: Callable[[], AbstractContextManager[None]], calls: OutgoingCalls
    ) -> None:
        assert isinstance(entry.payload_class, type)
        self.entry = entry
        self.part = Outward(entry.name, lending)
        self._calls = calls
        self._form = JsonForm([codec_of(entry.payload_class)])
        output = entry.output_class if isinstance(entry.output_class, type) else None
        self._answers_with: Codec[Any] | None = None if output is None else codec_of(output)
        self._output = None if output is None else JsonForm([codec_of(output)])
        listener = make_listener(
            entry.listener_name,
            self._handle,
            entry.payload_class,
            description=entry.description or f"The agent {entry.name} of the mesh.",
            timeout=entry.timeout,
            output_class=output,
            trusted=True,
            attached=True,
        )
        self.part.listeners = (listener,)

    async def _handle(self, payload: Any, metadata: HandlerMetadata) -> AsyncGenerator[HandlerResponse, None]:
        mesh = self.part.mesh
        try:
            with self.part.under_way:
                async with aclosing(self._answers(mesh, payload, metadata)) as answers:
                    async for answer in answers:
                        yield HandlerResponse.respond(answer)
        except MeshError as error:
            raise to_pump(error, self.entry.name) from error

    async def _answers(self, mesh: AgentMesh, payload: Any, metadata: HandlerMetadata) -> AsyncGenerator[Any, None]:
        name, loop, client = self.entry.name, asyncio.get_running_loop(), mesh.parts.client
        with self.part.lending():
            await until_connected(mesh, metadata.deadline)
            write_json = partial(self._form.write, payload)
            call = await self._calls.begin(mesh, name, payload, write_json, self, metadata)
        known = mesh.parts.catalog.entry(name)
        if known is None or not known.streaming:
            with self.part.lending():
                left = metadata.deadline - loop.time()
                body = await client.ask(name, call.write, left, headers=call.headers, idempotent=self.entry.idempotent)
            yield call.read(body)
            return
        stream = client.ask_stream(name, call.write(), self.entry.timeout, headers=call.headers)
        async with aclosing(stream) as chunks:
            while True:
                with self.part.lending():
                    chunk = await anext(chunks, _END)
                if chunk is _END:
                    call.finish()
                    return
                answer = call.read_chunk(chunk)
                if answer is not END:
                    yield answer

    # -- answers, see `AnswerReader`

    @property
    def knows_class(self) -> bool:
        """Whether it was said which class answers have."""
        return self._output is not None

    def of_xml(self, element: etree._Element) -> Any:
        """The payload in an element, whatever its class is called over there."""
        codec = self._answers_with
        if codec is None:
            return MeshReply(canonical_bytes(element).decode())
        try:
            return codec.decode(element) if element.tag == codec.name else codec.decode_any(element)
        except XError as error:
            raise HandlerError(f"the agent's answer: {error}", step="mesh", target=self.entry.name) from error

    def of_json(self, data: Any) -> Any:
        """The payload that parsed JSON stands for."""
        if self._output is None:
            return MeshReply(json.dumps(data, ensure_ascii=False))
        try:
            return self._output.of(data)
        except ValidationError as error:
            raise HandlerError(f"the agent's answer: {error.detail}", step="mesh", target=self.entry.name) from error
