from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from xml_pipeline.config import yaml_source
from xml_pipeline.config.yaml_source import MAX_BYTES, Source, read_yaml


@pytest.fixture(params=["C", "Python"])
def either_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with both of PyYAML's parsers."""
    if request.param == "Python":
        monkeypatch.setattr(yaml_source, "_Loader", yaml.SafeLoader)
    return str(request.param)


def said(text: str | bytes) -> list[str]:
    return [str(problem) for problem in read_yaml(text).problems]


@pytest.mark.usefixtures("either_parser")
def test_data_comes_back_with_the_place_of_every_key_and_value() -> None:
    source = read_yaml("a: 1\nb:\n  - x\n  - {c: d}\n")
    assert source.data == {"a": 1, "b": ["x", {"c": "d"}]}
    assert source.problems == ()
    assert source.place(("a",)) == (1, 4)
    assert source.place(("a",), at_key=True) == (1, 1)
    assert source.place(("b",)) == (3, 3)
    assert source.place(("b",), at_key=True) == (2, 1)
    assert source.place(("b", 0)) == (3, 5)
    assert source.place(("b", 1, "c")) == (4, 9)
    assert source.place(("b", 1, "c"), at_key=True) == (4, 6)


def test_the_place_of_what_is_not_there_is_the_nearest_value_around_it() -> None:
    source = read_yaml("a:\n  b: 1\n")
    assert source.place(("a", "c")) == (2, 3)
    assert source.place(("a", "c"), at_key=True) == (2, 3)
    assert source.place(("x", "y")) == (1, 1)
    assert Source(None, None).place(("a",)) == (0, 0)


@pytest.mark.usefixtures("either_parser")
def test_the_place_of_a_blank_value_is_its_key() -> None:
    source = read_yaml("a: 1\nb:\n\n\nc: 2\n")
    assert source.data == {"a": 1, "b": None, "c": 2}
    assert source.place(("b",)) == (2, 1)


@pytest.mark.usefixtures("either_parser")
def test_columns_count_characters() -> None:
    assert read_yaml("{é: 1, 日本: 2}").place(("日本",)) == (1, 12)


@pytest.mark.usefixtures("either_parser")
def test_scalars_follow_yaml_1_2_and_quotes_make_text() -> None:
    source = read_yaml("[no, 012, 12:30:45, true, '5', \"true\", |-\n 5\n]".replace("|-\n 5\n", "5"))
    assert source.data == ["no", 12, "12:30:45", True, "5", "true", 5]
    assert read_yaml("a: |\n  5\n  6\nb: >-\n  7\n").data == {"a": "5\n6\n", "b": "7"}


@pytest.mark.usefixtures("either_parser")
def test_a_repeated_key_is_a_problem_and_the_first_value_stays() -> None:
    source = read_yaml("a:\n  b: 1\n  b: 2\n")
    assert source.data == {"a": {"b": 1}}
    assert said("a:\n  b: 1\n  b: 2\n") == ["3:3 a.b: the key is given twice, first in line 2"]
    assert said("a: 1\n'a': {b: 1, b: 2}\n") == [
        "2:1 a: the key is given twice, first in line 1",
        "2:13 a.b: the key is given twice, first in line 2",
    ]


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "a: &x 1\nb: *x\n",
            [
                "1:4 a: anchors are not supported ('x')",
                "2:4 b: aliases are not supported ('x'), write the value out",
            ],
        ),
        ("a: [&x {b: 1}]", ["1:5 a[0]: anchors are not supported ('x')"]),
        ("a: 1\n<<: {b: 2}\n", ["2:1 <<: merge keys are not supported, write the keys out"]),
        ("a: !!str 1", ["1:4 a: tags are not supported ('tag:yaml.org,2002:str')"]),
        ("a: !x {b: 1}", ["1:4 a: tags are not supported ('!x')"]),
        ("!x\na: [!!python/object:os.system x]", None),
        ("? [a]\n: 1\n", ["1:3: a key must be plain text"]),
        ("? {a: b}\n: 1\nc: 2", ["1:3: a key must be plain text"]),
        ("a: 1\n--- \nb: 2\n", ["2:1: a second document begins here; a file holds one"]),
    ],
)
def test_what_goes_beyond_plain_data_is_refused(text: str, problems: list[str] | None) -> None:
    found = said(text)
    if problems is None:
        assert found[0].startswith("1:1")
        assert len(found) == 2
    else:
        assert [one.replace("['<<']", "<<") for one in found] == problems


@pytest.mark.usefixtures("either_parser")
def test_a_missing_key_is_refused() -> None:
    assert [problem.text for problem in read_yaml("{? : 1}").problems] == ["a key is missing before the colon"]


def test_an_alias_as_a_key_is_refused() -> None:
    assert said("a: &x b\n*x : 1\n")[1] == "2:1: aliases are not supported ('x'), write the value out"


@pytest.mark.parametrize("text", ["", "   \n\n", "# only a comment\n", "---\n", "null\n", "~", b"", b"\xef\xbb\xbf"])
def test_an_empty_file_is_said_to_be_empty(text: str | bytes) -> None:
    assert said(text) == ["1:1: the file is empty"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1, 2\nb: 3", "2:2: not valid YAML: did not find expected ',' or ']' while parsing a flow sequence"),
        ("a:\n\tb: 1\n", "2:1: not valid YAML: a tab is not allowed here, indent with spaces"),
        ("a: b: c", "1:5: not valid YAML: mapping values are not allowed in this context"),
        ("a: @b", "1:4: not valid YAML: found character that cannot start any token while scanning for the next token"),
        ("%YAML 2.0\n---\na: 1", "1:1: not valid YAML: found incompatible YAML document"),
        ('a: "\\ud800"', None),
    ],
)
def test_broken_syntax_is_one_problem_with_its_place(text: str, problem: str | None) -> None:
    found = said(text)
    assert len(found) == 1
    if problem is not None:
        assert found == [problem]


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize("text", ['a: "\\UFFFFFFFF"', 'a: "\\U00110000"', "\r@", "a: 'b", "a: |x\n", "!<", "%TAG"])
def test_odd_syntax_is_refused_by_either_parser(text: str) -> None:
    (problem,) = read_yaml(text).problems
    assert problem.text.startswith("not valid YAML: ")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"a: 1\nb: caf\xe9\n", "2:7: the file is not UTF-8 text"),
        ("a: 1".encode("utf-16"), "1:1: the file is not UTF-8 text"),
        (b"a: 1\nb: x\x00y\n", "2:5: the character U+0000 is not allowed"),
        (b"a: \x1b[0m", "1:4: the character U+001B is not allowed"),
        ("a: \ud800", "1:4: the character U+D800 is not allowed"),
        ("a: 1\nb\ufffe", "2:2: the character U+FFFE is not allowed"),
    ],
)
def test_only_printable_utf_8_is_read(data: str | bytes, problem: str) -> None:
    assert said(data) == [problem]


def test_a_byte_order_mark_is_skipped() -> None:
    assert read_yaml(b"\xef\xbb\xbfa: 1").data == {"a": 1}
    assert read_yaml("\ufeffa: 1").data == {"a": 1}


def test_windows_line_ends_are_read() -> None:
    source = read_yaml(b"a: 1\r\nb: 2\r\n")
    assert source.data == {"a": 1, "b": 2}
    assert source.place(("b",)) == (2, 4)


def test_size_is_bounded_in_bytes() -> None:
    assert read_yaml("#" * MAX_BYTES).problems[0].text == "the file is empty"
    assert said("#" * (MAX_BYTES + 1)) == ["1:1: the file is larger than 1,048,576 bytes"]
    assert said(b"#" * (MAX_BYTES + 1)) == ["1:1: the file is larger than 1,048,576 bytes"]
    assert said("é" * (MAX_BYTES // 2 + 1)) == ["1:1: the file is larger than 1,048,576 bytes"]


def test_depth_is_bounded() -> None:
    assert read_yaml("[" * 32 + "]" * 32).problems == ()
    assert said("[" * 33 + "]" * 33) == ["1:33: nested deeper than 32 levels"]


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)
)


@pytest.mark.usefixtures("either_parser")
@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "[" * 100_000,
        "{" * 100_000,
        "? " * 100_000,
        "- " * 100_000,
        "&a " * 100_000,
        "[" + "a," * 500_000 + "]",
    ],
    ids=["aliases", "brackets", "braces", "question marks", "dashes", "anchors", "commas"],
)
def test_bombs_are_refused_quickly(text: str, either_parser: str) -> None:
    if either_parser == "Python":
        text = text[:20_000]
    begin = time.process_time()
    assert read_yaml(text).problems or either_parser == "Python"
    assert time.process_time() - begin < 5.0


def test_five_thousand_listeners_are_read_in_a_second() -> None:
    listener = "- name: agent.{0}\n  handler: a.b\n  payload_class: a.B\n  description: number {0}\n  peers: [x, y]\n"
    text = "listeners:\n" + "".join(listener.format(number) for number in range(5000))
    begin = time.process_time()
    source = read_yaml(text)
    assert time.process_time() - begin < 1.0
    assert len(source.data["listeners"]) == 5000
    assert source.place(("listeners", 4999, "peers", 1)) == (25001, 14)


printable = st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp"), exclude_characters="\ufffe\uffff")
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(printable, max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdef_", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(plain.filter(lambda data: data is not None), st.booleans())
@settings(deadline=None)  # a busy machine is not a failure
def test_json_is_yaml(data: Any, indented: bool) -> None:
    source = read_yaml(json.dumps(data, ensure_ascii=False, indent=2 if indented else None))
    assert source.problems == ()
    assert source.data == data


@given(st.text(st.sampled_from("ab:- \n[]{},&*!|>'\"%@`#?\t~<0.\\x"), max_size=60) | st.text(max_size=40))
@settings(deadline=None)  # a busy machine is not a failure
def test_no_text_makes_the_reader_raise(text: str) -> None:
    source = read_yaml(text)
    assert source.problems or source.data is not None
    for problem in source.problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert "\n" not in str(problem)


@given(st.binary(max_size=60))
@settings(deadline=None)  # a busy machine is not a failure
def test_no_bytes_make_the_reader_raise(data: bytes) -> None:
    source = read_yaml(data)
    assert source.problems or source.data is not None


def test_special_floats_are_floats() -> None:
    assert math.isinf(read_yaml("a: .inf").data["a"])
