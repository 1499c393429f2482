from __future__ import annotations

import threading
from pathlib import Path

import pytest
from lxml import etree, objectify

from third_party.xmlable import DecodeError
from third_party.xmlable.parsing import _parser, parsed, plain


def test_comments_and_instructions_are_gone_and_text_is_whole() -> None:
    root = parsed("<!-- a --><?p?><a>1<!-- b -->2<?p?>3</a>")
    assert root.text == "123"
    assert len(root) == 0


@pytest.mark.parametrize(
    "text", ["", " ", "x", "<a>", "<a/><b/>", "<a>&x;</a>", "<a b=1/>", "<a>\x01</a>", "<a>\ud800</a>", "<a:b/>"]
)
def test_what_is_not_well_formed_is_refused(text: str) -> None:
    with pytest.raises(DecodeError, match=r"^not well-formed XML: "):
        parsed(text)


def test_other_encodings_than_utf_8_are_refused_declared_or_not() -> None:
    declaration = '<?xml version="1.0" encoding="{}"?>'
    for encoding in ("latin-1", "utf-16"):
        for text in ("<a>é</a>", declaration.format(encoding) + "<a>é</a>"):
            with pytest.raises(DecodeError):
                parsed(text.encode(encoding))
    assert parsed(declaration.format("latin-1") + "<a>é</a>").text == "é"  # a str has no encoding


DOCTYPES = {
    "empty": "<!DOCTYPE a><a/>",
    "unused entity": '<!DOCTYPE a [<!ENTITY e "x">]><a/>',
    "used entity": '<!DOCTYPE a [<!ENTITY e "x">]><a>&e;</a>',
    "attribute default": '<!DOCTYPE a [<!ATTLIST a b CDATA "c">]><a/>',
    "external": '<!DOCTYPE a SYSTEM "{file}"><a/>',
    "external entity": '<!DOCTYPE a [<!ENTITY e SYSTEM "{file}">]><a>&e;</a>',
    "external parameter entity": '<!DOCTYPE a [<!ENTITY % e SYSTEM "{file}"> %e;]><a/>',
}


@pytest.mark.parametrize("document", DOCTYPES.values(), ids=DOCTYPES.keys())
def test_a_doctype_is_refused(document: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    with pytest.raises(DecodeError) as caught:
        parsed(document.replace("{file}", secret.as_uri()))
    assert "hunter2" not in str(caught.value)


def test_an_entity_is_not_even_looked_at(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    for value in ('"hunter2"', f'SYSTEM "{secret.as_uri()}"'):
        root = etree.fromstring(f"<!DOCTYPE a [<!ENTITY e {value}>]><a>&e;</a>", _parser())
        assert "hunter2" not in "".join(root.itertext(tag=etree.Element))


@pytest.mark.parametrize("place", ["<a>{}</a>", "<a b='{}'/>"], ids=["text", "attribute"])
def test_a_billion_laughs_are_refused_at_once(place: str) -> None:
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    with pytest.raises(DecodeError):
        parsed(f'<!DOCTYPE a [<!ENTITY l0 "ha">{levels}]>' + place.format("&l11;"))


def test_a_doctype_in_text_is_text() -> None:
    assert parsed("<a><![CDATA[<!DOCTYPE a>]]></a>").text == "<!DOCTYPE a>"


def test_trees_have_a_depth_and_texts_a_size() -> None:
    with pytest.raises(DecodeError):
        parsed("<a>" * 300 + "</a>" * 300)
    with pytest.raises(DecodeError):
        parsed(f"<a>{'x' * 10_000_001}</a>")


def test_each_thread_parses_on_its_own() -> None:
    wrong: list[str] = []

    def work(name: str) -> None:
        texts = [f"{name}{number}" for number in range(300)]
        wrong.extend(text for text in texts if parsed(f"<a>{text}</a>").text != text)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_plain() -> None:
    ordinary = etree.fromstring("<a><b/></a>")
    assert plain(ordinary) is ordinary
    special = objectify.fromstring("<a><b>007</b><b/></a>")
    assert etree.tostring(plain(special)) == b"<a><b>007</b><b/></a>"
    assert type(plain(special)) is type(ordinary)
    assert plain(special.b[0]).text == "007"
