"""Payloads written as XML text inside of other payloads, and back.

What is read here is as foreign as a message. Its bounds were checked for the message around it, where it was one text;
so they are checked here for what is in the text.
"""

from __future__ import annotations

from typing import Any, Final

from lxml import etree

from third_party.xmlable import codec_of
from xml_pipeline.config import Limits
from xml_pipeline.envelope import escape_text
from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.payloads import PayloadWriter
from xml_pipeline.message_bus.reception import bounds_of
from xml_pipeline.message_bus.steps.bounds import check_shape
from xml_pipeline.runtime import current_runtime
from xml_pipeline.strict_xml import parse_strict

__all__ = ["check_fan_out", "check_size", "max_fan_out", "parse_payloads", "payload_text"]

_AROUND: Final = 1_024
"""Bytes of an envelope and of its payload's own mark-up, at most."""
_PER_CHARACTER: Final = 5
"""Bytes that one character of a text becomes in a message, at most: ``&amp;``."""


def parse_payloads(text: str, what: str = "payloads") -> list[etree._Element]:
    """The elements in a text: any number of roots, in any layout, with white space and comments between them.

    Args:
        text: XML without declaration and document type.
        what: what the roots are called in errors.

    Raises:
        ValidationError: it is not well-formed, exceeds the pump's bounds for elements or ``max_fan_out``, has text
            outside of its roots, or a root in a namespace.
    """
    try:
        # On a line of its own, so that line numbers in errors are off by one at most, and a comment cannot eat the end.
        raw = f"<payloads>\n{text}\n</payloads>".encode()
    except UnicodeEncodeError as error:
        raise ValidationError(f"the text cannot be written in XML: {error.reason}") from None
    whole = parse_strict(raw)
    check_fan_out(len(whole), what)
    check_shape(raw, whole, bounds_of(current_runtime().get(Limits)))
    roots = list(whole)
    stray = next((part for part in (whole.text, *(root.tail for root in roots)) if part and part.strip()), None)
    if stray is not None:
        raise ValidationError(f"text outside of the {what}: {stray.strip()[:80]!r}")
    for root in roots:
        if not isinstance(root.tag, str) or root.tag.startswith("{"):
            raise ValidationError(f"payload {root.tag!r} must be in no namespace")
    return roots


def payload_text(payload: Any) -> str:
    """A payload object, or element, as the XML text that `parse_payloads` reads.

    Raises:
        ValidationError: it cannot be written in XML, or is an element in a namespace.
        TypeError: it is no payload.
        Exception: whatever its own ``to_xml()`` raises.
    """
    return PayloadWriter().write(payload).text.replace(' xmlns=""', "", 1)  # which it needs inside of an envelope only


def max_fan_out() -> int:
    """How many calls one message may ask for, in the current pump."""
    return current_runtime().get(Limits).max_fan_out


def check_fan_out(number: int, what: str) -> None:
    """Refuse one message that asks for too many calls.

    Args:
        number: how many it asks for.
        what: what they are called in the error.

    Raises:
        ValidationError: they are more than ``max_fan_out``.
    """
    limit = max_fan_out()
    if number > limit:
        raise ValidationError(f"more than {limit} {what} (max_fan_out)")


def check_size(payload: Any, to: str, *texts: str) -> None:
    """Refuse a payload that is too large for a message, before it is sent and nobody learns why it did not arrive.

    Args:
        payload: an instance of a payload class without lists.
        to: the receiver's name.
        *texts: all texts in it that may be long; if they are short, there is no need to write it.

    Raises:
        ValidationError: the message would have more than ``max_message_bytes``.
    """
    limit = current_runtime().get(Limits).max_message_bytes
    if _PER_CHARACTER * (sum(map(len, texts)) + len(to)) + _AROUND <= limit:
        return
    size = len((codec_of(type(payload)).encode(payload) + escape_text(to)).encode()) + _AROUND
    if size > limit:
        raise ValidationError(f"a message of {size} bytes; at most {limit} are allowed (max_message_bytes)")
