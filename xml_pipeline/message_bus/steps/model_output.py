"""XML as models write it: one or several elements, with prose and fences around them, and the odd stray character.

Strict parsing first. Only what is not well-formed is mended, by the rules of `almost_xml`; what comes out of that is
parsed strictly, canonicalised, parsed strictly again, and must then be its own canonical form.
"""

from __future__ import annotations

from dataclasses import dataclass

from xml_pipeline.errors import ValidationError
from xml_pipeline.message_bus.steps.almost_xml import AlmostXml
from xml_pipeline.message_bus.steps.bounds import Bounds, check_shape, check_size
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

__all__ = ["RecoveredOutput", "recover_roots"]


@dataclass(frozen=True, slots=True)
class RecoveredOutput:
    """What was found in model output.

    Args:
        roots: the exclusive canonical bytes of each root element, in the order of the text; at least one.
        repairs: what had to be mended, in words; empty for one well-formed document.
    """

    roots: tuple[bytes, ...]
    repairs: tuple[str, ...]


def recover_roots(raw: bytes, bounds: Bounds, *, strict: bool = False) -> RecoveredOutput:
    """Find the root elements in what a model wrote.

    Args:
        raw: UTF-8 text.
        bounds: how large it may be, before and after mending.
        strict: mend nothing: ``raw`` must be one well-formed document.

    Returns:
        The canonical bytes of each root, and a record of the repairs.

    Raises:
        ValidationError: it is too large, not UTF-8, cut, or has a defect that is not mended.
    """
    check_size(raw, bounds)
    try:
        parse_strict(raw)
    except ValidationError:
        if strict:
            raise
    else:
        return RecoveredOutput((_fixed_point(raw, bounds),), ())
    mended = AlmostXml(_decode(raw), bounds)
    roots = [root.encode() for root in mended.roots]
    # Escaping makes it longer, up to five times.
    check_size(b"".join(roots), bounds)
    return RecoveredOutput(tuple(_fixed_point(root, bounds) for root in roots), mended.repairs)


def _decode(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ValidationError(f"not UTF-8: {error.reason} at byte {error.start}") from None


def _fixed_point(raw: bytes, bounds: Bounds) -> bytes:
    root = parse_strict(raw)
    check_shape(raw, root, bounds)
    canonical = canonical_bytes(root)
    if canonical_bytes(parse_strict(canonical)) != canonical:
        raise ValidationError("the canonical form is not its own canonical form")
    return canonical
