"""Environment variables inside string values.

::

    ${NAME}             the variable's value; a problem if it is not set
    ${NAME:-default}    the default if it is not set, or empty
    ${NAME:?message}    a problem with this message if it is not set, or empty
    $$                  a dollar sign

Done after parsing and in values only, so that a variable can change what a value says and never the structure around
it; what was put in is not looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from xml_pipeline.config.problems import KeyPath, Problem, one_line, quoted
from xml_pipeline.config.scalars import read_scalar

__all__ = ["Interpolated", "interpolate", "reread"]

_REFERENCE: Final = re.compile(r"\$\$|\$\{(?P<inside>[^{}]*)\}|\$\{")
_INSIDE: Final = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<how>:-|:\?)(?P<rest>.*))?", re.ASCII | re.DOTALL)
_DEEPEST: Final = 64


class Interpolated(str):
    """A string that came, wholly or in part, from the environment. It may be a secret: problems do not quote it."""

    __slots__ = ("whole",)
    whole: bool
    """The entire value was one ``${...}``, so that it may stand for a number or a boolean."""


class _Fault(Exception):
    pass


def interpolate(data: Any, environment: Mapping[str, str]) -> tuple[Any, list[Problem]]:
    """Replace the variables in all string values of ``data``.

    Args:
        data: plain data: dicts, lists, scalars. It is not changed.
        environment: the variables.

    Returns:
        A copy of the data, in which each value with a variable is an `Interpolated`, and the problems by path. A value
        with a problem is left as it was.
    """
    problems: list[Problem] = []
    return _walk(data, (), environment, problems), problems


def reread(value: Any) -> Any:
    """What an unquoted scalar of YAML would be, if ``value`` was one ``${...}`` as a whole; else ``value`` itself.

    For fields that hold a number or a boolean: ``port: ${PORT}`` is a number, ``name: ${NAME}`` is text whatever it
    says.
    """
    if not (isinstance(value, Interpolated) and value.whole):
        return value
    scalar = read_scalar(value.strip())
    return value if isinstance(scalar, str) else scalar  # still marked as coming from the environment


def _walk(value: Any, path: KeyPath, environment: Mapping[str, str], problems: list[Problem]) -> Any:
    if isinstance(value, str):
        if "$" not in value:
            return value
        try:
            return _replace(value, environment)
        except _Fault as fault:
            problems.append(Problem(str(fault), path))
            return value
    if not isinstance(value, dict | list):
        return value
    if len(path) > _DEEPEST:
        problems.append(Problem(f"nested deeper than {_DEEPEST} levels", path[:2]))
        return None
    if isinstance(value, dict):
        return {key: _walk(entry, (*path, key), environment, problems) for key, entry in value.items()}
    return [_walk(entry, (*path, index), environment, problems) for index, entry in enumerate(value)]


def _replace(value: str, environment: Mapping[str, str]) -> str:
    found = False

    def one(match: re.Match[str]) -> str:
        nonlocal found
        if match[0] == "$$":
            return "$"
        found = True
        return _variable(match["inside"], environment)

    text = _REFERENCE.sub(one, value)
    if not found:
        return text
    result = Interpolated(text)
    only = _REFERENCE.fullmatch(value)
    result.whole = only is not None
    return result


def _variable(inside: str | None, environment: Mapping[str, str]) -> str:
    if inside is None:
        raise _Fault("'${' without '}'; write '$$' for a dollar sign")
    match = _INSIDE.fullmatch(inside)
    if match is None:
        raise _Fault(f"{quoted('${' + inside + '}')} does not name a variable; write '$$' for a dollar sign")
    name, how, rest = match["name"], match["how"], match["rest"]
    value = environment.get(name)
    if how == ":-":
        return value or rest
    if how == ":?" and not value:
        raise _Fault(f"the environment variable {name} is needed: {one_line(rest) or 'not set'}")
    if value is None:
        raise _Fault(f"the environment variable {name} is not set")
    return value
