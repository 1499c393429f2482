"""What the commands of the mesh say of themselves, and how quickly."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.forked import ENVIRONMENT
from tests.mesh.commands import Commands, commands  # noqa: F401 - fixtures

VERBS = ("up", "down", "catalog", "contract", "call", "stream", "subscribe", "listen", "monitor")
KV = ("get", "put", "list", "watch", "delete")


@pytest.fixture
def run(commands: Commands) -> Commands:  # noqa: F811
    return commands


@pytest.mark.parametrize(("group", "verbs"), [((), (*VERBS, "kv")), (("kv",), KV)])
async def test_help_lists_the_verbs(run, group, verbs):
    result = await run(*group, "--help")
    assert (result.code, result.err) == (0, "")
    assert all(f"\n  {verb} " in result.out for verb in verbs), result
    without = await run(*group)
    assert (without.code, without.out) == (2, "")
    assert "Commands:" in without.err


@pytest.mark.parametrize("verb", [*VERBS, *(f"kv {verb}" for verb in KV)])
async def test_every_verb_explains_itself_with_examples_and_has_output_for_programs(run, verb):
    result = await run(*verb.split(), "--help")
    assert (result.code, result.err) == (0, "")
    assert f"Usage: xml-pipeline mesh {verb} " in result.out
    assert "[[" not in result.out
    assert "--json" in result.out
    assert f"xml-pipeline mesh {verb}" in result.out.partition("Examples:\n")[2], result


@pytest.mark.parametrize(
    ("arguments", "complaint", "where"),
    [
        (("call",), "Missing argument 'NAME'", "call"),
        (("call", "a", "{}", "x"), "unexpected extra argument", "call"),
        (("call", "a", "--frob"), "No such option: --frob", "call"),
        (("call", "a", "--timeout", "soon"), "'soon' is not a number of seconds", "call"),
        (("kv", "get"), "Missing argument 'KEY'", "kv get"),
        (("kv", "frob"), "No such command 'frob'", "kv"),
        (("frob",), "No such command 'frob'", ""),
    ],
)
async def test_a_wrong_command_line_is_one_line(run, arguments, complaint, where):
    line = (await run(*arguments)).complaint(2)
    assert complaint in line
    assert line.endswith(f"(see: {f'xml-pipeline mesh {where}'.strip()} --help)")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["mesh", "--help"], ["mesh", "kv", "put", "--help"], ["mesh", "call"]]
)
def test_help_and_usage_errors_do_not_wait_for_what_only_a_mesh_needs(arguments):
    program = (
        "import sys; from xml_pipeline.cli.main import main; main(sys.argv[1:]);"
        "heavy = {'asyncio', 'nats', 'rich', 'xml_pipeline.mesh', 'ssl'} & set(sys.modules);"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
