"""`Border`: signs what leaves the organism, and verifies what enters it, before anything else looks at it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from xml_pipeline.bridge.letters import answers_for
from xml_pipeline.bridge.memory import SharedMemory
from xml_pipeline.crypto import (
    Policy,
    Reason,
    ReplayWindow,
    SignatureRefused,
    TrustStore,
    Verified,
    Verifier,
    may_be_signed,
    sign,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from xml_pipeline.bridge.refused import Refused
    from xml_pipeline.crypto import Identity

__all__ = ["Border"]


class Border:
    """The border of one organism.

    Args:
        identity: gives who signs; ``None`` for nobody.
        refused: records what is not let in.
        max_bytes: gives how large an envelope may be.
    """

    def __init__(self, identity: Callable[[], Identity | None], refused: Refused, max_bytes: Callable[[], int]) -> None:
        self._identity = identity
        self._refused = refused
        self._max_bytes = max_bytes
        self.memory = SharedMemory()
        self.trust = TrustStore(default=Policy.ACCEPT)

    # -- out

    def sign(self, envelope: bytes, destination: str) -> bytes:
        """The envelope as it leaves: signed, if there is somebody to sign.

        Args:
            envelope: canonical.
            destination: whom it is for.
        """
        identity = self._identity()
        return envelope if identity is None else sign(envelope, identity, destination=destination)

    # -- requests that come in

    async def admit(self, raw: bytes, agent: str) -> Verified:
        """Let in an envelope that is a request.

        Args:
            raw: as it came.
            agent: that it came for.

        Raises:
            SignatureRefused: it is not let in.
        """
        try:
            memory = self.memory
            verified = self._verifier(memory.window).verify(raw, agent)
            reason = await memory.take(verified) if verified.is_proven else None
            if reason is not None:
                raise _after_all(reason, verified)
        except SignatureRefused as refused:
            self.refuse(refused, agent)
            raise
        return verified

    def admit_now(self, raw: bytes, agent: str) -> Verified | None:
        """`admit` without waiting.

        Returns:
            ``None`` for one that may be signed: whether it came before, others have to be asked.
        """
        if may_be_signed(raw):
            return None
        try:
            return self._verifier(self.memory.window).verify(raw, agent)
        except SignatureRefused as refused:
            self.refuse(refused, agent)
            raise

    def admit_plain(self, agent: str) -> None:
        """Let in a request that is no envelope, and so cannot be signed.

        Raises:
            SignatureRefused: everybody has to sign.
        """
        if self.trust.default is Policy.REQUIRE:
            refused = SignatureRefused(Reason.UNSIGNED, "it is no envelope, and all requests must be signed")
            self.refuse(refused, agent)
            raise refused

    def refuse(self, refused: SignatureRefused, agent: str) -> None:
        """Record a request that is not let in."""
        self._refused.record(refused, agent, is_answer=False)

    # -- answers that come back

    def must_sign(self, agent: str) -> bool:
        """Whether calls to an agent must be made with envelopes, because its answers must be signed."""
        trust = self.trust
        return (trust.asked_of(agent) if trust.keys else trust.default) is Policy.REQUIRE

    def admit_answer(self, raw: bytes, agent: str, caller: str) -> Verified:
        """Let in an envelope that is an answer.

        That it came before is not looked for: it is good for one call only, which has ended then.

        Args:
            raw: as it came.
            agent: that was called.
            caller: ``from`` of the request.

        Raises:
            SignatureRefused: it is not let in.
        """
        try:
            verified = self._verifier(ReplayWindow(floor=-math.inf)).verify(raw, answers_for(caller))
            self._check_answerer(verified, agent)
        except SignatureRefused as refused:
            self.refuse_answer(refused, agent)
            raise
        return verified

    def _check_answerer(self, verified: Verified, agent: str) -> None:
        """Another organism that is trusted, too, may not answer for the one whose agent it is."""
        trust = self.trust
        if not self.must_sign(agent) or not any(key.protects(agent) for key in trust.keys):
            return
        key = trust.find(verified.key_id) if verified.key_id is not None else None
        if key is None:
            raise SignatureRefused(Reason.UNSIGNED, "answers of this agent must be signed")
        if not key.speaks_for(agent):
            raise SignatureRefused(
                Reason.NAME_NOT_ALLOWED,
                f"the key {key.key_id} may not answer for the agent",
                key_id=key.key_id,
                message_id=verified.message_id,
            )

    def admit_plain_answer(self, agent: str) -> None:
        """Let in an answer that is no envelope.

        Raises:
            SignatureRefused: it had to be signed.
        """
        if self.must_sign(agent):
            refused = SignatureRefused(Reason.UNSIGNED, "it is no envelope, and answers of this agent must be signed")
            self.refuse_answer(refused, agent)
            raise refused

    def refuse_answer(self, refused: SignatureRefused, agent: str) -> None:
        """Record an answer that is not let in."""
        self._refused.record(refused, agent, is_answer=True)

    def _verifier(self, window: ReplayWindow) -> Verifier:
        return Verifier(self.trust, window, max_bytes=self._max_bytes())


def _after_all(reason: Reason, verified: Verified) -> SignatureRefused:
    detail = f"signed by the key {verified.key_id}, message {verified.message_id}"
    return SignatureRefused(reason, detail, key_id=verified.key_id or "", message_id=verified.message_id)
