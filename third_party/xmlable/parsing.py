"""The hardened parser, and reading documents."""

from __future__ import annotations

import threading

from lxml import etree, objectify
from lxml.etree import _Element

from .errors import DecodeError

__all__ = ["parsed", "plain"]

_OWN = threading.local()


def _parser() -> etree.XMLParser:
    """Return this thread's parser: lxml's parsers may not be used by two threads at once."""
    parser: etree.XMLParser | None = getattr(_OWN, "parser", None)
    if parser is None:
        parser = _OWN.parser = etree.XMLParser(
            encoding="utf-8",
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            dtd_validation=False,
            attribute_defaults=False,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
            recover=False,
        )
    return parser


def parsed(text: str | bytes) -> _Element:
    """Parse one document: UTF-8 only, no DOCTYPE, no entities, no network; comments and PIs are dropped.

    Raises:
        DecodeError: it is not well-formed, or not allowed.
    """
    try:
        root = etree.fromstring(text.encode() if isinstance(text, str) else text, _parser())
    except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise DecodeError(f"not well-formed XML: {error}") from None
    document: etree._ElementTree = root.getroottree()
    if document.docinfo.internalDTD is not None:
        raise DecodeError("a DOCTYPE is not allowed")
    return root


def plain(element: _Element) -> _Element:
    """Return an objectify element as an ordinary one: the former's children are not what its items are."""
    if isinstance(element, objectify.ObjectifiedElement):
        return parsed(etree.tostring(element, encoding="utf-8", with_tail=False))
    return element
