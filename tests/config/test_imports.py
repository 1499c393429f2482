from __future__ import annotations

import sys
from pathlib import Path

import pytest

from xml_pipeline.config import Importer, InvalidConfiguration, add_import_directory, resolve

from .conftest import Organism


@pytest.fixture(autouse=True)
def directory(organism: Organism) -> Path:
    """A package ``imp`` with modules, importable."""
    organism.module("imp.sub.deep", "async def run(p, m): return None\nclass Outer:\n    class Inner:\n        x = 1\n")
    organism.module("imp.other", "value = 5\n")
    organism.module("imp.crash", "\n\n1 / 0\n")
    organism.module("imp.wrong", "def (\n")
    organism.module("imp.exits", "raise SystemExit(3)\n")
    organism.module("imp.base", "raise BaseException('a\\nb')\n")
    organism.module("imp.needs", "import not_installed_anywhere\n")
    organism.module("imp.deeper", "import imp.crash\n")
    organism.module("imp.lazy", "def __getattr__(name):\n    raise RuntimeError('no ' + name)\n")
    (organism.directory / "imp" / "sub" / "__init__.py").write_text("deep = 'shadow'\nhere = 1\n")
    add_import_directory(organism.directory)
    return organism.directory


def fault(path: str, roots: list[str] | None = None) -> str:
    with pytest.raises(InvalidConfiguration) as caught:
        resolve(path, roots)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "path",
    ["imp.sub.deep.run", "imp.sub.deep:run", "imp.sub.deep.Outer", "imp.sub.deep.Outer.Inner.x", "imp.other.value"],
)
def test_a_path_names_an_attribute(path: str) -> None:
    assert getattr(resolve(path), "__name__", path.split(".")[-1]) == path.replace(":", ".").split(".")[-1]
    assert resolve(path.replace(":", ".")) == resolve(path)


def test_a_nested_attribute_may_stand_behind_the_colon() -> None:
    assert resolve("imp.sub.deep:Outer.Inner.x") == 1


def test_the_longest_module_wins_over_an_attribute_of_the_same_name() -> None:
    assert resolve("imp.sub.deep.Outer").__name__ == "Outer"
    assert resolve("imp.sub.here") == 1


def test_the_standard_library_can_be_named() -> None:
    assert resolve("collections.abc.Mapping").__name__ == "Mapping"
    assert resolve("os.path.join") is __import__("os").path.join


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("nowhere_at_all.x", "there is no module 'nowhere_at_all'"),
        ("imp.othr:value", "there is no module 'imp.othr', did you mean 'imp.other'?"),
        ("imp.other.x:value", "there is no module 'imp.other.x' ('imp.other' is not a package)"),
        ("imp.other.vlaue", "module 'imp.other' has no attribute 'vlaue', did you mean 'value'?"),
        ("imp.othr.value", "module 'imp' has no attribute 'othr', did you mean 'other'?"),
        ("imp.sub.deep.Outer.Iner", "'imp.sub.deep.Outer' has no attribute 'Iner', did you mean 'Inner'?"),
        ("imp.other.zzzzzz", "module 'imp.other' has no attribute 'zzzzzz'"),
        ("imp.crash.x", "importing 'imp.crash' failed: ZeroDivisionError: division by zero (crash.py, line 3)"),
        ("imp.deeper.x", "importing 'imp.deeper' failed: ZeroDivisionError: division by zero (crash.py, line 3)"),
        ("imp.exits.x", "importing 'imp.exits' failed: SystemExit: 3 (exits.py, line 1)"),
        ("imp.base.x", "importing 'imp.base' failed: BaseException: a b (base.py, line 1)"),
        (
            "imp.needs.x",
            "importing 'imp.needs' failed: ModuleNotFoundError: No module named 'not_installed_anywhere' "
            "(needs.py, line 1)",
        ),
        ("imp.lazy.x", "module 'imp.lazy', attribute 'x': RuntimeError: no x"),
        ("imp", "'imp' names no attribute of a module; write 'module.name'"),
        ("imp..x", "an import path must not have consecutive dots: 'imp..x'"),
    ],
)
def test_what_cannot_be_imported_is_said_in_one_line(path: str, text: str) -> None:
    assert fault(path) == text


def test_a_syntax_error_is_said_with_its_line() -> None:
    assert fault("imp.wrong.x").startswith("importing 'imp.wrong' failed: SyntaxError: ")
    assert "(wrong.py, line 1)" in fault("imp.wrong.x")


def test_an_interrupt_is_not_swallowed(organism: Organism) -> None:
    organism.module("imp.interrupted", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        resolve("imp.interrupted.x")


def test_only_allowed_packages_are_imported() -> None:
    assert resolve("imp.other.value", ["imp"]) == 5
    assert fault("imp.other.value", ["app", "lib"]) == (
        "'imp.other.value' is outside of the allowed import roots (app, lib)"
    )
    assert fault("imp.sub.here", ["imp.other"]).endswith("(imp.other)")
    assert fault("imp.other.value", []).endswith("(none)")


def test_nothing_outside_of_the_allowed_packages_runs() -> None:
    fault("imp.crash.x", ["app"])
    assert "imp.crash" not in sys.modules


def test_each_path_is_resolved_once(organism: Organism) -> None:
    organism.module("imp.counted", "import imp.other\nimp.other.value += 1\nraise RuntimeError('no')\n")
    importer = Importer()
    assert importer.resolve("imp.other.value") == 5
    texts = set()
    for _ in range(3):
        with pytest.raises(InvalidConfiguration) as caught:
            importer.resolve("imp.counted.x")
        texts.add(str(caught.value))
    assert len(texts) == 1
    assert resolve("imp.other.value") == 6


def test_a_module_of_another_organism_is_refused(organism: Organism, tmp_path: Path) -> None:
    assert resolve("imp.other.value") == 5
    second = tmp_path / "second"
    (second / "imp").mkdir(parents=True)
    (second / "imp" / "__init__.py").touch()
    importer = Importer(directory=second)
    with pytest.raises(InvalidConfiguration, match=r"a module 'imp' was already loaded from .*; rename __init__\.py"):
        importer.resolve("imp.other.value")
    assert Importer(directory=organism.directory).resolve("imp.other.value") == 5


def test_our_own_package_may_stand_beside_an_organism_too(organism: Organism) -> None:
    organism.module("xml_pipeline.copy", "")
    assert Importer(directory=organism.directory).resolve("xml_pipeline.config.Importer") is Importer


def test_a_finder_that_fails_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ValueError(name)

    monkeypatch.setattr("importlib.util.find_spec", fail)
    assert fault("imp.missing.value") == "module 'imp' has no attribute 'missing'"


def test_an_object_that_does_not_tell_its_names_gets_no_suggestions(organism: Organism) -> None:
    organism.module("imp.silent", "class Silent:\n    def __dir__(self):\n        raise OSError\nsilent = Silent()\n")
    assert fault("imp.silent.silent.x") == "'imp.silent.silent' has no attribute 'x'"


def test_modules_made_in_memory_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    module = types.ModuleType("made_in_memory")
    module.value = 7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_in_memory", module)
    monkeypatch.setitem(sys.modules, "made_in_memory.inner", module)
    assert resolve("made_in_memory.value") == 7
    assert resolve("made_in_memory.inner.value") == 7


def test_a_directory_is_put_first_and_once(tmp_path: Path) -> None:
    directory = tmp_path / "new"
    directory.mkdir()
    assert add_import_directory(directory)
    assert sys.path[0] == str(directory.resolve())
    assert not add_import_directory(str(directory))
    assert sys.path.count(str(directory.resolve())) == 1
