"""``huh``: what a byte transport answers to bytes that are no message.

::

    <huh xmlns="https://xml-pipeline.org/ns/core/v1">
      <error>The message is not valid.</error>
      <original-attempt>PGhlbGxv...</original-attempt>
    </huh>

Whoever sent the bytes has no conversation yet in which a `SystemError` could reach him; this is told to him instead.
The error is the public text, which is the same for every cause. The attempt is what he sent, so that a model can see
what it wrote; it is cut, because an answer must not be as large as whatever somebody chooses to send.
"""

from __future__ import annotations

import base64
from typing import Final

from xml_pipeline.envelope import escape_text
from xml_pipeline.errors import PipelineError, ValidationError

__all__ = ["CORE_NAMESPACE", "MAX_ATTEMPT_BYTES", "huh"]

CORE_NAMESPACE: Final = "https://xml-pipeline.org/ns/core/v1"

MAX_ATTEMPT_BYTES: Final = 1_024
"""How much of the original is sent back, in bytes before base64."""


def huh(original: bytes, error: PipelineError | None = None) -> bytes:
    """The answer to malformed bytes.

    Args:
        original: what was received; the first `MAX_ATTEMPT_BYTES` of it are sent back.
        error: why it was refused; only its public text is used. Default: a `ValidationError`.

    Returns:
        The element, in its canonical form.
    """
    public = escape_text((error or ValidationError()).public_message)
    attempt = base64.b64encode(original[:MAX_ATTEMPT_BYTES]).decode()
    return (
        f'<huh xmlns="{CORE_NAMESPACE}"><error>{public}</error><original-attempt>{attempt}</original-attempt></huh>'
    ).encode()
