"""Calls between organisms, as envelopes on the wire.

====================  ==================================  =====================================================
                      a request                           an answer
====================  ==================================  =====================================================
``from``              ``<organism>.<listener>`` that      ``<organism>.<listener>`` that answers
                      calls
``to``                the agent                           ``from`` of the request
``thread``            of the call                         the same: an answer of another call is none of this
further in ``meta``   nothing                             in a stream ``answer`` with its number, and at the
                                                          end ``end`` with how many there were
signed for            the agent                           ``answer:`` and ``to``, which no agent can be called:
                                                          an answer can never be sent as a request
====================  ==================================  =====================================================

Both are canonical, with one payload; a request may have more, which are then handled side by side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from lxml import etree

from xml_pipeline.bridge.baggage import is_thread
from xml_pipeline.bridge.extensions import MESH_NAMESPACE
from xml_pipeline.envelope import escape_text, extensions, message_text, payload_elements, read_meta
from xml_pipeline.errors import ValidationError
from xml_pipeline.strict_xml import parse_own

if TYPE_CHECKING:
    from lxml.etree import _Element

    from xml_pipeline.crypto import Verified

__all__ = ["Letter", "answers_for", "is_letter", "write_answer", "write_end", "write_request"]

_ANSWER: Final = f"{{{MESH_NAMESPACE}}}answer"
_END: Final = f"{{{MESH_NAMESPACE}}}end"
_NOTHING: Final = '<StreamEnd xmlns=""></StreamEnd>'
_LONGEST_NUMBER: Final = 15


def answers_for(caller: str) -> str:
    """What answers to a caller are signed for."""
    return f"answer:{caller}"


def is_letter(body: bytes) -> bool:
    """Whether a body is an envelope, as far as one byte says it: no JSON begins like this."""
    return body.startswith(b"<")


def write_request(payload: str, caller: str, agent: str, thread: str) -> bytes:
    """A request.

    Args:
        payload: its canonical text, as `Codec.encode_payload` gives it.
        caller: who calls.
        agent: whom.
        thread: of the call.
    """
    return message_text(payload, escape_text(caller), escape_text(agent), thread)


def write_answer(payload: str, answerer: str, caller: str, thread: str, number: int | None = None) -> bytes:
    """An answer.

    Args:
        payload: its canonical text.
        answerer: who answers.
        caller: ``from`` of the request.
        thread: of the request.
        number: of a chunk, from 0; ``None`` for the one answer there is.
    """
    extra = "" if number is None else f'<answer xmlns="{MESH_NAMESPACE}">{number}</answer>'
    return message_text(payload, escape_text(answerer), escape_text(caller), thread, extra)


def write_end(answerer: str, caller: str, thread: str, count: int) -> bytes:
    """The end of a stream of ``count`` answers. Its payload stands there because an envelope has one."""
    extra = f'<end xmlns="{MESH_NAMESPACE}">{count}</end>'
    return message_text(_NOTHING, escape_text(answerer), escape_text(caller), thread, extra)


class Letter(NamedTuple):
    """An envelope that was let in.

    Args:
        sender: ``from``.
        to: empty for none.
        thread: of the call.
        payloads: none, one or several.
        number: of a chunk, or of how many the end is; -1 for neither.
        is_end: it is the end of a stream.
    """

    sender: str
    to: str
    thread: str
    payloads: list[_Element]
    number: int = -1
    is_end: bool = False

    @classmethod
    def read(cls, verified: Verified) -> Letter:
        """Read one.

        Raises:
            ValidationError: it is no such letter.
        """
        # What was let in was parsed strictly before; and of what was signed it is known that it is canonical.
        root = parse_own(verified.envelope) if verified.root is None else verified.root
        sender, to, thread = read_meta(root, verified.envelope if verified.is_proven else b"")
        if not is_thread(thread):
            raise ValidationError("its thread is no version-4 UUID", step="mesh")
        payloads = payload_elements(root)
        number, is_end = -1, False
        for extension in extensions(root):
            if extension.tag in (_ANSWER, _END):
                number, is_end = _number(extension), extension.tag == _END
        return cls(sender, to or "", thread, payloads, number, is_end)


def _number(element: etree._Element) -> int:
    text = element.text or ""
    if len(element) or not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER):
        raise ValidationError("an answer's number is none", step="mesh")
    return int(text)
