from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
from lxml import etree

from third_party.xmlable import Codec, DecodeError, codec_of

from .helpers import canonical


@dataclass
class Greeting:
    text: str
    count: int = 1


@dataclass
class Letter:
    greeting: Greeting
    copies: list[Greeting] = field(default_factory=list)


GREETING = Greeting("hi", 2)
XML = "<Greeting><Text>hi</Text><Count>2</Count></Greeting>"


def test_names() -> None:
    codec = codec_of(Greeting)
    assert isinstance(codec, Codec)
    assert (codec.cls, codec.name, repr(codec)) == (Greeting, "Greeting", "<Codec of Greeting>")


def test_encode_is_canonical_alone_and_encode_payload_inside() -> None:
    codec = codec_of(Greeting)
    assert codec.encode(GREETING) == XML == canonical(XML)
    payload = codec.encode_payload(GREETING)
    assert payload == '<Greeting xmlns=""><Text>hi</Text><Count>2</Count></Greeting>'
    assert canonical(payload) == XML
    envelope = f'<m xmlns="urn:x">{payload}</m>'
    assert canonical(envelope) == envelope


def test_an_early_reference_to_a_method_works_for_ever() -> None:
    @dataclass
    class Fresh:
        a: int

    codec = codec_of(Fresh)
    encode, decode = codec.encode, codec.decode
    for _ in range(2):
        assert decode(etree.fromstring(encode(Fresh(1)))) == Fresh(1)


@pytest.mark.parametrize("text", [XML, XML.encode(), "\ufeff" + XML, f'<?xml version="1.0" encoding="UTF-8"?>{XML}'])
def test_decode_text(text: str | bytes) -> None:
    assert codec_of(Greeting).decode_text(text) == GREETING


def test_decode_looks_at_the_roots_name_and_decode_any_does_not() -> None:
    element = etree.fromstring(XML.replace("Greeting", "Hello"))
    with pytest.raises(DecodeError, match=r"^Greeting: found the element <Hello>, expected <Greeting>"):
        codec_of(Greeting).decode(element)
    assert codec_of(Greeting).decode_any(element) == GREETING
    with pytest.raises(DecodeError, match=r"^Greeting.text: the element <Text> is missing"):
        codec_of(Greeting).decode_any(etree.Element("x"))


def test_json_errors_begin_with_the_class() -> None:
    with pytest.raises(DecodeError, match=r"^Letter.copies\[0\].text: the key 'text' is missing"):
        codec_of(Letter).from_json({"greeting": {"text": ""}, "copies": [{}]})


def test_the_schema_is_compiled_once() -> None:
    codec = codec_of(Greeting)
    assert codec.schema is codec.schema
    assert codec.schema.validate(etree.fromstring(XML))
    assert codec.schema(etree.fromstring(XML))


def test_dependencies() -> None:
    assert codec_of(Letter).dependencies() == {Greeting}
    assert codec_of(Greeting).dependencies() == set()


def test_resolve_looks_into_nested_classes() -> None:
    @dataclass
    class Inner:
        anything: Any

    @dataclass
    class Outer:
        inner: dict[str, Inner | None]

    with pytest.raises(ValueError, match=r"^Inner.anything: the type"):
        codec_of(Outer)


def test_threads_may_share_a_codec_from_its_first_use() -> None:
    @dataclass
    class Shared:
        a: int
        b: list[Greeting]

    codec, value = codec_of(Shared), Shared(1, [GREETING] * 20)
    start, wrong = threading.Barrier(8), []

    def work() -> None:
        start.wait()
        for _ in range(50):
            text = codec.encode(value)
            element = etree.fromstring(text)
            if codec.decode_text(text) != value or not codec.schema.validate(element):
                wrong.append(text)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
