"""Calls that come in: as JSON from anybody, or as envelopes from other organisms. Each is answered as it came.

Who sent a request is decided here. A signature of a trusted key proves an organism's name: then the sender is
``mesh:<organism>.<listener>``. Everybody else is the mesh object that the request says to be from, or nobody in
particular. What an envelope says of itself, its ``from`` and ``thread``, is kept in ``meta`` (`caller_element`), where
nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from xml_pipeline.bridge.baggage import NO_BAGGAGE, Baggage
from xml_pipeline.bridge.extensions import caller_element
from xml_pipeline.bridge.forms import json_of
from xml_pipeline.bridge.letters import Letter, answers_for, write_answer, write_end
from xml_pipeline.bridge.senders import proven_sender, sender_of
from xml_pipeline.crypto import Reason, SignatureRefused
from xml_pipeline.errors import ValidationError
from xml_pipeline.mesh import headers as h
from xml_pipeline.message_bus.gateway import Arrival
from xml_pipeline.message_bus.payloads import PayloadWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lxml.etree import _Element

    from xml_pipeline.bridge.baggage import BaggageRoom
    from xml_pipeline.bridge.border import Border
    from xml_pipeline.bridge.forms import JsonForm
    from xml_pipeline.config.mesh import ExposeConfig
    from xml_pipeline.crypto import Verified
    from xml_pipeline.mesh.raw import RawRequest

__all__ = ["IncomingCall", "IncomingCalls"]

_NOTHING: Final = b"{}"
"""How hosts say ``None``. For a chunk that is ``null``, there are clients that end the stream."""


class IncomingCall(Protocol):
    """One request that was let in."""

    @property
    def arrival(self) -> Arrival:
        """What it is for the pump."""
        ...

    def answer(self, payload: Any) -> bytes:
        """The body of the one answer.

        Raises:
            ValidationError: it cannot be written in this form.
        """
        ...

    def chunk(self, payload: Any) -> bytes:
        """The body of the next of several answers; see `answer`."""
        ...

    def end(self) -> bytes | None:
        """A last body behind the chunks; ``None`` for none."""
        ...


class IncomingCalls:
    """Lets requests in.

    Args:
        organism: gives its name.
        border: verifies and signs.
        room: keeps what comes with a call.
    """

    def __init__(self, organism: Callable[[], str], border: Border, room: BaggageRoom) -> None:
        self._organism = organism
        self._border = border
        self._room = room

    async def admit(
        self, request: RawRequest, agent: str, entry: ExposeConfig, form: JsonForm, *, own: bool = False
    ) -> IncomingCall:
        """Let a request in.

        Args:
            request: as it came.
            agent: that it came for.
            entry: the listener that is exposed as that agent.
            form: of JSON.
            own: nobody sent it: it is how a publisher of ours is run.

        Raises:
            SignatureRefused: it is not accepted.
            ValidationError: it cannot be read.
        """
        if request.headers.get(h.CONTENT_TYPE) == h.XML:
            return self._enveloped(await self._border.admit(request.body, agent), request, agent, entry)
        if not own:
            self._border.admit_plain(agent)
        return self._plain(request, entry, form)

    def admit_now(self, request: RawRequest, agent: str, entry: ExposeConfig, form: JsonForm) -> IncomingCall | None:
        """`admit` without waiting.

        Returns:
            ``None`` for what may have to wait: an envelope that may be signed, see `Border.admit_now`.
        """
        if request.headers.get(h.CONTENT_TYPE) == h.XML:
            verified = self._border.admit_now(request.body, agent)
            return None if verified is None else self._enveloped(verified, request, agent, entry)
        self._border.admit_plain(agent)
        return self._plain(request, entry, form)

    def _enveloped(self, verified: Verified, request: RawRequest, agent: str, entry: ExposeConfig) -> IncomingCall:
        letter, sender = self._read(verified, agent, request)
        origin = caller_element(letter.sender, letter.thread, verified.key_id or "")
        payload = letter.payloads[0] if len(letter.payloads) == 1 else letter.payloads
        arrival = self._arrival(request, entry, payload, sender, [origin], Baggage.read(request.headers))
        return _EnvelopeCall(arrival, letter, f"{self._organism()}.{entry.listener}", self._border)

    def _plain(self, request: RawRequest, entry: ExposeConfig, form: JsonForm) -> IncomingCall:
        baggage = Baggage.read(request.headers)
        payload = form.read(request.body)
        origins = [caller_element("", baggage.thread, "")] if baggage.thread else ()
        return _JsonCall(self._arrival(request, entry, payload, sender_of(request.instance_id), origins, baggage))

    def _read(self, verified: Verified, agent: str, request: RawRequest) -> tuple[Letter, str]:
        def refuse(reason: Reason, detail: str) -> SignatureRefused:
            refused = SignatureRefused(
                reason, detail, key_id=verified.key_id or "", message_id=verified.message_id if verified.key_id else ""
            )
            self._border.refuse(refused, agent)
            return refused

        try:
            letter = Letter.read(verified)
        except ValidationError as error:
            raise refuse(Reason.MALFORMED, error.detail) from error
        if letter.to and letter.to != agent:
            raise refuse(Reason.WRONG_DESTINATION, "it is addressed to somebody else")
        if not verified.is_proven:
            return letter, sender_of(request.instance_id)
        sender = proven_sender(letter.sender)
        if sender is None:
            raise refuse(Reason.NAME_NOT_ALLOWED, "its sender is not <organism>.<listener>")
        return letter, sender

    def _arrival(
        self,
        request: RawRequest,
        entry: ExposeConfig,
        payload: Any,
        sender: str,
        extensions: Sequence[_Element],
        baggage: Baggage,
    ) -> Arrival:
        return Arrival(
            entry.listener,
            payload,
            sender,
            extensions,
            peer_table=entry.peer_table,
            deadline=request.deadline or 0.0,
            on_begin=None if baggage is NO_BAGGAGE else partial(self._room.put, baggage),
        )


class _JsonCall:
    """One that is answered in JSON."""

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival

    def answer(self, payload: Any) -> bytes:
        return json_of(payload)

    def chunk(self, payload: Any) -> bytes:
        body = json_of(payload)
        return _NOTHING if body == b"null" else body

    def end(self) -> None:
        return None


class _EnvelopeCall:
    """One that is answered with envelopes."""

    def __init__(self, arrival: Arrival, letter: Letter, own_name: str, border: Border) -> None:
        self.arrival = arrival
        self._letter = letter
        self._own_name = own_name
        self._border = border
        self._count = 0

    def answer(self, payload: Any) -> bytes:
        return self._written(payload, None)

    def chunk(self, payload: Any) -> bytes:
        self._count += 1
        return self._written(payload, self._count - 1)

    def end(self) -> bytes:
        return self._signed(write_end(self._own_name, self._letter.sender, self._letter.thread, self._count))

    def _written(self, payload: Any, number: int | None) -> bytes:
        text = PayloadWriter().write(payload).text  # one that stays would keep every class of every agent
        return self._signed(write_answer(text, self._own_name, self._letter.sender, self._letter.thread, number))

    def _signed(self, envelope: bytes) -> bytes:
        return self._border.sign(envelope, answers_for(self._letter.sender))
