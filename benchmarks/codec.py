"""The payload codec against pydantic-xml and xsdata: the same documents, bytes to objects and back to bytes.

Each library is used as its documentation recommends, with everything that can be reused made beforehand (see `rivals`).
``x ours`` says how many times as long as ours it takes; ours is a dataclass, whose decoder checks every value.
pydantic-xml's models validate too, as ours do when the class is a pydantic model, which is a row of its own; xsdata's
are dataclasses, and do not.

Before anything is timed, each must read the same data, and write what is, canonically, the very document. Validation
against a schema is not part of this: the others have none at run time, and what it costs the pump is in ``steps``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from benchmarks.measure import Baselines, Case, Sample, Stopwatch, Target
from benchmarks.rivals.ours import DATACLASSES, MODELS
from benchmarks.rivals.rival import NESTED, SMALL, Binding, Rival
from benchmarks.size import Size
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

__all__ = ["baselines", "cases", "installed"]

_OTHERS = {"pydantic_xml": "PYDANTIC_XML", "xsdata": "XSDATA"}
_TARGET = Target(2.0, "ours", at_least=True)


def installed() -> list[Rival]:
    """Ours, and the others that are installed."""
    others = [
        getattr(import_module(f"benchmarks.rivals.with_{module}"), name)
        for module, name in _OTHERS.items()
        if find_spec(module) is not None
    ]
    return [DATACLASSES, MODELS, *others]


def baselines(size: Size) -> Baselines:
    """Ours."""
    return {_label(what): measure for what, measure in _tasks(DATACLASSES, size).items()}


def cases(size: Size) -> list[Case]:
    """All that are installed, reading and writing both documents."""
    found = []
    for what in _tasks(DATACLASSES, size):
        for rival in installed():
            target = _TARGET if rival.name == "pydantic-xml" and "small" in what else None
            against = {"ours": _label(what)} if rival is not DATACLASSES else {}
            found.append(Case("codec", f"{what}: {rival.name}", _tasks(rival, size)[what], against, target))
    return found


def _label(what: str) -> str:
    return f"codec, {what}"


def _tasks(rival: Rival, size: Size) -> dict[str, Callable[[], Sample]]:
    return {
        "decode small": _reading(rival.small, DATACLASSES.small, SMALL, size),
        "encode small": _writing(rival.small, SMALL, size),
        "decode nested": _reading(rival.nested, DATACLASSES.nested, NESTED, size),
        "encode nested": _writing(rival.nested, NESTED, size),
    }


def _reading(binding: Binding, reference: Binding, document: bytes, size: Size) -> Callable[[], Sample]:
    read = binding.read
    if _plain(read(document)) != _plain(reference.read(document)):
        raise AssertionError(f"read something else: {read(document)!r}")

    def run(count: int) -> None:
        for _ in range(count):
            read(document)

    return _timed(run, size)


def _writing(binding: Binding, document: bytes, size: Size) -> Callable[[], Sample]:
    write, value = binding.write, binding.read(document)
    if canonical_bytes(parse_strict(write(value))) != document:
        raise AssertionError(f"wrote something else: {write(value)!r}")

    def run(count: int) -> None:
        for _ in range(count):
            write(value)

    return _timed(run, size)


def _timed(run: Callable[[int], None], size: Size) -> Callable[[], Sample]:
    def measure() -> Sample:
        run(size.warm_up)
        watch = Stopwatch()
        run(size.loops)
        return watch.sample(size.loops)

    return measure


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.model_dump()
