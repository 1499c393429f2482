"""The documentation is run, page by page: what it shows works as it says.

Fenced blocks, by their language and by the words behind it:

``python``
    Executed. The blocks of one page share a namespace, in order; ``await`` may stand at the top level. Functions called
    ``test_...`` are called, too. With ``file=NAME`` the block is also written to that file of the page's directory.
    ``no-run`` leaves it out. On the pages about the mesh, ``mesh`` is a mesh object that is entered, on a server of its
    own, and ``url`` where that server is.
``yaml``
    A whole organism is loaded, imports included; the modules are those of the page's ``file=`` blocks. The text of a
    ``refused`` or ``warned`` one is compared with the ``text`` block that follows. With ``file=NAME`` it is written
    there.
``console``
    What follows ``$`` is run, if it is one of our commands, in the page's directory, and the lines below it must be
    printed, in this order; ``...`` stands for any lines, and times may differ. Exit codes other than 0 are said in a
    comment: ``# exit code 1``.
``bash``
    Every line is run as above.
``text output``
    What the ``python`` block above printed.

A page's directory is an organism as ``xml-pipeline new demo`` writes it, with a copy of ``config/``, and with what the
page writes.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import importlib
import inspect
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from xml_pipeline import errors
from xml_pipeline.config import load_report, organism_json_schema, scope
from xml_pipeline.mesh import AgentMesh
from xml_pipeline.mesh import errors as mesh_errors
from xml_pipeline.mesh.kv import KV
from xml_pipeline.mesh.options import ConnectionOptions
from xml_pipeline.mesh.spec import AgentSpec
from xml_pipeline.message_bus import events
from xml_pipeline.message_bus.message_state import HandlerMetadata, Outcome
from xml_pipeline.message_bus.statistics import PumpStatistics

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ ]*$", re.MULTILINE | re.DOTALL)
OURS = re.compile(r"(^|[|&;]\s*)(xml-pipeline|xp)\s")
TIMES = re.compile(r"\d+(\.\d+)? (ms|s)\b")
ADDRESS = re.compile(r"127\.0\.0\.1:\d+( \(process \d+\))?")


@dataclasses.dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file(self) -> str:
        return next((word.removeprefix("file=") for word in self.words if word.startswith("file=")), "")


def blocks_of(page: Path) -> list[Block]:
    source = page.read_text(encoding="utf-8")
    blocks = []
    for match in FENCE.finditer(source):
        language, *words = match["info"].split() or [""]
        line = source.count("\n", 0, match.start()) + 2
        blocks.append(Block(page, line, language, tuple(words), match["text"]))
    return blocks


def prose_of(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def name_of(page: Path) -> str:
    return page.stem


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if any(block.language in languages for block in blocks_of(page))]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new organism, with a copy of the example; modules that are imported from it are forgotten afterwards."""
    for name in ("organism.yaml", "handlers.py"):
        text = (ROOT / "xml_pipeline" / "cli" / "template" / f"{name}.txt").read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("@NAME@", "demo"), encoding="utf-8")
    shutil.copytree(ROOT / "config", tmp_path / "config", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), dict(sys.modules)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    sys.path[:] = path
    for name in [name for name in sys.modules if name not in modules]:
        if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(tmp_path)):
            del sys.modules[name]
    importlib.invalidate_caches()


def write_files(blocks: list[Block], directory: Path) -> None:
    for block in blocks:
        if block.file:
            (directory / block.file).parent.mkdir(parents=True, exist_ok=True)
            (directory / block.file).write_text(block.text, encoding="utf-8")


# -- python ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
def test_python_runs(page: Path, directory: Path) -> None:
    blocks = blocks_of(page)
    module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
    module.__file__ = str(directory / f"{module.__name__}.py")
    sys.modules[module.__name__] = module  # where dataclasses look for the names in annotations
    sys.path.insert(0, str(directory))
    called: set[str] = set()
    with asyncio.Runner() as runner, mesh_of(page, runner) as given:
        module.__dict__.update(given)
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            write_files([block], directory)
            if block.language != "python" or "no-run" in block.words:
                continue
            printed = execute(block, module.__dict__, runner)
            for name, function in list(module.__dict__.items()):
                if name.startswith("test_") and inspect.iscoroutinefunction(function) and name not in called:
                    called.add(name)
                    runner.run(function())
            if following is not None and following.words[:1] == ("output",):
                assert printed.strip() == following.text.strip(), following.place


@contextlib.contextmanager
def mesh_of(page: Path, runner: asyncio.Runner) -> Iterator[dict[str, object]]:
    """What the blocks of a page about the mesh take for granted."""
    if not page.stem.startswith(("mesh", "bridge")):
        yield {}
        return
    local = AgentMesh.local()
    mesh = runner.run(local.__aenter__())
    try:
        yield {"mesh": mesh, "url": mesh.url}
    finally:
        runner.run(local.__aexit__(None, None, None))


def execute(block: Block, namespace: dict[str, Any], runner: asyncio.Runner) -> str:
    source = "\n" * (block.line - 1) + block.text  # so that tracebacks have the page's lines
    code = compile(source, block.place, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(eval(code, namespace))
        else:
            exec(code, namespace)
    return out.getvalue()


def test_blocks_that_are_not_run_are_few_and_say_why() -> None:
    """A comment in the first line gives the reason."""
    left_out = [block for page in PAGES for block in blocks_of(page) if "no-run" in block.words]
    assert all(block.text.startswith("#") for block in left_out), [block.place for block in left_out]
    assert len(left_out) <= 3


# -- organism.yaml --------------------------------------------------------------------------------------------------


def is_organism(block: Block) -> bool:
    return block.language == "yaml" and re.search(r"^(organism|listeners):", block.text, re.MULTILINE) is not None


@pytest.mark.parametrize("page", [page for page in PAGES if any(map(is_organism, blocks_of(page)))], ids=name_of)
def test_organisms_load(page: Path, directory: Path) -> None:
    blocks = blocks_of(page)
    write_files(blocks, directory)
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if not is_organism(block):
            continue
        (directory / "organism.yaml").write_text(block.text, encoding="utf-8")
        report = load_report("organism.yaml", environment={})
        told = "\n".join(map(str, report.warnings if "warned" in block.words else report.problems))
        if {"refused", "warned"} & {*block.words}:
            assert following is not None and following.language == "text", f"{block.place}: what is said about it?"
            assert told == following.text.strip(), block.place
            assert report.ok is ("warned" in block.words), block.place
        else:
            assert report.ok, f"{block.place}\n{told}"
            assert not report.warnings, block.place


def test_a_yaml_block_is_an_organism() -> None:
    """Else it would not be loaded, and could be wrong."""
    others = [b.place for page in PAGES for b in blocks_of(page) if b.language == "yaml" and not is_organism(b)]
    assert others == []


# -- commands -------------------------------------------------------------------------------------------------------

RUNNER = """\
import subprocess, sys
from xml_pipeline.cli.main import main
if sys.argv[1:3] == ["mesh", "up"]:
    sys.argv += ["--port", "0"]  # another one than 4222, which may be somebody's
if sys.argv[1:2] != ["run"] or "--help" in sys.argv:
    sys.exit(main())
# `run` ends when it is told to: once it is up, and its first message is answered
last = "answer:" if "--send" in sys.argv else "is running"
command = [sys.executable, "-m", "xml_pipeline.cli", *sys.argv[1:]]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
    for line in process.stdout:
        print(line, end="", flush=True)
        if last in line:
            process.terminate()
sys.exit(process.returncode)
"""


@dataclasses.dataclass
class Command:
    text: str
    place: str
    expected: list[str]

    @property
    def code(self) -> int:
        said = re.search(r"# exit code (\d+)", self.text)
        return int(said[1]) if said else 0


def commands_of(page: Path) -> list[Command]:
    commands: list[Command] = []
    for block in blocks_of(page):
        if block.language not in ("bash", "console"):
            continue
        for number, line in enumerate(block.text.splitlines(), block.line):
            if block.language == "bash" or line.startswith("$ "):
                commands.append(Command(line.removeprefix("$ "), f"{page.relative_to(ROOT)}:{number}", []))
            elif commands:
                commands[-1].expected.append(line)
    return [command for command in commands if OURS.search(command.text) or command.text.startswith("cd ")]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(OURS.search(c.text) for c in commands_of(page))], ids=name_of
)
def test_commands_run(page: Path, directory: Path) -> None:
    commands = commands_of(page)
    write_files(blocks_of(page), directory)
    results = run_commands(commands, directory)
    for command, (code, printed) in zip(commands, results, strict=True):
        assert "Traceback" not in printed, f"{command.place}: {command.text}\n{printed}"
        assert code == command.code, f"{command.place}: {command.text}\n{printed}"
        assert_shown(command, printed)


def run_commands(commands: list[Command], directory: Path) -> list[tuple[int, str]]:
    """Run them in one shell, so that a ``cd`` lasts."""
    programs = directory / "bin"
    programs.mkdir()
    (programs / "ours.py").write_text(RUNNER, encoding="utf-8")
    for name in ("xml-pipeline", "xp"):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{programs}/ours.py" "$@"\n')
        (programs / name).chmod(0o755)
    mark = "@@done"
    script = [f"{command.text.partition(' # ')[0]}\necho {mark} $?" for command in commands]
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "XDG_STATE_HOME": str(directory / "state"),  # where `mesh up` remembers what it has started
        "OAM_URL": "",
    }
    with subprocess.Popen(
        ["bash", "-c", "exec 2>&1\n" + "\n".join(script)],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            printed, _ = shell.communicate(timeout=50)
        except BaseException:
            os.killpg(shell.pid, signal.SIGKILL)  # the shell, and a command of ours that does not end
            raise
        finally:
            if (directory / "state").exists():
                down = [str(programs / "xp"), "mesh", "down"]
                subprocess.run(down, env=environment, capture_output=True, check=False)
    *parts, rest = re.split(rf"{mark} (\d+)\n", printed)
    assert not rest.strip(), rest
    return [(int(code), printed) for printed, code in zip(parts[::2], parts[1::2], strict=True)]


def assert_shown(command: Command, printed: str) -> None:
    actual = iter([alike(line) for line in printed.splitlines()])
    for line in filter(None, map(alike, command.expected)):
        if line == "...":
            continue
        assert line in actual, f"{command.place}: not printed: {line}\n{printed}"


def alike(line: str) -> str:
    line = ADDRESS.sub("127.0.0.1:4222", TIMES.sub("TIME", line))
    return " ".join(line.replace("(uvloop)", "(asyncio)").split())


# -- links, names, targets --------------------------------------------------------------------------------------------


def anchors_of(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors_of(target), link


def test_every_page_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index, page.name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_public_names_exist(page: Path) -> None:
    for code in re.findall(r"`([^`\n]+)`", prose_of(page)):
        for path in re.findall(r"\b(?:xml_pipeline|third_party)(?:\.\w+)+", code):
            resolve(path)


def resolve(path: str) -> object:
    names = path.split(".")
    value: Any = importlib.import_module(names[0])
    for index, name in enumerate(names[1:], 2):
        if not hasattr(value, name):
            importlib.import_module(".".join(names[:index]))
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^|\$ )make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


# -- tables that must be complete, and right ------------------------------------------------------------------------


def table(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    source = (ROOT / page).read_text(encoding="utf-8")
    after = re.split(rf"^#+ {re.escape(heading)}$", source, maxsplit=1, flags=re.MULTILINE)
    assert len(after) == 2, f"{page} has no heading {heading!r}"
    rows: list[list[str]] = []
    for line in after[1].splitlines():
        if line.startswith("|"):
            rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif rows:
            break
    return rows[2:]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def default_text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:,.0f}" if value == int(value) else str(value)
    return f"`{value}`" if value else "empty"


SCHEMA = organism_json_schema()
SECTIONS = ("organism", "listeners", "llm", "peer_tables", "backend", "mesh")


@pytest.mark.parametrize(
    ("heading", "properties", "required"),
    [
        ("organism", SCHEMA["$defs"]["OrganismSection"]["properties"], {"name"}),
        (
            "listeners",
            SCHEMA["$defs"]["ListenerSection"]["properties"],
            {"name", "payload_class", "handler", "description"},
        ),
        ("llm", SCHEMA["$defs"]["LLMSection"]["properties"], set()),
        ("llm.backends", SCHEMA["$defs"]["LLMBackendSection"]["properties"], {"provider"}),
        ("peer_tables", SCHEMA["$defs"]["PeerTableSection"]["properties"], {"name"}),
        ("peer_tables entries", SCHEMA["$defs"]["PeerEntrySection"]["properties"], {"listener", "peers"}),
        ("backend", SCHEMA["$defs"]["BackendSection"]["properties"], set()),
        ("mesh", SCHEMA["$defs"]["MeshConfig"]["properties"], set()),
        ("mesh expose", SCHEMA["$defs"]["ExposeConfig"]["properties"], {"listener"}),
        ("mesh agents", SCHEMA["$defs"]["MeshAgentConfig"]["properties"], set()),
        ("mesh kv", SCHEMA["$defs"]["KVConfig"]["properties"], set()),
        ("mesh subjects", SCHEMA["$defs"]["SubjectConfig"]["properties"], set()),
        ("mesh trust", SCHEMA["$defs"]["TrustConfig"]["properties"], {"key", "organism"}),
        (
            "Limits",
            {k: v for k, v in SCHEMA["properties"].items() if k not in SECTIONS},
            set(),
        ),
    ],
)
def test_the_reference_has_every_key_with_its_default(
    heading: str, properties: dict[str, Any], required: set[str]
) -> None:
    rows = table("docs/organism-yaml.md", heading)
    assert [names_in(row[0])[0] for row in rows] == list(properties)
    for row in rows:
        name = names_in(row[0])[0]
        expected = "required" if name in required else default_text(properties[name]["default"])
        assert row[2] == expected, name


def test_the_keys_that_come_later_are_listed() -> None:
    rows = table("docs/organism-yaml.md", "Keys that are refused")
    told = {name for row in rows for name in names_in(row[0])}
    known = {
        *scope._TOP,
        *(f"organism.{key}" for key in scope._ORGANISM),
        *(f"backend.{key}" for key in scope._BACKEND),
        *(f"listeners[].{key}" for key in scope._LISTENER),
        *(f"peer_tables[].{key}" for key in scope._TABLE),
    }
    assert told == known


def test_the_limits_page_has_every_limit_with_its_default() -> None:
    rows = table("docs/limits-and-fairness.md", "All limits")
    told = {names_in(row[0])[0]: row[1] for row in rows}
    limits = SCHEMA["properties"]
    expected = {k: default_text(v["default"]) for k, v in limits.items() if "default" in v}
    for other in (*SECTIONS, "import_roots"):
        expected.pop(other, None)
    assert told == expected


def test_every_error_is_listed() -> None:
    rows = table("docs/errors-and-dead-letters.md", "Errors")
    told = {names_in(row[1])[0]: (row[0].strip("`"), row[3]) for row in rows}
    classes = [cls for name in errors.__all__ if isinstance(cls := getattr(errors, name), type)]
    assert told == {
        cls.__name__: ("none" if cls is errors.ConfigurationError else cls.code, "yes" if cls.retry_allowed else "no")
        for cls in classes
        if cls is not errors.PipelineError
    }


def test_every_outcome_is_listed() -> None:
    rows = table("docs/errors-and-dead-letters.md", "Outcomes")
    assert [names_in(row[0])[0] for row in rows] == [outcome.value for outcome in Outcome]


def test_every_event_is_listed_with_its_fields() -> None:
    told = {names_in(row[0])[0]: names_in(row[2]) for row in table("docs/events.md", "The events")}
    classes = {name: cls for name in events.__all__ if name.endswith("Event") and (cls := getattr(events, name))}
    base = {field.name for field in dataclasses.fields(events.PumpEvent)}
    assert told == {
        name: [field.name for field in dataclasses.fields(cls) if field.name not in base]
        for name, cls in classes.items()
        if cls is not events.PumpEvent
    }
    assert [names_in(row[0])[0] for row in table("docs/events.md", "What every event has")] == [
        field.name for field in dataclasses.fields(events.PumpEvent)
    ]


def test_the_metadata_is_described() -> None:
    rows = table("docs/handlers-and-payloads.md", "What a handler is told")
    assert [names_in(row[0])[0] for row in rows] == [field.name for field in dataclasses.fields(HandlerMetadata)]


def test_the_statistics_are_described() -> None:
    rows = table("docs/limits-and-fairness.md", "Statistics")
    assert [names_in(row[0])[0] for row in rows] == list(PumpStatistics._fields)


def verbs_of(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command, and the words that lead to it."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from verbs_of(command, f"{before}{word} ")
        else:
            yield f"{before}{word}", command


def test_every_option_of_every_command_is_described() -> None:
    import typer

    from xml_pipeline.cli.main import app

    for verb, command in verbs_of(typer.main.get_command(app)):
        told = [name for row in table("docs/cli.md", f"xml-pipeline {verb}") for name in names_in(row[0])]
        known = []
        for parameter in command.params:
            if parameter.name == "help":
                continue
            is_argument = parameter.param_type_name == "argument"
            options = [*parameter.opts, *parameter.secondary_opts]
            known += [parameter.metavar or parameter.name.upper()] if is_argument else options
        assert sorted(name.split()[0].strip("[]") for name in told) == sorted(name.strip("[]") for name in known), verb


def test_the_exit_codes_are_listed() -> None:
    from xml_pipeline.cli.exits import Exit

    assert [int(row[0]) for row in table("docs/cli.md", "Exit codes")] == [code.value for code in Exit]


def test_the_benchmarks_are_described() -> None:
    tree = ast.parse((ROOT / "benchmarks" / "suite.py").read_text(encoding="utf-8"))
    assigned = {node.target.id: node.value for node in tree.body if isinstance(node, ast.AnnAssign)}
    names = [key.value for which in ("_CASES", "_ROWS") for key in assigned[which].keys]
    assert [names_in(row[0])[0] for row in table("docs/performance.md", "What is measured")] == names


def public_names(cls: type) -> set[str]:
    return {name for name in vars(cls) if not name.startswith("_")}


def test_every_error_of_the_mesh_is_listed() -> None:
    told = {names_in(row[0])[0]: names_in(row[1])[0] for row in table("docs/mesh.md", "Errors")}
    classes = [cls for name in mesh_errors.__all__ if isinstance(cls := getattr(mesh_errors, name), type)]
    assert told == {cls.__name__: cls.default_code for cls in classes}


def test_every_verb_of_the_mesh_is_listed() -> None:
    names = [name for row in table("docs/mesh.md", "All verbs") for name in names_in(row[0])]
    told = {name.removeprefix("AgentMesh.").partition("(")[0] for name in names}
    extensions = {"parts", "connecting_to"}
    assert told | extensions == public_names(AgentMesh)


def test_every_verb_of_keys_and_values_is_listed() -> None:
    told = {name.partition("(")[0] for row in table("docs/mesh-state.md", "All verbs") for name in names_in(row[0])}
    assert told == public_names(KV)


def test_every_field_of_a_spec_is_listed_with_its_default() -> None:
    told = {names_in(row[0])[0]: row[1] for row in table("docs/mesh.md", "AgentSpec")}
    assert told == {
        name: "required" if field.is_required() else default_text(field.get_default(call_default_factory=True))
        for name, field in AgentSpec.model_fields.items()
    }


def test_the_times_of_a_connection_are_right() -> None:
    told = {names_in(row[0])[0]: row[1] for row in table("docs/mesh-operations.md", "Times")}
    defaults = {field.name: field.default for field in dataclasses.fields(ConnectionOptions)}
    assert told == {name: f"{defaults[name]:g} s" for name in told}
    assert {"connect_timeout", "ping_interval", "ping_timeout", "first_delay", "longest_delay", "lease"} == set(told)


# -- style ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_are_tidy(page: Path) -> None:
    source = page.read_text(encoding="utf-8")
    assert source.startswith("# ") and source.endswith("\n") and not source.endswith("\n\n")
    assert "\t" not in source
    assert all(line == line.rstrip() for line in source.splitlines())
    written = prose_of(page).splitlines()
    written += [line for block in blocks_of(page) if block.language == "python" for line in block.text.splitlines()]
    assert [line for line in written if len(line) > 120 and not line.startswith("|")] == []
