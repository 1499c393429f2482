"""Reads ``organism.yaml``: the one way from a file to a configuration, for `run`, `check` and reload alike."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xml_pipeline.config.entries import resolve_listener
from xml_pipeline.config.environment import read_environment
from xml_pipeline.config.imports import Importer, add_import_directory
from xml_pipeline.config.interpolation import interpolate
from xml_pipeline.config.keys import find_keys, key_warnings
from xml_pipeline.config.model import ListenerConfig, OrganismConfig
from xml_pipeline.config.names import BUILTIN_NAMES
from xml_pipeline.config.parser import parse_document, parse_listener
from xml_pipeline.config.paths import import_path_fault, module_path_fault
from xml_pipeline.config.problems import Hints, InvalidConfiguration, KeyPath, Problem
from xml_pipeline.config.yaml_source import MAX_BYTES, Source, read_yaml

__all__ = ["ConfigLoader", "Report", "load_report", "place_problems"]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that can be said about one organism file.

    Args:
        config: the configuration, imports resolved; ``None`` when there are problems.
        problems: what must be mended, in the order of the file.
        warnings: what may be meant as it is, in the order of the file.
    """

    config: OrganismConfig | None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the file can be used."""
        return self.config is not None


def load_report(
    path: str | Path,
    *,
    environment: Mapping[str, str] | None = None,
    export_environment: bool = False,
    resolve_imports: bool = True,
    builtin_names: Iterable[str] = BUILTIN_NAMES,
) -> Report:
    """Read an organism file and say everything about it. Never raises for what is in the file, or for its absence.

    Args:
        path: the file; errors show it as it is given here.
        environment: the variables for ``${...}``; ``None``, the default, for the process's and those of ``.env`` beside
            the file.
        export_environment: also put what ``.env`` adds into ``os.environ``.
        resolve_imports: import classes and handlers, and check them. This runs their modules' code, and puts the file's
            directory into ``sys.path``. Without it the configuration has import paths only.
        builtin_names: listeners that exist without being described; they may be named as peers.
    """
    file = str(path)
    try:
        data = _read(file)
        directory = Path(file).resolve().parent
        if environment is None:
            environment = read_environment(directory, export=export_environment)
    except InvalidConfiguration as error:
        return Report(None, error.problems)
    importing = directory if resolve_imports else None
    return _report(data, file, environment, importing, frozenset(builtin_names))


def place_problems(path: str | Path, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Problems that were found after the file had been read, with their places in it, in its order.

    Args:
        path: the file.
        problems: each with the path of the value that is wrong.
    """
    try:
        source = read_yaml(_read(str(path)))
    except InvalidConfiguration:
        return tuple(problems)  # the file has gone meanwhile
    return tuple(_placed(problems, source, str(path)))


class ConfigLoader:
    """Reads organism files. It keeps nothing: all methods are class methods."""

    @classmethod
    def load(cls, path: str | Path, *, environment: Mapping[str, str] | None = None) -> OrganismConfig:
        """The configuration in the file ``path``, with its imports resolved.

        Args:
            path: the file.
            environment: the variables for ``${...}``; ``None``, the default, for the process's and those of ``.env``.

        Raises:
            InvalidConfiguration: a `ConfigurationError` with everything that is wrong, a line each, as
                ``file:line:column path: what``; also when there is no such file.
        """
        return _config_of(load_report(path, environment=environment))

    @classmethod
    def load_report(cls, path: str | Path, **options: Any) -> Report:
        """The same as `load_report`, for whom the loader is at hand."""
        return load_report(path, **options)

    @classmethod
    def loads(
        cls, text: str | bytes, *, file: str = "", environment: Mapping[str, str] | None = None
    ) -> OrganismConfig:
        """The configuration in ``text``, without importing anything.

        Args:
            text: YAML, as text or as UTF-8 bytes.
            file: a name for errors to show.
            environment: the variables for ``${...}``; ``None``, the default, for the process's.

        Raises:
            InvalidConfiguration: everything that is wrong.
        """
        variables = os.environ if environment is None else environment
        return _config_of(_report(text, file, variables, None, BUILTIN_NAMES))

    @classmethod
    def _parse(cls, raw: dict[str, Any]) -> OrganismConfig:
        """The configuration in plain data with the keys of the file, without importing anything."""
        parsed = parse_document(raw, hints=Hints())
        return _config_of(Report(parsed.config, tuple(parsed.problems)))

    @classmethod
    def _parse_listener(cls, raw: dict[str, Any]) -> ListenerConfig:
        """One listener's configuration in plain data with the keys of the file, without importing anything."""
        return parse_listener(raw, hints=Hints())

    @classmethod
    def _resolve_imports(cls, listener: ListenerConfig) -> None:
        """Import what the listener names by path; it is changed in place."""
        resolve_listener(listener, Importer())

    @classmethod
    def _validate_import_path(cls, path: str, what: str) -> None:
        """Raise `InvalidConfiguration` if ``path`` has not the form of an import path."""
        fault = import_path_fault(path) if isinstance(path, str) else "an import path must be text"
        if fault is not None:
            raise InvalidConfiguration(f"{what}: {fault}")

    @classmethod
    def _validate_port(cls, port: int, what: str) -> None:
        """Raise `InvalidConfiguration` if ``port`` is not a TCP port."""
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
            raise InvalidConfiguration(f"{what}: Invalid port {port}: ports are 1 to 65535")


def _config_of(report: Report) -> OrganismConfig:
    if report.config is None:
        raise InvalidConfiguration(report.problems)
    return report.config


def _read(file: str) -> bytes:
    """The file's bytes; one more than allowed at most, which is enough to see that it is too large."""
    try:
        with open(file, "rb", opener=_open_regular) as stream:
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        text = "there is no such file"
    except IsADirectoryError:
        text = "is a directory; name the organism file in it"
    except OSError as error:
        text = f"cannot be read: {error.strerror or error}"
    except ValueError:
        text = "is not the name of a file"  # a NUL, or what the file system's encoding does not have
    raise InvalidConfiguration([Problem(text, file=file)])


def _open_regular(file: str, flags: int) -> int:
    """Open without waiting for a writer, which opening a pipe does, and refuse what is no file."""
    descriptor = os.open(file, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError
    raise OSError(0, "not a regular file")


def _report(
    data: str | bytes,
    file: str,
    environment: Mapping[str, str],
    importing: Path | None,
    builtin_names: frozenset[str],
) -> Report:
    source = read_yaml(data)
    if source.spots is None:
        return Report(None, tuple(_placed(source.problems, source, file)))
    hints = Hints()
    raw, unset = interpolate(source.data, environment)
    importer = _importer(raw, importing, hints)
    parsed = parse_document(raw, hints=hints, builtin_names=builtin_names, importer=importer)
    problems = _placed(_causes(source.problems, unset, parsed.problems), source, file)
    # With a mistake in the YAML, a list that is not there may only not have been read.
    sure = [warning for warning in parsed.warnings if not (source.problems and warning.path == ("listeners",))]
    warnings = tuple(_placed([*sure, *key_warnings(raw, environment)], source, file))
    if problems or parsed.config is None:
        return Report(None, tuple(problems), warnings)
    find_keys(parsed.config, environment)
    return Report(parsed.config, (), warnings)


def _importer(raw: Any, directory: Path | None, hints: Hints) -> Importer | None:
    if directory is None:
        return None
    add_import_directory(directory)
    roots = raw.get("import_roots") if isinstance(raw, dict) else None
    if roots is None:
        return Importer(directory=directory, hints=hints)
    if not isinstance(roots, list) or any(not isinstance(root, str) or module_path_fault(root) for root in roots):
        return None  # what is allowed is not known, so nothing is
    return Importer(roots, directory=directory, hints=hints)


def _causes(unreadable: Iterable[Problem], unset: list[Problem], found: list[Problem]) -> list[Problem]:
    """The problems without those that only follow from others.

    What is wrong as YAML, or as a variable, is not reported again as a wrong value; what is inside of a key that is
    refused need not be mended.
    """
    refused = {problem.path for problem in found if problem.at_key}
    causes = [*unreadable, *(problem for problem in unset if not _is_inside(problem.path[:-1], refused))]
    spoilt = {cause.path for cause in causes if cause.path}
    return causes + [
        problem
        for problem in found
        if not _is_inside(problem.path, spoilt) and not _is_inside(problem.path[:-1], refused)
    ]


def _is_inside(path: KeyPath, outer: set[KeyPath]) -> bool:
    return any(path[:length] in outer for length in range(1, len(path) + 1))


def _placed(problems: Iterable[Problem], source: Source, file: str) -> list[Problem]:
    """The problems with their places, in the order of the file, each once."""
    placed = []
    for problem in problems:
        line, column = problem.line, problem.column
        if not line:
            line, column = source.place(problem.path, at_key=problem.at_key)
        placed.append(problem.located(file, line, column))
    ordered = sorted(placed, key=lambda problem: (problem.line, problem.column, not problem.at_key))
    return list(dict.fromkeys(ordered))
