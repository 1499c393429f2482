"""``huh``: the answer to bytes that are no message."""

from __future__ import annotations

import base64

import pytest
from lxml import etree

from xml_pipeline.errors import Overloaded, ValidationError
from xml_pipeline.message_bus.huh import CORE_NAMESPACE, MAX_ATTEMPT_BYTES, huh
from xml_pipeline.strict_xml import canonical_bytes

NS = {"core": CORE_NAMESPACE}


def parts(data):
    root = etree.fromstring(data)
    assert root.tag == f"{{{CORE_NAMESPACE}}}huh"
    assert [child.tag for child in root] == [f"{{{CORE_NAMESPACE}}}error", f"{{{CORE_NAMESPACE}}}original-attempt"]
    return root[0].text, base64.b64decode(root[1].text or "")


@pytest.mark.parametrize("original", [b"", b"<a", b"]]>&\x00\xff", "<ü/>".encode()])
def test_it_tells_the_public_text_and_gives_the_bytes_back(original):
    assert parts(huh(original)) == ("The message is not valid.", original)


def test_a_long_attempt_is_cut():
    _, attempt = parts(huh(b"x" * 100_000))
    assert attempt == b"x" * MAX_ATTEMPT_BYTES


def test_it_never_tells_what_really_happened():
    detailed = huh(b"<a", ValidationError("listener 'secret' does not exist"))
    assert detailed == huh(b"<a", ValidationError("something else")) == huh(b"<a")
    assert b"secret" not in detailed


def test_another_error_has_its_own_text():
    assert parts(huh(b"", Overloaded("queue of 'x'")))[0] == "The system is overloaded."


def test_it_is_canonical():
    data = huh(b"<a")
    assert canonical_bytes(etree.fromstring(data)) == data
