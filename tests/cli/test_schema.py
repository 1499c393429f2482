"""``schema``: what it writes is valid, and says what the listener takes."""

from __future__ import annotations

import json

import pytest
from lxml import etree


def test_the_xsd_accepts_what_the_listener_takes(cli, organism):
    result = cli("schema", "xsd", "echo")
    assert (result.code, result.err) == (0, "")
    schema = etree.XMLSchema(etree.fromstring(result.out))
    assert schema.validate(etree.fromstring("<Ping><Text>a</Text><Count>2</Count></Ping>"))
    assert not schema.validate(etree.fromstring("<Ping><Count>2</Count></Ping>"))


def test_the_json_schema_names_the_fields(cli, organism):
    schema = json.loads(cli("schema", "json", "echo").out)
    assert (schema["title"], schema["required"]) == ("Ping", ["text"])
    assert set(schema["properties"]) == {"text", "count"}


def test_a_group_has_the_schema_of_its_members(cli, organism):
    assert json.loads(cli("schema", "json", "all").out)["title"] == "Ping"


def test_of_several_classes_one_is_chosen(cli, organism):
    line = cli("schema", "json", "two").complaint(1)
    assert line == "error: 'two' takes Ping and Note; say which with --class NAME"
    assert json.loads(cli("schema", "json", "two", "--class", "Note").out)["title"] == "Note"
    line = cli("schema", "json", "two", "--class", "Nope").complaint(1)
    assert line == "error: 'two' takes Ping or Note, not 'Nope', did you mean 'Note'?"


def test_the_schema_of_the_file_needs_no_organism(cli, tmp_path):
    schema = json.loads(cli("schema", "organism").out)
    assert schema["title"] == "organism.yaml"
    assert {"organism", "listeners"} <= set(schema["properties"])


@pytest.mark.parametrize("arguments", [("xsd", "echo"), ("json", "echo"), ("organism",)])
def test_a_file_gets_what_stdout_would(cli, organism, arguments):
    printed = cli("schema", *arguments).out
    result = cli("schema", *arguments, "--output", "schema.out")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert (organism / "schema.out").read_text() == printed


@pytest.mark.parametrize("output", ["nowhere/schema.xsd", "."])
def test_a_file_that_cannot_be_written_is_told(cli, organism, output):
    line = cli("schema", "organism", "-o", output).complaint(1)
    assert line.startswith(f"error: {output} cannot be written: ")


def test_an_unknown_listener_is_told_with_the_nearest(cli, organism):
    assert cli("schema", "xsd", "ecko").complaint(1) == "error: there is no listener 'ecko', did you mean 'echo'?"
    line = cli("schema", "xsd", "zzz").complaint(1)
    assert line == "error: there is no listener 'zzz'; there are: echo, two, all.one, all.other, all"
