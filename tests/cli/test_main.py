"""The entry point: help, usage errors, unexpected errors, and how quickly it answers."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from .forked import ENVIRONMENT, ROOT

VERBS = ("new", "check", "run", "send", "schema", "version", "mesh", "tail", "keygen")
GROUPS = ("schema", "mesh")


def test_help_lists_the_verbs(cli):
    result = cli("--help")
    assert (result.code, result.err) == (0, "")
    assert all(f"\n  {verb} " in result.out for verb in VERBS), result


@pytest.mark.parametrize(
    "verb", [*((verb,) for verb in VERBS if verb not in GROUPS), ("schema", "xsd"), ("schema", "json")]
)
def test_every_verb_explains_itself_with_examples(cli, verb):
    result = cli(*verb, "--help")
    assert (result.code, result.err) == (0, "")
    assert f"Usage: xml-pipeline {' '.join(verb)} " in result.out
    assert f"Examples:\n    xml-pipeline {' '.join(verb)}" in result.out, result


@pytest.mark.parametrize("arguments", [(), ("schema",)])
def test_without_a_verb_it_shows_its_help_and_fails(cli, arguments):
    result = cli(*arguments)
    assert (result.code, result.out) == (2, "")
    assert "Commands:" in result.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("frob",), "No such command 'frob'"),
        (("check", "--frob"), "No such option: --frob"),
        (("check", "one.yaml", "two.yaml"), "unexpected extra argument"),
        (("send", "echo"), "Missing argument 'MESSAGE'"),
        (("send", "echo", "{}", "--timeout"), "--timeout"),
        (("schema", "xsd"), "Missing argument 'LISTENER'"),
        (("version", "x"), "unexpected extra argument"),
        (("run", "--send", "echo"), "'--send' requires 2 arguments"),
        (("run", "--timeout", "soon"), "'soon' is not a number of seconds"),
        (("run", "--timeout", "-1"), "'-1' is not a number of seconds"),
        (("run", "--timeout", "nan"), "'nan' is not a number of seconds"),
        (("run", "--timeout", "inf"), "'inf' is not a number of seconds"),
        (("run", "--log-level", "loud"), "'loud' is no level; choose from debug, info"),
        (("send", "echo", "{}", "--json", "--xml"), "--json and --xml cannot both be had"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(cli, organism, arguments, complaint):
    line = cli(*arguments).complaint(2)
    assert line.startswith("error: ")
    assert complaint in line
    assert "--help)" in line


def test_an_unexpected_error_is_one_line_that_says_how_to_see_more(organism):
    program = (
        "import sys, xml_pipeline.cli.check as check; check.inspect_file = lambda file: 1 / 0;"
        "from xml_pipeline.cli.main import main; sys.exit(main(['check']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=organism, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    line = "error: ZeroDivisionError: division by zero (set XML_PIPELINE_TRACEBACK=1 to see where)\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", line)


def test_a_reader_that_goes_away_is_no_reason_to_complain(organism):
    with subprocess.Popen(
        [sys.executable, "-m", "xml_pipeline.cli", "schema", "organism"],
        cwd=organism,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_text_that_the_terminal_cannot_show_is_escaped(cli, organism):
    text = (organism / "organism.yaml").read_text()
    (organism / "organism.yaml").write_text(text.replace("name: test", "name: Überfluß"), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "xml_pipeline.cli", "check"],
        cwd=organism,
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert rb"'\xdcberflu\xdf' is good" in result.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["send", "--help"], ["frob"]])
def test_help_and_usage_errors_do_not_wait_for_what_only_a_pump_needs(arguments):
    program = (
        "import sys; from xml_pipeline.cli.main import main; main(sys.argv[1:]);"
        "heavy = {'aiostream', 'lxml', 'asyncio', 'rich', 'watchfiles', 'uvloop', 'third_party'} & set(sys.modules);"
        "sys.exit(f'imported: {sorted(heavy)}' if heavy else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_ctrl_c_while_the_program_is_imported_ends_it_without_a_traceback(organism):
    (organism / "typer.py").write_text("raise KeyboardInterrupt\n")
    result = subprocess.run(
        [sys.executable, "-m", "xml_pipeline.cli", "version"],
        cwd=organism,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("closed", "arguments", "code"),
    [
        ("2>&-", "check", 0),
        ("2>&-", "check nope.yaml", 3),
        (">&-", "check", 0),
        ("<&-", "send echo -", 1),
        ("<&- >&- 2>&-", "send echo '<Ping><Text>x</Text></Ping>'", 0),
    ],
)
def test_streams_that_are_closed_do_not_matter(organism, closed, arguments, code):
    command = f"exec '{sys.executable}' -m xml_pipeline.cli {arguments} {closed}"
    result = subprocess.run(
        ["sh", "-c", command], cwd=organism, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == code, result
    assert "Traceback" not in result.stderr
    assert ("is good" in result.stdout) == (closed == "2>&-" and not code)


def test_a_usage_error_names_the_verb_whose_help_there_is(cli):
    assert "(see: xml-pipeline run --help)" in cli("run", "--send", "echo").complaint(2)
    assert "(see: xml-pipeline --help)" in cli("--frob").complaint(2)


@pytest.mark.parametrize("verb", ["check", "run"])
def test_an_argument_that_may_be_left_out_has_one_pair_of_brackets(cli, verb):
    usage = cli(verb, "--help").out.splitlines()[0]
    assert usage == f"Usage: xml-pipeline {verb} [OPTIONS] [FILE]"


def test_both_scripts_lead_here():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"xml-pipeline": "xml_pipeline.cli.main:main", "xp": "xml_pipeline.cli.main:main"}
