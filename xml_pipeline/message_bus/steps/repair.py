"""From bytes to a tree.

Strict first, always. Only an ingress configured ``repair: lenient`` has an envelope mended, within the narrow rules of
`model_output`, and what was mended is recorded in the state. Everything is bounded before it is canonicalised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.steps.bounds import Bounds, check_shape, check_size
from xml_pipeline.message_bus.steps.model_output import recover_roots
from xml_pipeline.message_bus.steps.step import step
from xml_pipeline.strict_xml import parse_strict

if TYPE_CHECKING:
    from xml_pipeline.message_bus.message_state import MessageState
    from xml_pipeline.message_bus.steps.step import Step

__all__ = ["Bounds", "make_repair", "repair", "repair_step"]


def make_repair(bounds: Bounds, lenient: bool = False) -> Step:
    """The repair step of one ingress.

    ``raw_bytes`` becomes ``envelope_tree``; the bytes are kept in ``wire`` until canonicalisation replaces them.

    Args:
        bounds: how large a message may be.
        lenient: mend an envelope that is not well-formed, as `recover_roots` does; it must come to exactly one root.
            What was mended is added to ``repairs``.

    Returns:
        A step. It raises `ValidationError` for missing, oversize or malformed bytes.
    """
    harmless = bounds.harmless_length

    def repair(state: MessageState) -> MessageState:
        raw = state.raw_bytes
        if raw is None:
            raise ValidationError("no raw_bytes")
        check_size(raw, bounds)
        try:
            root = parse_strict(raw)
        except ValidationError:
            if not lenient:
                raise
            raw, repairs = _mend(raw, bounds)
            root = parse_strict(raw)
            state.repairs += repairs
        if len(raw) >= harmless:
            check_shape(raw, root, bounds)
        state.envelope_tree = root
        state.wire = raw
        state.raw_bytes = None
        return state

    return repair


def _mend(raw: bytes, bounds: Bounds) -> tuple[bytes, tuple[str, ...]]:
    recovered = recover_roots(raw, bounds)
    if len(recovered.roots) != 1:
        raise ValidationError(f"one root element expected, {len(recovered.roots)} found")
    return recovered.roots[0], recovered.repairs


repair = make_repair(Bounds())
repair.__doc__ = "The strict repair step with default bounds: see `make_repair`."

repair_step = step(repair)
