"""What the sequence factory is asked with."""

from __future__ import annotations

from dataclasses import dataclass

from third_party.xmlable import xmlify

__all__ = ["SequenceRequest"]


@xmlify
@dataclass(frozen=True, slots=True)
class SequenceRequest:
    """Check a sequence, and run it if its steps fit together. The fields are those of `SequenceStart`.

    Args:
        steps: the listeners' names, separated by commas; a comma inside a name follows a backslash.
        payload: XML text, one element: what the first step is given.
        return_to: empty, or the requester's own name: the answer goes to whoever asked.
        sequence_id: comes back in the answer; made up when empty.
        timeout: seconds for all steps together; 0 for no limit but the listeners' own.
    """

    steps: str = ""
    payload: str = ""
    return_to: str = ""
    sequence_id: str = ""
    timeout: float = 0.0
