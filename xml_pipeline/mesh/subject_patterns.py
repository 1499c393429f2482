"""Patterns of subjects: what one fits, others fit too; what two of them have in common.

A pattern is tokens joined by dots, of which ``*`` fits any one token, and ``>`` at the end one or more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

__all__ = ["common", "holds"]

_NO_TOKEN: Final = ""  # stands for a token that no pattern names


def holds(wide: Iterable[str], narrow: str) -> bool:
    """Whether each subject that ``narrow`` fits is one that at least one of ``wide`` fits.

    ``a.*`` and ``a.*.>`` together hold ``a.>``, though neither does so alone.
    """
    ours = [each.split(".") for each in wide]
    longest = max((len(each) for each in ours), default=0)
    return all(any(_fits(each, subject) for each in ours) for subject in _hardest(narrow.split("."), longest))


def _hardest(pattern: list[str], longest: int) -> Iterator[list[str]]:
    """Subjects that the pattern fits, such that who fits them fits all of it: a wildcard is what only a wildcard fits,
    and the rest is as long as any pattern is, and longer."""
    subject = [_NO_TOKEN if token in ("*", ">") else token for token in pattern]
    yield subject
    if pattern[-1] == ">":
        for more in range(1, longest + 1):
            yield subject + [_NO_TOKEN] * more


def _fits(pattern: list[str], subject: list[str]) -> bool:
    for index, token in enumerate(pattern):
        if token == ">":
            return len(subject) > index
        if index >= len(subject) or token not in ("*", subject[index]):
            return False
    return len(subject) == len(pattern)


def common(one: str, other: str) -> str:
    """The pattern of the subjects that both fit; empty if there are none."""
    ours, theirs = one.split("."), other.split(".")
    both: list[str] = []
    for index in range(max(len(ours), len(theirs))):
        if index >= min(len(ours), len(theirs)):
            return ""
        left, right = ours[index], theirs[index]
        if ">" in (left, right):
            return ".".join(both + (theirs if left == ">" else ours)[index:])
        if left != right and "*" not in (left, right):
            return ""
        both.append(right if left == "*" else left)
    return ".".join(both)
