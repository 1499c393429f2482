"""XML as every door of this project accepts it, and its canonical form.

`parse_strict` is the only way from foreign bytes to a tree. It accepts well-formed, namespace-well-formed UTF-8 without
a document type declaration, and nothing else; it never mends anything. `canonical_bytes` is the only way back.

What libxml2 would let through, and why it is refused here:

=============================  =======================================================================================
document type declaration      the only source of entities, of defaulted attributes and of amplification attacks
other encodings                UTF-7 and its kind hide mark-up from whoever reads the bytes before the parser does
relative namespace names       canonicalisation of them is undefined; treating them as empty lets digests match (see
                               "Namespaces in XML", 3rd edition, errata; Canonical XML 1.0, section 1.3)
``& < > "`` in namespace names libxml2 writes them unescaped into the canonical form, which then means something else
=============================  =======================================================================================

Comments and processing instructions are dropped while parsing: they carry no meaning here, and they would split the
text around them, so that a reader of the first half and a reader of the whole disagree.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Final

from lxml import etree

from xml_pipeline.errors import ValidationError

if TYPE_CHECKING:
    from lxml.etree import XMLParser, _Element

__all__ = ["canonical_bytes", "parse_own", "parse_strict"]

_BOM: Final = b"\xef\xbb\xbf"
_XML_DECLARATION: Final = (b"<?xml", _BOM)
_EXCLAMATION_MARK: Final = ord("!")
_MAX_REASON: Final = 300

_ENCODING = re.compile(rb"<\?xml\s[^>]*?\sencoding\s*=\s*[\"']([^\"']*)[\"']")
_DOCTYPE_IN_PROLOGUE = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s|<\?.*?\?>|<!--.*?-->)*+<!DOCTYPE", re.DOTALL)

# Matches a namespace declaration that is not plainly good. A match proves nothing (it may be text): it asks for a look
# at the tree. No match proves that there is nothing to look for. The two usual forms stand first, for speed.
_NAMESPACE: Final = r"[A-Za-z][A-Za-z0-9+.\-]*:[^\s\"'&<>]*"
_DOUBTFUL_NAMESPACE = re.compile(
    rf"xmlns(?!=\"(?:\"|https://[^\s\"'&<>]*\")|(?::[^\s=<>\"']+)?=(?:\"{_NAMESPACE}\"|'{_NAMESPACE}'|''))".encode()
)
_GOOD_NAMESPACE = re.compile(_NAMESPACE)

_local = threading.local()


def parse_strict(raw: bytes) -> _Element:
    """Parse one document, or refuse it.

    Args:
        raw: the document in UTF-8, with or without byte order mark and XML declaration. Its length is not limited here.

    Returns:
        The root element, without comments and processing instructions anywhere in the tree.

    Raises:
        ValidationError: it is not well-formed, or uses what this module's table refuses.
    """
    if not raw.isascii():
        _require_utf8(raw)
    if raw.startswith(_XML_DECLARATION):
        _require_declared_utf8(raw)
    # "!" is the cheapest sign that there might be a "<!DOCTYPE"; most messages have none.
    declares = _EXCLAMATION_MARK in raw and b"<!DOCTYPE" in raw
    if declares and _DOCTYPE_IN_PROLOGUE.match(raw):
        raise ValidationError("a document type declaration is not allowed")
    root = parse_own(raw)
    if declares and root.getroottree().docinfo.internalDTD is not None:
        raise ValidationError("a document type declaration is not allowed")
    if _DOUBTFUL_NAMESPACE.search(raw):
        _require_good_namespaces(root)
    return root


def canonical_bytes(element: _Element) -> bytes:
    """The exclusive canonical form of an element and what is below it, comments left out, tail left out.

    Source: Exclusive XML Canonicalization 1.0 (https://www.w3.org/TR/xml-exc-c14n/), without ``#WithComments``.

    Args:
        element: any element; namespaces declared above it are taken along where they are used.

    Raises:
        ValidationError: it has no canonical form, e.g. because of an entity reference or a relative namespace name.
    """
    try:
        return etree.tostring(element, method="c14n", exclusive=True, with_comments=False)
    except (etree.LxmlError, UnicodeError, ValueError) as error:
        raise ValidationError(f"no canonical form: {error}") from None


def parse_own(raw: bytes) -> _Element:
    """Parse bytes that this process wrote itself: the same strict parser, without the looks at what is foreign.

    Raises:
        ValidationError: they are not well-formed, which is a defect of whoever wrote them.
    """
    try:
        parser: XMLParser = _local.parser
    except AttributeError:
        parser = _local.parser = _new_parser()
    try:
        # Cheaper than fromstring() by a quarter, with the same verdict on everything we could think of.
        parser.feed(raw)
        return parser.close()
    except etree.LxmlError as error:
        del _local.parser
        log = parser.feed_error_log
        # close() hides an undefined entity behind "no element found"; the log names it.
        reason = log[0].message if len(log) else str(error)
        raise ValidationError(f"not well-formed: {reason.strip()[:_MAX_REASON]}") from None
    except BaseException:
        # Interrupted half-way, e.g. by KeyboardInterrupt: the next document must not continue this one.
        del _local.parser
        raise


def _new_parser() -> XMLParser:
    return etree.XMLParser(
        encoding="utf-8",  # overrides what the document declares
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
        collect_ids=False,
    )


def _require_utf8(raw: bytes) -> None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise ValidationError(f"not UTF-8: {error.reason} at byte {error.start}") from None


def _require_declared_utf8(raw: bytes) -> None:
    declared = _ENCODING.match(raw.removeprefix(_BOM))
    if declared and declared[1].lower() not in (b"utf-8", b"utf8"):
        raise ValidationError(f"not UTF-8: declares {declared[1][:40].decode('ascii', 'replace')!r}")


def _require_good_namespaces(root: _Element) -> None:
    for _, (_, uri) in etree.iterwalk(root, events=("start-ns",)):
        if uri and not _GOOD_NAMESPACE.fullmatch(uri):
            raise ValidationError(f"the namespace name {uri[:_MAX_REASON]!r} is relative or not a URI")
