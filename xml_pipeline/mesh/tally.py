"""`Tally`: what an agent has done so far, counted on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xml_pipeline.mesh.errors import MeshError

__all__ = ["Tally"]

_LONGEST_TEXT = 256


class Tally:
    """The figures of one agent on this host, since it is served. They are counted with every request, hence plain.

    Attributes:
        requests: that arrived.
        errors: requests that ended in one.
        nanoseconds: that handlers took, all together; waiting for a slot is not among them.
        last_error: code and text of the last one, as its caller was told; empty for none.
    """

    __slots__ = ("errors", "last_error", "nanoseconds", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.nanoseconds = 0
        self.last_error = ""

    @property
    def average(self) -> int:
        """Nanoseconds for each request; 0 where there was none."""
        return self.nanoseconds // self.requests if self.requests else 0

    def failed(self, error: MeshError) -> None:
        """A request ended in this."""
        self.errors += 1
        self.last_error = f"{error.code}: {error.message}"[:_LONGEST_TEXT]
