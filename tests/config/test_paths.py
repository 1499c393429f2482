from __future__ import annotations

import pytest

from xml_pipeline.config.paths import import_path_fault, is_within, module_path_fault, split_path


@pytest.mark.parametrize("path", ["single", "package.module.attr", "package.module:attr", "a:b.c", "_private.x", "é.ü"])
def test_import_paths_are_dotted_names(path: str) -> None:
    assert import_path_fault(path) is None


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "must not be empty"),
        ("a..b", "consecutive dots"),
        ("../a", "consecutive dots"),
        (".a", "dotted Python identifiers"),
        ("a.", "dotted Python identifiers"),
        ("/etc/passwd", "dotted Python identifiers"),
        ("a b", "dotted Python identifiers"),
        ("a.1b", "dotted Python identifiers"),
        ("a-b.c", "dotted Python identifiers"),
        ("a.class", "dotted Python identifiers"),
        ("a;import os", "dotted Python identifiers"),
        ("a\x00b", "dotted Python identifiers"),
        ("a.__class__.b", "Dunder"),
        ("__main__.b", "Dunder"),
        ("a:b.__globals__", "Dunder"),
        ("a:b:c", "one colon"),
        (":a", "one colon"),
        ("a:", "one colon"),
        ("a" * 301, "at most 300 characters"),
    ],
)
def test_anything_else_is_refused(path: str, words: str) -> None:
    assert words in (import_path_fault(path) or "")


def test_a_module_path_has_no_colon() -> None:
    assert module_path_fault("a.b") is None
    assert "identifiers" in (module_path_fault("a:b") or "")


def test_a_colon_separates_module_and_attribute() -> None:
    assert split_path("a.b:c.d") == (["a", "b"], ["c", "d"])
    assert split_path("a.b") == (["a", "b"], None)


def test_a_path_lies_within_a_root_by_whole_names() -> None:
    assert is_within("app", ("app",))
    assert is_within("app.x", ("lib", "app"))
    assert is_within("app:x", ("app",))
    assert not is_within("apple.x", ("app",))
    assert not is_within("app.x", ("app.y",))
    assert not is_within("app.x", ())
