"""``check``: everything that is wrong, each with its place; and what it refuses, `run` and `send` refuse too."""

from __future__ import annotations

import json

import pytest

from .conftest import ORGANISM

BAD = """organism: {name: test}
max_concurent_handlers: 5
listeners:
- name: echo
  payload_class: handlers.Pong
  handler: handlers.eco
  description: Answers.
  peers: [nobody]
- name: Echo
  payload_class: handlers.Ping
  handler: handlers.echo
  description: Again.
"""

WARNED = """organism: {name: test}
listeners:
- {name: clerk, agent: true, payload_class: handlers.Ping, handler: handlers.echo, description: Alone.}
"""


def test_a_good_file_is_summed_up(cli, organism):
    result = cli("check")
    assert (result.code, result.err) == (0, "")
    expected = "organism.yaml: organism 'test' is good: 4 listeners, no agents, 1 broadcast group\n"
    assert result.out == expected


def test_every_problem_is_told_with_file_line_and_column(cli, organism):
    (organism / "organism.yaml").write_text(BAD)
    result = cli("check")
    assert (result.code, result.out) == (3, "")
    lines = result.err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "organism.yaml:2:1 max_concurent_handlers",
        "organism.yaml:6:12 listeners[0].handler",
        "organism.yaml:8:11 listeners[0].peers[0]",
        "organism.yaml:9:9 listeners[1].name",
        "organism.yaml",
    ], result
    assert "did you mean 'max_concurrent_handlers'?" in lines[0]
    assert "did you mean 'echo'?" in lines[1]
    assert lines[-1] == "organism.yaml: 4 problems, no warnings"


def test_warnings_do_not_make_it_fail(cli, organism):
    (organism / "organism.yaml").write_text(WARNED)
    result = cli("check")
    assert result.code == 0
    assert result.err.startswith("organism.yaml:3:3 listeners[0]: warning: an agent without 'peers' reaches nobody")
    assert result.out == "organism.yaml: organism 'test' is good, 1 warning: 1 listener, 1 agent\n"


def test_json_has_everything(cli, organism):
    good = json.loads(cli("check", "--json").out)
    assert (good["ok"], good["organism"], good["problems"], good["warnings"]) == (True, "test", [], [])
    assert [listener["name"] for listener in good["listeners"]] == ["echo", "two", "all.one", "all.other"]
    assert good["listeners"][1]["payload_classes"] == ["Ping", "Note"]
    assert good["listeners"][2]["group"] == "all"

    (organism / "organism.yaml").write_text(BAD)
    result = cli("check", "--json")
    assert (result.code, result.err) == (3, "")
    bad = json.loads(result.out)
    assert (bad["ok"], bad["organism"], bad["listeners"]) == (False, None, [])
    assert len(bad["problems"]) == 4
    first = bad["problems"][0]
    assert (first["file"], first["line"], first["column"]) == ("organism.yaml", 2, 1)
    assert first["path"] == "max_concurent_handlers"
    assert "did you mean" in first["text"]


def test_the_file_is_found(cli, organism):
    (organism / "config").mkdir()
    (organism / "handlers.py").rename(organism / "config" / "handlers.py")
    (organism / "organism.yaml").rename(organism / "config" / "organism.yaml")
    assert cli("check").out.startswith("config/organism.yaml: organism 'test' is good")
    # One beside is preferred, also when it is not good.
    (organism / "organism.yaml").write_text("")
    assert cli("check").code == 3
    assert cli("check", "config/organism.yaml").code == 0


@pytest.mark.parametrize("verb", [("check",), ("run",), ("send", "echo", "{}"), ("schema", "xsd", "echo")])
def test_no_file_is_one_line_that_says_what_to_do(cli, tmp_path, verb):
    line = cli(*verb).complaint(3)
    assert line.startswith("error: there is neither organism.yaml nor config/organism.yaml here; name the file")
    assert "xml-pipeline new NAME" in line


@pytest.mark.parametrize(
    ("file", "complaint"),
    [
        ("nope.yaml", "nope.yaml: there is no such file"),
        (".", ".: is a directory; name the organism file in it"),
        ("a\0b", None),
    ],
)
def test_a_file_that_is_none_is_told(cli, organism, file, complaint):
    result = cli("run", file)
    line = result.complaint(3)
    assert complaint is None or line == complaint


@pytest.mark.parametrize(
    "text",
    ["", "[]", "organism: {name: [}", "organism: {name: x}\nlisteners: 5", "\tx", "organism: {name: ${NOPE:?set it}}"],
)
@pytest.mark.parametrize("verb", [("check",), ("run",), ("send", "echo", '{"text": "x"}'), ("schema", "json", "echo")])
def test_what_check_refuses_nothing_else_loads(cli, organism, verb, text):
    (organism / "organism.yaml").write_text(text)
    result = cli(*verb)
    assert result.code == 3, result
    assert result.out == ""
    assert "Traceback" not in result.err
    assert all(line.startswith("organism.yaml") for line in result.err.splitlines()), result


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        (
            "raise RuntimeError('no database')",
            "importing 'handlers' failed: RuntimeError: no database (handlers.py, line 1)",
        ),
        ("import sys; sys.exit(0)", "importing 'handlers' failed: SystemExit: 0"),
        ("def broken(:", "importing 'handlers' failed: SyntaxError"),
        ("import not_there_at_all", "importing 'handlers' failed: ModuleNotFoundError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_with_its_line(cli, organism, module, complaint):
    (organism / "handlers.py").write_text(module)
    for verb in ("check", "run"):
        result = cli(verb)
        assert result.code == 3
        assert complaint in result.err, result
        assert "Traceback" not in result.err


def test_what_a_module_prints_does_not_get_into_the_result(cli, organism):
    text = (organism / "handlers.py").read_text()
    (organism / "handlers.py").write_text(f"print('hello')\n{text}")
    result = cli("check", "--json")
    assert json.loads(result.out)["ok"]
    assert result.err == "hello\n"


def test_variables_come_from_the_file_beside_it_and_reach_handlers(cli, organism):
    (organism / ".env").write_text("GREETING=hi from .env\n")
    (organism / "handlers.py").write_text(
        (organism / "handlers.py").read_text().replace('f"echo {payload.text}"', 'os.environ["GREETING"]')
    )
    (organism / "organism.yaml").write_text(ORGANISM.replace("Answers.", "'${GREETING}'"))
    listeners = json.loads(cli("check", "--json").out)["listeners"]
    assert listeners[0]["description"] == "hi from .env"
    assert "Pong(text='hi from .env')" in cli("send", "echo", '{"text": "x"}').out


LLM = """
llm:
  model: m
  backends:
    - provider: scripted
      script:
        - {txt: hello}
        - {text: a, tool: 3}
    - provider: openai
      api_key: ${NO_KEY_AT_ALL:-}
"""


def test_backends_that_cannot_be_made_are_told_with_their_places(cli, organism):
    text = (organism / "organism.yaml").read_text()
    lines = text.count("\n") + 1
    (organism / "organism.yaml").write_text(text + LLM)
    for verb in ("check", "run"):
        result = cli(verb)
        assert result.code == 3
        for place in (f":{lines + 6}:", f":{lines + 7}:", f":{lines + 8}:"):
            assert place in result.err, result
        assert "did you mean 'text'" in result.err
        assert "llm.backends[1]" in result.err
        assert "Traceback" not in result.err
    assert len(json.loads(cli("check", "--json").out)["problems"]) == 4
