"""What sequences and buffers answer when they fail, and how one above the other recognises it.

To whoever asked, these are answers like any other. To a sequence or buffer that has a sequence or buffer for a step or
target they are failures: it must not hand them on as if they were results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from third_party.xmlable import xmlify

__all__ = ["BufferError", "SequenceError", "failure_in"]


@xmlify
@dataclass(frozen=True, slots=True)
class SequenceError:
    """The sequence could not be begun, or a step did not end well. Later steps have not been run.

    Also when the last step's answer is too large for a message; then it is the last step that is named.

    Args:
        sequence_id: as it was asked for.
        failed_step: the step's name.
        step_index: its place, from 0.
        error: what went wrong, in a sentence.
        code: one of the codes of `SystemError`.
    """

    sequence_id: str = ""
    failed_step: str = ""
    step_index: int = 0
    error: str = ""
    code: str = ""


@xmlify
@dataclass(frozen=True, slots=True)
class BufferError:
    """There are no results: the buffer could not be begun, or they are too large for a message.

    Args:
        buffer_id: as it was asked for.
        error: what is wrong, in a sentence.
        code: one of the codes of `SystemError`.
    """

    buffer_id: str = ""
    error: str = ""
    code: str = ""


def failure_in(answer: Any) -> SequenceError | BufferError | None:
    """The answer, if it tells that a sequence or buffer has failed."""
    return answer if isinstance(answer, SequenceError | BufferError) else None
