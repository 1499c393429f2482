"""What is wrong with a configuration, and where.

A `Problem` is one line of text with a place. Every stage of reading collects problems instead of raising at the first,
so that one run of ``xml-pipeline check`` shows all there is to mend; `InvalidConfiguration` carries them out.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

from xml_pipeline.errors import ConfigurationError

__all__ = ["Hints", "InvalidConfiguration", "KeyPath", "Problem", "format_path", "one_line", "quoted"]

KeyPath = tuple[str | int, ...]
"""Where a value stands in the configuration: keys and list indices, counted from 0."""

_LONGEST_QUOTE = 80
_LONGEST_TEXT = 400
_MOST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, or worth a warning.

    Args:
        text: what is wrong and how to mend it, one line.
        path: the keys and indices that lead to the value; empty for the file as a whole.
        file: the file's name as the user gave it; empty when there is none.
        line: counted from 1; 0 when the place is not known.
        column: counted from 1 in characters; 0 when the place is not known.
        at_key: the problem is the key itself (an unknown or repeated one), not its value.
    """

    text: str
    path: KeyPath = ()
    file: str = ""
    line: int = 0
    column: int = 0
    at_key: bool = field(default=False, compare=False, repr=False)

    def located(self, file: str, line: int, column: int) -> Problem:
        """The same problem, with its place."""
        return dataclasses.replace(self, file=file, line=line, column=column)

    def under(self, prefix: KeyPath) -> Problem:
        """The same problem, with its path beginning at ``prefix``."""
        return dataclasses.replace(self, path=prefix + self.path)

    def __str__(self) -> str:
        place = self.file if self.file.isprintable() else quoted(self.file)
        if self.line:
            place = f"{place}:{self.line}:{self.column}" if place else f"{self.line}:{self.column}"
        where = " ".join(part for part in (place, format_path(self.path)) if part)
        return f"{where}: {self.text}" if where else self.text


class InvalidConfiguration(ConfigurationError, ValueError):
    """A configuration is wrong; its text has one problem per line.

    It is a ``ValueError`` too, because that is what Python programs expect of a constructor given a bad argument.

    Args:
        problems: everything that was found, in the order it is to be shown; or one text.
    """

    problems: tuple[Problem, ...]
    """Everything that was found. The text shows the first hundred."""

    def __init__(self, problems: Iterable[Problem] | str) -> None:
        found = (Problem(problems),) if isinstance(problems, str) else tuple(problems)
        lines = [str(problem) for problem in found[:_MOST_SHOWN]]
        if len(found) > _MOST_SHOWN:
            lines.append(f"... and {len(found) - _MOST_SHOWN} more")
        super().__init__("\n".join(lines))
        self.problems = found


class Hints:
    """Finds "did you mean" suggestions.

    Comparing a misspelt name with thousands of others takes milliseconds; a file of thousands of misspelt names must
    not take minutes. So of each kind of name only the first ``budget`` different ones are answered.

    Args:
        budget: how many suggestions are looked for, for each kind of name.
    """

    def __init__(self, budget: int = 8) -> None:
        self._budget = budget
        self._answers: dict[str, dict[str, str]] = {}

    def did_you_mean(self, word: str, candidates: Iterable[str], kind: str) -> str:
        """``", did you mean 'x'?"`` for the candidate nearest to ``word``, or an empty string.

        Args:
            word: what was written.
            candidates: what could have been meant.
            kind: which names these are; the same kind has the same candidates.
        """
        answers = self._answers.setdefault(kind, {})
        if word not in answers:
            if len(answers) >= self._budget:
                return ""
            answers[word] = self._nearest(word, candidates)
        return answers[word]

    def _nearest(self, word: str, candidates: Iterable[str]) -> str:
        if len(word) > _LONGEST_QUOTE:
            return ""
        by_lower = {candidate.lower(): candidate for candidate in candidates if len(candidate) <= _LONGEST_QUOTE}
        found = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
        return f", did you mean {quoted(by_lower[found[0]])}?" if found else ""


def format_path(path: KeyPath) -> str:
    """``path`` as people write it: ``listeners[1].peers[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("-", "_").isidentifier() and len(part) <= _LONGEST_QUOTE:
            text += f".{part}" if text else part
        else:
            text += f"[{quoted(part)}]"
    return text


def quoted(text: str) -> str:
    """``text`` in quotes on one line, shortened when it is long; characters that do not print are escaped."""
    return repr(text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 3] + "...")


def one_line(text: str) -> str:
    """``text`` on one line, shortened when it is long; for the texts of foreign exceptions."""
    flat = " ".join(text.split())
    flat = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in flat)
    return flat if len(flat) <= _LONGEST_TEXT else flat[: _LONGEST_TEXT - 3] + "..."
