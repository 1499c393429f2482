from __future__ import annotations

import base64
import copy
import pickle
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.llm.secret import Secret, read_key

KEY = "sk-Zq7Vt93-kLm_w0PxYb84TnRd"
_KEYS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)


def test_it_does_not_show_itself():
    secret = Secret(KEY)
    assert KEY not in f"{secret!r} {secret} {secret!s:>40} {[secret]} {vars}"
    assert secret.reveal() == KEY
    assert secret and not Secret()
    for leave in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            leave(secret)


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: {KEY}.",
        f"Authorization: Bearer {KEY}",
        KEY.lower(),
        KEY.upper(),
        f"?key={quote(KEY + '/', safe='')}",
        base64.b64encode(KEY.encode()).decode(),
        f"{KEY[:8]}************{KEY[-7:]}",
        KEY[5:20],
        KEY * 3,
        "İ" + KEY,
    ],
)
def test_no_part_of_it_is_left_in_a_text(text):
    scrubbed = Secret(KEY).scrub(text)
    assert "***" in scrubbed
    for form in (KEY, base64.b64encode(KEY.encode()).decode()):
        for start in range(len(form) - 6):
            assert form[start : start + 6].lower() not in scrubbed.lower()


def test_the_rest_of_a_text_is_left_as_it_is():
    assert Secret(KEY).scrub(f"Incorrect key {KEY}, see the docs") == "Incorrect key ***, see the docs"
    assert Secret(KEY).scrub("ſtraße İstanbul") == "ſtraße İstanbul"
    assert Secret().scrub("no key at all") == "no key at all"
    assert Secret("abc").scrub("xabcx") == "x***x"


@given(key=_KEYS, before=st.text(max_size=30), after=st.text(max_size=30))
def test_a_text_never_keeps_a_key(key, before, after):
    scrubbed = Secret(key).scrub(before + key + after)
    assert key.lower() not in scrubbed.replace("***", "\n").lower()


def test_only_an_unmistakable_key_is_masked_in_what_a_model_says():
    assert Secret(KEY).mask(f"my key is {KEY}!") == "my key is ***!"
    assert Secret(KEY).mask_bytes(f"my key is {KEY}!".encode()) == b"my key is ***!"
    assert Secret("ollama").mask("ollama is a server") == "ollama is a server"
    assert Secret("ollama").mask_bytes(b"ollama is a server") == b"ollama is a server"
    assert Secret(KEY).mask("nothing") == "nothing"


# -- where a key comes from


def test_a_key_is_given_or_named():
    assert read_key("xai", KEY, None, required=True).reveal() == KEY
    assert read_key("xai", f"  {KEY}\n", None, required=True).reveal() == KEY
    assert read_key("xai", None, "MY_KEY", required=True, environment={"MY_KEY": f"{KEY}\n"}).reveal() == KEY
    assert read_key("xai", "", "MY_KEY", required=True, environment={"MY_KEY": KEY}).reveal() == KEY
    assert not read_key("ollama", None, None, required=False)


def test_a_key_of_the_process(monkeypatch):
    monkeypatch.setenv("TEST_ONLY_KEY", KEY)
    assert read_key("xai", None, "TEST_ONLY_KEY", required=True).reveal() == KEY


@pytest.mark.parametrize("key", [None, "", "  ", "\n"])
def test_a_required_key_must_not_be_empty(key):
    with pytest.raises(ValueError, match=r"^API key required for xai: "):
        read_key("xai", key, None, required=True)


@pytest.mark.parametrize("environment", [{}, {"MY_KEY": ""}, {"MY_KEY": " "}])
@pytest.mark.parametrize("required", [True, False])
def test_a_variable_that_is_named_must_be_there(environment, required):
    with pytest.raises(ValueError, match=r"^API key required for xai: the environment variable MY_KEY is not set"):
        read_key("xai", None, "MY_KEY", required=required, environment=environment)


def test_not_two_keys():
    with pytest.raises(ValueError, match="not both") as caught:
        read_key("xai", KEY, "MY_KEY", required=True, environment={"MY_KEY": KEY})
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", [KEY + " x", KEY + "\r\nx-evil: 1", KEY + "\0", KEY + "é"])
def test_a_key_that_a_header_cannot_carry(key):
    with pytest.raises(ValueError, match="cannot be sent in a header") as caught:
        read_key("xai", key, None, required=True)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", [7, b"bytes", ["list"]])
def test_a_key_is_a_text(key):
    with pytest.raises(ValueError, match="must be a text"):
        read_key("xai", key, None, required=True)
