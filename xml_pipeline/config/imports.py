"""From import paths to the objects they name.

Importing runs code, so a configuration is code: who may write it may do anything the process may. Paths are checked
for their form, and against the allowed packages, before anything is imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from xml_pipeline.config.paths import import_path_fault, is_within, split_path
from xml_pipeline.config.problems import Hints, InvalidConfiguration, one_line, quoted

__all__ = ["Importer", "add_import_directory", "resolve"]


class _Fault(Exception):
    """Why a path cannot be resolved, in one line."""


def add_import_directory(directory: str | Path) -> bool:
    """Let modules beside an organism file be imported, as Python does for a script's own directory.

    Args:
        directory: put first in ``sys.path``, unless it is in it.

    Returns:
        Whether ``sys.path`` was changed.
    """
    entry = str(Path(directory).resolve())
    if entry in sys.path:
        return False
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    return True


def resolve(path: str, roots: Iterable[str] | None = None) -> Any:
    """The object that ``path`` names.

    Args:
        path: ``package.module.attr``, where the longest prefix that is a module counts as the module, or
            ``package.module:attr``. The attribute may be nested.
        roots: packages that the path must lie in; ``None``, the default, for any.

    Raises:
        InvalidConfiguration: the path is malformed or not allowed, there is no such module or attribute, or the module
            raised an exception while it was imported; one line with the cause.
    """
    return Importer(roots).resolve(path)


class Importer:
    """Resolves the import paths of one configuration, each of them once.

    A module that failed is not executed again.

    Args:
        roots: packages that paths must lie in; ``None`` for any.
        directory: the organism file's directory. A module that stands there but was already loaded from elsewhere is
            refused: it belongs to another organism of this process.
        hints: for suggestions.
    """

    def __init__(
        self, roots: Iterable[str] | None = None, *, directory: Path | None = None, hints: Hints | None = None
    ) -> None:
        self._roots = None if roots is None else tuple(roots)
        self._directory = None if directory is None else directory.resolve()
        self._hints = hints or Hints()
        self._found: dict[str, Any] = {}
        self._faults: dict[str, str] = {}
        self._broken: dict[str, str] = {}
        self._told: set[str] = set()

    @property
    def directory(self) -> Path:
        """Where paths of files begin: the organism file's directory, or the current one."""
        return self._directory or Path()

    def resolve(self, path: str) -> Any:
        """See `resolve`."""
        if path in self._faults:
            raise InvalidConfiguration(self._faults[path])
        if path not in self._found:
            try:
                self._found[path] = self._resolve(path)
            except _Fault as fault:
                self._faults[path] = str(fault)
                raise InvalidConfiguration(str(fault)) from None
        return self._found[path]

    def was_told(self, fault: str) -> bool:
        """Whether ``fault`` is that of a module that failed, and was asked about before: one mistake, many paths."""
        if fault not in self._broken.values():
            return False
        known = fault in self._told
        self._told.add(fault)
        return known

    def _resolve(self, path: str) -> Any:
        fault = import_path_fault(path)
        if fault is not None:
            raise _Fault(fault)
        if self._roots is not None and not is_within(path, self._roots):
            allowed = ", ".join(self._roots) or "none"
            raise _Fault(f"{quoted(path)} is outside of the allowed import roots ({allowed})")
        names, attributes = split_path(path)
        if attributes is not None:
            return self._attribute(self._module(".".join(names)), attributes)
        if len(names) == 1:
            raise _Fault(f"{quoted(path)} names no attribute of a module; write 'module.name'")
        module, depth = self._longest_module(names[:-1])
        return self._attribute(module, names[depth:])

    def _longest_module(self, names: list[str]) -> tuple[ModuleType, int]:
        """The module at the longest prefix of ``names`` that is one, and the length of that prefix."""
        module = self._module(names[0])
        for depth in range(1, len(names)):
            name = ".".join(names[: depth + 1])
            if not _exists(name, module):
                return module, depth
            module = self._module(name)
        return module, len(names)

    def _module(self, name: str) -> ModuleType:
        self._refuse_namesake(name)
        if name in self._broken:
            raise _Fault(self._broken[name])
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if missing and (name == missing or name.startswith(f"{missing}.")):
                raise _Fault(f"there is no module {quoted(missing)}{self._near_modules(missing)}") from None
            raise self._failure(name, error) from None
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # not only Exception: a script without a main guard raises SystemExit
            raise self._failure(name, error) from None

    def _failure(self, name: str, error: BaseException) -> _Fault:
        self._broken[name] = _import_failure(name, error)
        return _Fault(self._broken[name])

    def _refuse_namesake(self, name: str) -> None:
        top = name.partition(".")[0]
        loaded = getattr(sys.modules.get(top), "__file__", None)
        if self._directory is None or not isinstance(loaded, str) or top == __name__.partition(".")[0]:
            return  # our own package is the same one wherever the organism stands, in a checkout of it for instance
        candidates = (self._directory / f"{top}.py", self._directory / top / "__init__.py")
        ours = next((file for file in candidates if file.is_file()), None)
        if ours is not None and not Path(loaded).resolve().is_relative_to(self._directory):
            raise _Fault(f"a module {quoted(top)} was already loaded from {loaded}; rename {ours.name} or its package")

    def _near_modules(self, missing: str) -> str:
        parent, _, last = missing.rpartition(".")
        package = sys.modules.get(parent) if parent else None
        if parent and not hasattr(package, "__path__"):
            return f" ({quoted(parent)} is not a package)"
        search = _search_path(package) if parent else None
        modules = (found.name for found in pkgutil.iter_modules(search))
        near = self._hints.did_you_mean(last, modules, f"module in {parent}")
        return near.replace("'", f"'{parent}.", 1) if near and parent else near

    def _attribute(self, module: ModuleType, names: list[str]) -> Any:
        value: Any = module
        where = f"module {quoted(module.__name__)}"
        for name in names:
            try:
                value = getattr(value, name)
            except AttributeError:
                known = _public_names(value) + [found.name for found in pkgutil.iter_modules(_search_path(value))]
                near = self._hints.did_you_mean(name, known, where)
                raise _Fault(f"{where} has no attribute {quoted(name)}{near}") from None
            except Exception as error:  # a module's __getattr__, or a descriptor, may raise anything
                raise _Fault(f"{where}, attribute {quoted(name)}: {_named(error)}") from None
            where = quoted(f"{module.__name__}.{name}")
        return value


def _exists(name: str, parent: ModuleType) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    if not hasattr(parent, "__path__"):
        return False
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _search_path(package: Any) -> list[str]:
    """Where the modules of ``package`` are looked for; nowhere, if it is none."""
    return list(package.__path__) if isinstance(package, ModuleType) and hasattr(package, "__path__") else []


def _public_names(value: Any) -> list[str]:
    try:
        return [name for name in dir(value) if not name.startswith("__")]
    except Exception:
        return []


def _named(error: BaseException) -> str:
    text = one_line(str(error))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _import_failure(name: str, error: BaseException) -> str:
    """What happened while ``name`` was imported, and in which line of it or of what it imports."""
    place = ""
    if not isinstance(error, SyntaxError):  # its text has file and line already
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if "importlib" not in frame.filename and frame.filename != __file__
        ]
        place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"importing {quoted(name)} failed: {_named(error)}{place}"
