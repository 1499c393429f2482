"""Calls that go out: as envelopes to listeners of other organisms, which say in their contract that they take them, and
as JSON to all other agents.

An envelope is sent where the payload's class has the name of one that the contract says, and always where the answers
of the agent must be signed, whatever its contract says: a contract is not signed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakKeyDictionary

from third_party.xmlable import XError, codec_of
from xml_pipeline.bridge.forms import envelope_names
from xml_pipeline.bridge.letters import Letter, is_letter, write_request
from xml_pipeline.crypto import Reason, SignatureRefused
from xml_pipeline.errors import HandlerError, ValidationError
from xml_pipeline.mesh import ChunkSequenceError, MeshError
from xml_pipeline.mesh import headers as h
from xml_pipeline.mesh.payload import decode

if TYPE_CHECKING:
    from lxml.etree import _Element

    from xml_pipeline.bridge.baggage import BaggageRoom
    from xml_pipeline.bridge.border import Border
    from xml_pipeline.mesh import AgentMesh, CatalogEntry
    from xml_pipeline.message_bus.message_state import HandlerMetadata

__all__ = ["END", "AnswerReader", "OutgoingCall", "OutgoingCalls"]

END: Final[Any] = object()
"""What is read of the last body of a stream."""


class AnswerReader(Protocol):
    """Makes payloads of answers."""

    @property
    def knows_class(self) -> bool:
        """Whether it knows their class; without, they come as JSON, if they may."""
        ...

    def of_json(self, data: Any) -> Any:
        """The payload that parsed JSON stands for."""
        ...

    def of_xml(self, element: _Element) -> Any:
        """The payload in an element."""
        ...


class OutgoingCall(Protocol):
    """One call."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What is sent with it."""
        ...

    def write(self) -> bytes:
        """The body; for each attempt anew."""
        ...

    def read(self, body: bytes) -> Any:
        """The payload of the one answer.

        Raises:
            SignatureRefused: it is not accepted.
            HandlerError: it cannot be read.
        """
        ...

    def read_chunk(self, body: bytes) -> Any:
        """The payload of the next of several answers; `END` for a body that only ends them.

        Raises:
            SignatureRefused: it is not accepted.
            ChunkSequenceError: it is not the next one.
            HandlerError: it cannot be read.
        """
        ...

    def finish(self) -> None:
        """A stream has ended.

        Raises:
            ChunkSequenceError: it was cut off.
        """
        ...


class OutgoingCalls:
    """Makes calls.

    Args:
        organism: gives its name.
        border: signs and verifies.
        room: says what goes with a call.
    """

    def __init__(self, organism: Callable[[], str], border: Border, room: BaggageRoom) -> None:
        self._organism = organism
        self._border = border
        self._room = room
        # By who reads the answers, i.e. by the listener that stands for the agent: it goes with that.
        self._names: WeakKeyDictionary[AnswerReader, tuple[CatalogEntry, frozenset[str]]] = WeakKeyDictionary()

    async def begin(
        self,
        mesh: AgentMesh,
        agent: str,
        payload: Any,
        write_json: Callable[[], bytes],
        reader: AnswerReader,
        metadata: HandlerMetadata,
    ) -> OutgoingCall:
        """Get a call ready.

        Args:
            mesh: that it goes out on.
            agent: who is called.
            payload: for it.
            write_json: gives the payload as JSON.
            reader: makes payloads of the answers.
            metadata: of the frame that it is made from.

        Raises:
            ValidationError: it holds what cannot be carried.
        """
        headers = self._room.for_call(metadata).to_headers()
        codec = codec_of(type(payload))
        if not self._border.must_sign(agent) and (
            not reader.knows_class or codec.name not in await self._taken(mesh, agent, reader)
        ):
            return _JsonCall(agent, write_json(), headers, self._border, reader)
        caller = f"{self._organism()}.{metadata.from_id}"
        try:
            text = codec.encode_payload(payload)
        except XError as error:
            raise ValidationError(str(error), step="mesh") from error
        envelope = write_request(text, caller, agent, metadata.thread_id)
        plain = _JsonCall(agent, b"", headers, self._border, reader)
        return _EnvelopeCall(plain, envelope, caller, metadata.thread_id)

    async def _taken(self, mesh: AgentMesh, agent: str, reader: AnswerReader) -> frozenset[str]:
        """The classes that an agent takes in envelopes, by what its contract says as long as its entry is the same."""
        entry = mesh.parts.catalog.entry(agent)
        if entry is None:
            return frozenset()
        known = self._names.get(reader)
        if known is None or known[0] is not entry:
            try:
                contract = await mesh.parts.directory.contract(agent)
            except MeshError:
                return frozenset()
            known = self._names[reader] = (entry, envelope_names(contract))
        return known[1]


class _JsonCall:
    """One in JSON."""

    def __init__(
        self, agent: str, body: bytes, headers: Mapping[str, str], border: Border, reader: AnswerReader
    ) -> None:
        self.agent = agent
        self.headers = headers
        self.border = border
        self.reader = reader
        self._body = body

    def write(self) -> bytes:
        return self._body

    def read(self, body: bytes) -> Any:
        self.border.admit_plain_answer(self.agent)
        try:
            data = decode(body)
        except (ValueError, RecursionError) as error:
            raise HandlerError(f"the agent's answer is not JSON: {error}", step="mesh", target=self.agent) from error
        try:
            return self.reader.of_json(data)
        except HandlerError:
            if data != {}:
                raise
            return self._nothing()

    def _nothing(self) -> Any:
        """What an agent that has nothing to answer sends, whatever it says that it answers, is an empty object."""
        return self.reader.of_json(None)

    def read_chunk(self, body: bytes) -> Any:
        return self.read(body)

    def finish(self) -> None:
        return None


class _EnvelopeCall:
    """One as an envelope; an answer in JSON is taken where it need not be signed."""

    def __init__(self, plain: _JsonCall, envelope: bytes, caller: str, thread: str) -> None:
        self.headers = {**plain.headers, h.CONTENT_TYPE: h.XML}
        self._plain = plain
        self._envelope = envelope
        self._caller = caller
        self._thread = thread
        self._count = 0
        self._is_complete = False

    def write(self) -> bytes:
        return self._plain.border.sign(self._envelope, self._plain.agent)

    def read(self, body: bytes) -> Any:
        if not is_letter(body):
            return self._plain.read(body)
        letter = self._letter(body)
        if letter.number >= 0:
            raise HandlerError("the agent's one answer is one of several", step="mesh", target=self._plain.agent)
        return self._payload(letter)

    def read_chunk(self, body: bytes) -> Any:
        if not is_letter(body):
            self._is_complete = True  # whether there are more says the mesh
            return self._plain.read(body)
        letter = self._letter(body)
        if letter.number != self._count:
            raise ChunkSequenceError(
                message=f"The stream of {self._plain.agent} has the number {letter.number} "
                f"where {self._count} was to come."
            )
        self._is_complete = letter.is_end
        if letter.is_end:
            return END
        self._count += 1
        return self._payload(letter)

    def finish(self) -> None:
        if not self._is_complete:
            text = f"The stream of {self._plain.agent} was cut off after {self._count} answers."
            raise ChunkSequenceError(message=text)

    def _letter(self, body: bytes) -> Letter:
        agent, border = self._plain.agent, self._plain.border
        verified = border.admit_answer(body, agent, self._caller)
        reason, detail = Reason.MALFORMED, ""
        try:
            letter = Letter.read(verified)
            if letter.to == self._caller and letter.thread == self._thread:
                return letter
            reason, detail = Reason.WRONG_DESTINATION, "it answers another call"
        except ValidationError as error:
            detail = error.detail
        refused = SignatureRefused(reason, detail, key_id=verified.key_id or "", message_id=verified.message_id)
        border.refuse_answer(refused, agent)
        raise refused

    def _payload(self, letter: Letter) -> Any:
        if len(letter.payloads) != 1:
            raise HandlerError("the agent's answer has several payloads", step="mesh", target=self._plain.agent)
        return self._plain.reader.of_xml(letter.payloads[0])
