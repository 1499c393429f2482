"""What the tests of the codec share."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from lxml import etree

from third_party.xmlable import Codec, codec_of

T = TypeVar("T")


def canonical(text: str) -> str:
    """Canonicalise by libxml2, which is independent of our encoder."""
    root = etree.fromstring(text.encode())
    return etree.tostring(root, method="c14n", exclusive=True, with_comments=False).decode()


def assert_valid(codec: Codec[Any], text: str) -> None:
    """Fail, in libxml2's words, unless the schema accepts ``text``."""
    element = etree.fromstring(text.encode(), etree.XMLParser(huge_tree=True))
    assert codec.schema.validate(element), f"{codec.schema.error_log}\n{text}"


def through_xml(value: T) -> T:
    """Write, compare with libxml2's canonical form, validate, read."""
    codec = codec_of(type(value))
    text = codec.encode(value)
    assert text == canonical(text)
    assert codec.encode_payload(value) == text.replace(f"<{codec.name}>", f'<{codec.name} xmlns="">', 1)
    assert_valid(codec, text)
    return codec.decode_text(text)


def through_json(value: T) -> T:
    """Write to JSON text and read it back."""
    codec = codec_of(type(value))
    return codec.from_json(json.loads(json.dumps(codec.to_json(value), allow_nan=False)))


def survives(value: Any) -> None:
    """Assert that both forms bring an equal value back."""
    assert through_xml(value) == value
    assert through_json(value) == value


def accepts(codec: Codec[Any], text: str) -> bool:
    """Whether the schema accepts ``text``."""
    return bool(codec.schema.validate(etree.fromstring(text.encode())))
