"""Who may import whom, as data. It is read from the sources; nothing is imported."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

BUS = "xml_pipeline.message_bus"

# Rows from the bottom up; a row may use the rows below it, and within a row a room those to its left.
ROWS: list[tuple[str, list[str]]] = [
    (
        "wire",
        [
            "third_party.xmlable",
            "xml_pipeline.errors",
            "xml_pipeline.strict_xml",  # the one parser, which the envelope builds on
            f"{BUS}.message_state",
            "xml_pipeline.envelope",
            "xml_pipeline.crypto",
        ],
    ),
    (
        "state",
        [
            # Leftmost: every registry builds its accessor on it.
            "xml_pipeline.runtime",
            "xml_pipeline.config",
            "xml_pipeline.memory",
            "message_bus (state)",
        ],
    ),
    (
        "features",
        ["xml_pipeline.primitives", "xml_pipeline.sequence", "xml_pipeline.llm", "xml_pipeline.platform"],
    ),
    ("engine", ["message_bus (engine)", "xml_pipeline.mesh"]),
    ("join", ["xml_pipeline.bridge"]),
    ("assembly", ["xml_pipeline.organism", "xml_pipeline.testing"]),
    ("edges", ["xml_pipeline.cli", "xml_pipeline.dashboard"]),
]

STATE_OF_THE_BUS = {
    "budget",
    "budget_registry",
    "part",
    "payloads",
    "conversation",
    "call",
    "dead_letters",
    "directory",
    "dispatch_hook",
    "event_delivery",
    "events",
    "exchange",
    "expiries",
    "fair_queue",
    "hooks",
    "huh",
    "identifiers",
    "lane",
    "ledger",
    "join",
    "listener",
    "log_crowd",
    "mint",
    "notices",
    "peer_tables",
    "permissions",
    "reception",
    "replies",
    "routing",
    "statistics",
    "steps",
    "thread_registry",
    "todo_registry",
    "token_bucket",
    "transcript",
    "usage",
    "scheduler",  # which messages next: decided without a pipeline; its one await is an event
    "ingress",
    "sources",
    "worker_pool",
}
ENGINE_OF_THE_BUS = {
    "attachment",
    "gateway",
    "intake",
    "patience",
    "lanes",
    "lending",
    "outlet",
    "turn_events",
    "driver",
    "turns",
    "dispatch",
    "engine",
    "lifecycle",
    "model_calls",
    "operators",
    "orchestration",
    "pipeline",
    "reload",
    "signer",
    "singleton",
    "stream_pump",
    "system_listeners",
    "worker",
}

# The ways up; all are imports inside a function.
LAZY_WAYS_UP = {
    (f"{BUS}.stream_pump", "xml_pipeline.organism"): 2,  # StreamPump.from_yaml, and the re-exported bootstrap
}
# Within the engine, against its order, and lazy too.
LAZY_WITHIN = {(f"{BUS}.singleton", f"{BUS}.stream_pump")}

RANK = {room: (row, place) for row, (_, rooms) in enumerate(ROWS) for place, room in enumerate(rooms)}


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package in ("xml_pipeline", "third_party"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


@cache
def imports(module: str) -> list[tuple[str, bool]]:
    """Each module that ``module`` imports, and whether it does so inside a function."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, lazy: bool) -> None:
        if is_type_checking(node):
            for child in node.orelse:
                visit(child, lazy)
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.extend((target, lazy) for target in _targets(module, node))
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, lazy)

    visit(tree(module), False)
    return found


def _targets(module: str, node: ast.ImportFrom) -> list[str]:
    base = node.module or ""
    if node.level:
        package = module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]
        for _ in range(node.level - 1):
            package = package.rpartition(".")[0]
        base = f"{package}.{base}".rstrip(".")
    # `from package import module` imports the module
    return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules() else base for alias in node.names]


def room_of(module: str) -> str | None:
    if module == f"{BUS}.message_state":
        return module
    if module.startswith(f"{BUS}."):
        part = module.split(".")[2]
        return "message_bus (state)" if part in STATE_OF_THE_BUS else "message_bus (engine)"
    for room in RANK:
        if module == room or module.startswith(room + "."):
            return room
    return None


def our(module: str) -> list[tuple[str, bool]]:
    return [(name, lazy) for name, lazy in imports(module) if name.split(".")[0] in ("xml_pipeline", "third_party")]


# -- the table


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_down_or_left(module):
    room = room_of(module)
    if room is None:
        assert module in ("xml_pipeline", BUS, "third_party"), f"{module} is in no room of the table"
        return
    for target, lazy in our(module):
        other = room_of(target)
        if other is None:
            at_the_top = ROWS[RANK[room][0]][0] in ("assembly", "edges")
            assert target != "xml_pipeline" or at_the_top, f"{module} imports the root package, which is for users"
            continue
        if other == room or RANK[other] < RANK[room]:
            continue
        assert lazy, f"{module} ({room}) imports {target} ({other}), which is above it or to its right"
        assert (module, target) in LAZY_WAYS_UP, f"{module} reaches up to {target}; only {set(LAZY_WAYS_UP)} may"


def test_the_ways_up_are_the_named_ones():
    found: dict[tuple[str, str], int] = {}
    for module in modules():
        room = room_of(module)
        for target, _ in our(module):
            other = room_of(target)
            if room and other and RANK[other] > RANK[room]:
                found[module, target] = found.get((module, target), 0) + 1
    assert found == LAZY_WAYS_UP


def test_every_part_of_the_bus_is_in_the_table():
    parts = {module.split(".")[2] for module in modules() if module.startswith(f"{BUS}.")} - {"message_state"}
    assert parts <= STATE_OF_THE_BUS | ENGINE_OF_THE_BUS
    assert not STATE_OF_THE_BUS & ENGINE_OF_THE_BUS


def test_there_is_no_cycle_between_modules():
    """Leaving out the lazy imports that are named above."""
    allowed: dict[str, set[str]] = {}
    for module, target in [*LAZY_WAYS_UP, *LAZY_WITHIN]:
        allowed.setdefault(module, set()).add(target)
    graph = {
        module: {name for name, _ in our(module) if name in modules() and name != module} - allowed.get(module, set())
        for module in modules()
    }
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            pytest.fail("a cycle: " + " -> ".join([*path[path.index(module) :], module]))
        if module in done:
            return
        for target in sorted(graph[module]):
            walk(target, (*path, module))
        done.add(module)

    for module in graph:
        walk(module, ())


def test_within_the_engine_only_the_singleton_reaches_the_pump_and_lazily():
    users = {
        (module, target, lazy)
        for module in modules()
        if room_of(module) == "message_bus (engine)"
        for target, lazy in our(module)
        if target == f"{BUS}.stream_pump"
    }
    assert users == {(f"{BUS}.singleton", f"{BUS}.stream_pump", True)}


def test_the_runtime_imports_nothing_of_ours():
    assert our("xml_pipeline.runtime") == []


def test_the_codec_knows_nothing_of_the_pump():
    for module in modules():
        if module.startswith("third_party"):
            assert [name for name, _ in our(module) if name.startswith("xml_pipeline")] == []


# -- who may use what


def users_of(library: str) -> set[str]:
    return {
        module
        for module in modules()
        for name, _ in imports(module)
        if name == library or name.startswith(library + ".")
    }


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("aiostream", {f"{BUS}.pipeline", f"{BUS}.operators"}),
        ("nats", {"xml_pipeline.mesh.connection"}),
        ("httpx", {"xml_pipeline.llm.http"}),
        ("pydantic_ai", {"xml_pipeline.llm.pydantic_ai"}),
        ("cryptography", {"xml_pipeline.crypto.identity"}),
        ("pickle", set()),
        ("marshal", set()),
        ("shelve", set()),
        ("multiprocessing", set()),
    ],
)
def test_libraries_with_a_home(library, allowed):
    assert users_of(library) <= allowed


@pytest.mark.parametrize("library", ["rich", "typer"])
def test_terminals_belong_to_the_command_line(library):
    assert all(module.startswith("xml_pipeline.cli") for module in users_of(library))


def test_yaml_is_read_by_the_configuration_only():
    assert {module.rpartition(".")[0] for module in users_of("yaml")} == {"xml_pipeline.config"}


def calls(module: str) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree(module)) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("module", sorted(modules()))
def test_only_the_command_line_prints(module):
    printing = calls(module) & {"print", "pprint.pprint", "sys.stdout.write", "sys.stderr.write", "breakpoint"}
    assert not printing or module.startswith("xml_pipeline.cli")


@pytest.mark.parametrize("module", sorted(modules()))
def test_nothing_is_evaluated_or_unpickled(module):
    """The codec compiles what it made itself from a class, in its one documented step; nothing else runs text."""
    dangerous = calls(module) & {
        "eval",
        "exec",
        "compile",
        "yaml.load",
        "yaml.unsafe_load",
        "yaml.full_load",
        "pickle.loads",
        "pickle.load",
        "os.system",
        "subprocess.run",
        "subprocess.Popen",
    }
    if module.startswith("third_party.xmlable"):
        dangerous -= {"exec", "compile"}
    if module.startswith("xml_pipeline.cli"):
        dangerous -= {"subprocess.run", "subprocess.Popen"}
    if module == "xml_pipeline.cli.watching":
        dangerous -= {"compile"}  # to see whether a changed file is Python at all, before restarting; it is not run
    assert not dangerous


def test_only_the_codec_runs_what_it_compiled():
    assert {module for module in modules() if "exec" in calls(module)} == {"third_party.xmlable.compile"}


@pytest.mark.parametrize("module", sorted(modules()))
def test_no_globals_are_rebound(module):
    """No lazy singletons: what a pump knows belongs to its runtime."""
    assert not [node for node in ast.walk(tree(module)) if isinstance(node, ast.Global)]


@pytest.mark.parametrize("module", sorted(modules()))
def test_cancellation_is_not_swallowed_by_bare_excepts(module):
    for node in ast.walk(tree(module)):
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{module}:{node.lineno}"


@pytest.mark.parametrize("module", sorted(modules()))
def test_every_module_says_what_it_is_and_what_it_offers(module):
    node = tree(module)
    if not node.body:
        return
    assert ast.get_docstring(node), f"{module} has no docstring"
    defines = [child for child in node.body if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    if defines and not module.endswith("__main__"):
        assigned = [target for child in node.body if isinstance(child, ast.Assign) for target in child.targets]
        names = {target.id for target in assigned if isinstance(target, ast.Name)}
        assert "__all__" in names, f"{module} has no __all__"


# -- that the test can fail


@pytest.fixture
def fresh_caches():
    """What is read of a made-up module is forgotten, however the test ends."""
    yield
    tree.cache_clear()
    imports.cache_clear()


def test_the_table_sees_what_is_wrong(fresh_caches, tmp_path, monkeypatch):
    """Lazy and `from package import module` imports are found, those for type checkers are not."""
    source = (
        "from typing import TYPE_CHECKING\n"
        "from xml_pipeline import organism\n"
        "if TYPE_CHECKING:\n    from xml_pipeline.cli import main\n"
        "def f():\n    from xml_pipeline.message_bus.engine import Engine\n"
    )
    path = tmp_path / "made_up.py"
    path.write_text(source)
    monkeypatch.setitem(modules(), "xml_pipeline.made_up", path)
    assert our("xml_pipeline.made_up") == [
        ("xml_pipeline.organism", False),
        (f"{BUS}.engine", True),
    ]


def test_no_package_of_tests_takes_the_name_of_one_that_is_tested():
    """A package of tests at the top is imported as e.g. `config`, and the folder of that name is not found any more."""
    for package in sorted((ROOT / "tests").rglob("__init__.py")):
        assert (package.parent.parent / "__init__.py").is_file() or package.parent.name == "tests", package
