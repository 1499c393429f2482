from __future__ import annotations

import pytest

from xml_pipeline.config.names import (
    ALWAYS_REACHED,
    BUILTIN_NAMES,
    broadcast_group,
    name_fault,
    reserved_fault,
    text_fault,
)


@pytest.mark.parametrize("name", ["calc", "calculator.add", "two words", "Grüße", "計算", "a&b<c>", "{x}", "-", "🙂"])
def test_any_written_name_is_fine(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "a name must not be empty"),
        ("  ", "a name must not be empty"),
        (" a", "a name must not begin or end with white space: ' a'"),
        ("a\n", "a name must not begin or end with white space: 'a\\n'"),
        ("a\nb", "a name must not contain the character U+000A"),
        ("a\x00b", "a name must not contain the character U+0000"),
        ("a\x85b", "a name must not contain the character U+0085"),
        ("a\ud800b", "a name must not contain the character U+D800"),
        ("a\uffffb", "a name must not contain the character U+FFFF"),
        ("a\u2028b", "a name must not contain the character U+2028"),
    ],
)
def test_a_name_must_fit_into_xml_and_into_a_line(name: str, fault: str) -> None:
    assert name_fault(name) == fault


@pytest.mark.parametrize("name", ["external", "External", "mesh:x", "MESH:", "system", "system.todo", "System.X"])
def test_names_of_the_runtime_are_reserved(name: str) -> None:
    assert "reserved" in (reserved_fault(name) or "")


@pytest.mark.parametrize("name", ["externals", "mesh", "meshes", "systems", "my.system", "system-x", "not external"])
def test_similar_names_are_not_reserved(name: str) -> None:
    assert reserved_fault(name) is None


def test_built_in_names_are_reserved() -> None:
    assert all(reserved_fault(name) for name in BUILTIN_NAMES)


def test_every_orchestrator_is_built_in() -> None:
    assert {"system.todo", "system.sequence", "system.sequence.factory", "system.buffer"} <= BUILTIN_NAMES
    assert ALWAYS_REACHED < BUILTIN_NAMES


def test_a_group_is_named_by_hand_or_by_the_name_up_to_its_last_dot() -> None:
    assert broadcast_group("search.web.fast", True) == "search.web"
    assert broadcast_group("search", True) is None
    assert broadcast_group(".search", True) is None
    assert broadcast_group("search.web", "all") == "all"
    assert broadcast_group("search.web", False) is None


def test_text_must_fit_into_xml() -> None:
    assert text_fault("any\ttext\r\n\x85 é 🙂") is None
    assert text_fault("bell \x07") == "the character U+0007 cannot be written in XML"
