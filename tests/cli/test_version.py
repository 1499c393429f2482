"""``version``."""

from __future__ import annotations

import json
import platform

import pytest

from xml_pipeline import __version__


@pytest.mark.parametrize("arguments", [("version",), ("--version",)])
def test_versions_are_shown(cli, arguments):
    result = cli(*arguments)
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0] == f"xml-pipeline {__version__}"
    assert lines[1].startswith(f"Python {platform.python_version()} ")
    assert lines[2].startswith("lxml 6.")
    assert "libxml2 2." in lines[2]
    assert any(line.startswith("speed ") for line in lines)


def test_json_has_the_same(cli):
    facts = json.loads(cli("version", "--json").out)
    assert facts["xml-pipeline"] == __version__
    assert facts["python"] == platform.python_version()
    assert set(facts["extras"]) == {"nats", "redis", "llm", "dashboard", "otel", "metrics", "speed"}


def test_an_extra_that_is_missing_is_told_with_how_to_get_it(cli):
    facts = json.loads(cli("version", "--json").out)["extras"]
    text = cli("version").out
    for extra, installed in facts.items():
        assert (f'pip install "xml-pipeline[{extra}]"' in text) == (not installed)
