"""From a tree to canonical bytes, and to the tree of exactly these bytes.

Everything behind this step reads one document: the tree it validates is the tree of the bytes that are signed,
journaled and forwarded. Parsing again is spared when the input was canonical, as everything this project writes is.

Source: Exclusive XML Canonicalization 1.0 (https://www.w3.org/TR/xml-exc-c14n/), without comments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.steps.step import step
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

if TYPE_CHECKING:
    from xml_pipeline.message_bus.message_state import MessageState

__all__ = ["c14n", "c14n_step"]


def c14n(state: MessageState) -> MessageState:
    """Put the envelope's exclusive canonical bytes into ``wire``, and their tree into ``envelope_tree``.

    Raises:
        ValidationError: there is no tree, it has no canonical form, or its canonical form does not stand for itself.
    """
    tree = state.envelope_tree
    if tree is None:
        raise ValidationError("no envelope_tree")
    canonical = canonical_bytes(tree)
    if canonical != state.wire:
        if b"<?" in canonical:
            # A tree that somebody made may hold processing instructions, which only parsing drops.
            canonical = canonical_bytes(parse_strict(canonical))
        state.envelope_tree = reparsed = parse_strict(canonical)
        # Such a tree can also hold what its own text does not say.
        if canonical_bytes(reparsed) != canonical:
            raise ValidationError("the canonical form is not its own canonical form")
        state.wire = canonical
    return state


c14n_step = step(c14n)
