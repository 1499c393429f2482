"""Why a signed, or unsigned, envelope is not let in; and what can be wrong with keys and with signing.

::

    ConfigurationError
    └── IdentityError        a key, or the file it should be in, cannot be used
    ValidationError
    └── SignatureError       an envelope that cannot be signed, or whose signature cannot be read
        └── SignatureRefused one that was received, with the `Reason`

What goes back to whoever sent it is ``str(error)``, which is the same for every reason. `Reason` and the detail are for
the log of the receiver. Neither holds anything of the message that was not checked before: a key id only of a key that
is trusted, a message id only when the signature was good.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from xml_pipeline.errors import ConfigurationError, ValidationError

__all__ = ["IdentityError", "Reason", "SignatureError", "SignatureRefused"]


class Reason(StrEnum):
    """Why an envelope was refused, for machines."""

    TOO_LARGE = "too-large"
    """It has more bytes than may come in, or elements with more attributes or prefixes."""
    MALFORMED = "malformed"
    """It is no envelope, or the signature in it is none of this kind."""
    NOT_CANONICAL = "not-canonical"
    """It is not, byte for byte, its own exclusive canonical form."""
    WRAPPED = "wrapped"
    """There is more than one signature, or it is not at its place."""
    UNSIGNED = "unsigned"
    """It has no signature, and must have one."""
    UNTRUSTED_KEY = "untrusted-key"
    """It is signed, but not by a key that is trusted."""
    BAD_SIGNATURE = "bad-signature"
    """The signature is not that of the key it names, over this envelope."""
    NAME_NOT_ALLOWED = "name-not-allowed"
    """The key may not speak for the name in ``from``."""
    WRONG_DESTINATION = "wrong-destination"
    """It was signed for somebody else."""
    EXPIRED = "expired"
    """It was signed too long ago."""
    FROM_THE_FUTURE = "from-the-future"
    """It was signed later than it is now."""
    REPLAYED = "replayed"
    """It was here before."""
    NOT_REMEMBERED = "not-remembered"
    """It was signed at a time of which the receiver does not know any more, or not yet, what came in then."""
    WINDOW_FULL = "replay-window-full"
    """So many came in that no further ids can be remembered."""
    WINDOW_UNUSABLE = "replay-window-unusable"
    """What came in cannot be written down, so that it could not be refused after a restart."""

    @property
    def retry_allowed(self) -> bool:
        """Whether the same envelope, signed anew, may be let in a little later."""
        return self in _PASSING


_PASSING: Final = frozenset({Reason.EXPIRED, Reason.NOT_REMEMBERED, Reason.WINDOW_FULL})


class IdentityError(ConfigurationError):
    """A key is not good, or its file cannot be read or written. Fatal: nothing goes on unsigned instead."""


class SignatureError(ValidationError):
    """An envelope cannot be signed, or its signature cannot be read. Contrast `SignatureRefused`: there it could be
    read, and was not accepted."""


class SignatureRefused(SignatureError):
    """An envelope that came in was not accepted.

    Args:
        reason: why; it also knows whether trying again can help.
        detail: the same for the operator; nothing of the message that was not checked.
        key_id: the key that it names, if that key is trusted; else empty.
        message_id: its id, if its signature was good; else empty.
    """

    public_message = "The message was not accepted."
    retry_allowed = False

    def __init__(self, reason: Reason, detail: str = "", *, key_id: str = "", message_id: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason), step="verification")
        self.reason = reason
        self.key_id = key_id
        self.message_id = message_id
