"""What an import path may look like. Checked before anything is imported: importing runs code."""

from __future__ import annotations

import keyword
from typing import Final

from xml_pipeline.config.problems import quoted

__all__ = ["import_path_fault", "is_within", "module_path_fault", "split_path"]

_LONGEST: Final = 300


def import_path_fault(path: str) -> str | None:
    """Why ``path`` is not an import path, or ``None`` if it is one.

    An import path is ``package.module.attr`` or ``package.module:attr``; the attribute may be nested. Relative paths,
    file names and dunder names (``__class__``, ``__globals__``) are refused: a configuration names what a module
    offers, and does not dig in its insides.
    """
    module, colon, attribute = path.partition(":")
    if colon and (not module or not attribute or ":" in attribute):
        return f"an import path has one colon, between module and attribute: {quoted(path)}"
    return module_path_fault(path.replace(":", ".", 1))


def module_path_fault(path: str) -> str | None:
    """Why ``path`` is not a dotted path of Python names, or ``None`` if it is one."""
    if not path:
        return "an import path must not be empty"
    if len(path) > _LONGEST:
        return f"an import path has at most {_LONGEST} characters"
    if ".." in path:
        return f"an import path must not have consecutive dots: {quoted(path)}"
    for part in path.split("."):
        if not part.isidentifier() or keyword.iskeyword(part):
            return f"an import path consists of dotted Python identifiers: {quoted(path)}"
        if part.startswith("__") and part.endswith("__"):
            return f"Dunder names are not allowed in an import path: {quoted(path)}"
    return None


def split_path(path: str) -> tuple[list[str], list[str] | None]:
    """The names before and after the colon; ``None`` after it when there is none."""
    module, colon, attribute = path.partition(":")
    return module.split("."), attribute.split(".") if colon else None


def is_within(path: str, roots: tuple[str, ...]) -> bool:
    """Whether ``path`` is one of the packages ``roots``, or lies in one."""
    dotted = path.replace(":", ".")
    return any(dotted == root or dotted.startswith(f"{root}.") for root in roots)
