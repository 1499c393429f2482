"""Turns what pydantic found into problems in our own words.

Values are quoted so that people recognise them, except values that came from the environment: these may be secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError

from xml_pipeline.config.interpolation import Interpolated
from xml_pipeline.config.problems import Hints, InvalidConfiguration, KeyPath, Problem, one_line, quoted
from xml_pipeline.config.scope import out_of_scope

__all__ = ["Elsewhere", "describe", "kind_of", "missing"]

Elsewhere = Callable[[str, type[BaseModel] | None], str | None]
"""Given a key that the model does not have, says in which sections it belongs, or ``None``."""

_EXPECTED: Final = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
    "callable_type": "a function",
    "is_type": "a class",
    "is_instance_of": "an instance of the right class",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_MISSING: Final = {
    "organism": ": an organism has at least a name",
    "description": ": say in a sentence what the listener is for, its callers and agents read it",
    "handler": ": the import path of an async function; an agent whose prompt goes to a model ('agent: true') needs "
    "none",
    "payload_class": ": the import path of a dataclass or pydantic model, or a list of them",
    "provider": ": whose protocol it speaks, e.g. openai, or openai-compatible for a server of your own",
    "listener": ": the listener's name",
    "peers": ": whom the listener may call, [] for nobody",
}
_OLD_BOOLEANS: Final = frozenset({"yes", "no", "on", "off", "y", "n"})


def describe(
    error: ValidationError,
    model: type[BaseModel],
    raw: Any,
    hints: Hints,
    prefix: KeyPath = (),
    elsewhere: Elsewhere | None = None,
) -> list[Problem]:
    """The problems that ``error`` tells of.

    Args:
        error: what validating ``raw`` by ``model`` raised.
        model: knows the names of fields, for suggestions.
        raw: what was validated.
        hints: for suggestions.
        prefix: where ``raw`` stands in the configuration.
        elsewhere: knows the keys of other sections; ``None`` when there are none.
    """
    problems: list[Problem] = []
    for entry in error.errors(include_url=False):
        inner = entry.get("ctx", {}).get("error")
        if isinstance(inner, InvalidConfiguration):
            problems += [problem.under(prefix + entry["loc"]) for problem in inner.problems]
            continue
        problems.append(_problem(entry, model, raw, hints, prefix, elsewhere))
    return problems


def kind_of(value: Any) -> str:
    """What ``value`` is, in the words of somebody who wrote YAML; secrets are not shown."""
    if isinstance(value, Interpolated):
        return "the value of an environment variable"
    if value is None:
        return "blank"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    if isinstance(value, int | float):
        return one_line(f"{value:g}") if isinstance(value, float) else "a number" if abs(value) > 10**18 else str(value)
    if isinstance(value, list | tuple):
        return "a list"
    return "a mapping" if isinstance(value, dict) else f"a {type(value).__name__}"


def _problem(
    entry: Any, model: type[BaseModel], raw: Any, hints: Hints, prefix: KeyPath, elsewhere: Elsewhere | None
) -> Problem:
    kind: str = entry["type"]
    path, value = _locate(raw, entry["loc"], keep_last=kind == "missing")
    if kind in ("extra_forbidden", "no_such_attribute"):
        where = prefix + entry["loc"]
        text = out_of_scope(where) or _unknown_key(entry["loc"], model, hints, elsewhere)
        return Problem(text, where, at_key=True)
    if kind == "missing":
        return Problem(missing(path[-1] if path else ""), prefix + path)
    return Problem(_wrong_value(kind, entry, value, hints), prefix + path)


def _wrong_value(kind: str, entry: Any, value: Any, hints: Hints) -> str:
    context: dict[str, Any] = entry.get("ctx", {})
    if kind in _EXPECTED:
        if value is None:
            return f"is blank, must be {_EXPECTED[kind]}"
        also = "; in YAML 1.2 only true and false are booleans" if _is_old_boolean(kind, value) else ""
        return f"must be {_EXPECTED[kind]}, not {kind_of(value)}{also}"
    if kind == "literal_error":
        near = (
            hints.did_you_mean(value, _choices(context["expected"]), context["expected"]) if type(value) is str else ""
        )
        return f"must be {context['expected']}, not {kind_of(value)}{near}"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"must be {words} {_number(context[name])}, not {kind_of(value)}"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "finite_number":
        return "must be a finite number"
    if kind == "frozen_instance":
        return "cannot be changed"
    if kind == "value_error":
        return one_line(str(context["error"]))
    return one_line(entry["msg"])


def _number(bound: float) -> str:
    return f"{int(bound):,}" if bound == int(bound) else f"{bound:g}"


def _is_old_boolean(kind: str, value: Any) -> bool:
    return kind == "bool_type" and isinstance(value, str) and value.lower() in _OLD_BOOLEANS


def _choices(expected: str) -> Iterator[str]:
    """The words in pydantic's ``'a', 'b' or 'c'``."""
    yield from expected.split("'")[1::2]


def missing(key: str | int) -> str:
    """What to say when ``key`` is needed and not there."""
    return f"is missing{_MISSING.get(str(key), '')}"


def _unknown_key(path: KeyPath, model: type[BaseModel], hints: Hints, elsewhere: Elsewhere | None) -> str:
    owner = _model_at(model, path[:-1])
    place = None if elsewhere is None else elsewhere(str(path[-1]), owner)
    if place is not None:
        return f"unknown key here; {quoted(str(path[-1]))} belongs {place}"
    names = [field.alias or name for name, field in owner.model_fields.items()] if owner is not None else []
    return f"unknown key{hints.did_you_mean(str(path[-1]), names, owner.__name__ if owner is not None else '')}"


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The model of the section at ``path``."""
    kind: Any = model
    for part in path:
        if isinstance(part, int):
            kind = get_args(kind)[0] if get_origin(kind) is list else None
        else:
            field = kind.model_fields.get(part) if _is_model(kind) else None
            kind = None if field is None else field.annotation
    return kind if _is_model(kind) else None


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _locate(raw: Any, loc: KeyPath, *, keep_last: bool) -> tuple[KeyPath, Any]:
    """The part of ``loc`` that exists in ``raw``, and the value there.

    A validator may have turned the value into another shape before an error was found in it, and pydantic then names
    places inside that shape.
    """
    path: KeyPath = ()
    value = raw
    for index, part in enumerate(loc):
        if _holds(value, part):
            value = value[part]
        elif keep_last and index == len(loc) - 1:
            return (*path, part), None
        else:
            continue
        path = (*path, part)
    return path, value


def _holds(value: Any, part: str | int) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
