"""The ``<message>`` envelope. The only module that knows its syntax.

::

    <message xmlns="https://xml-pipeline.org/ns/envelope/v1">
      <meta>
        <from>name</from>
        <to>name</to>               optional
        <thread>uuid</thread>
        <x:any xmlns:x="urn:x"/>    any number of extensions, each in a namespace of its own
      </meta>
      <Payload xmlns="">...</Payload>      one or more, in no namespace
    </message>

A payload is in no namespace, and the envelope declares a default one. Whoever puts the one into the other must write
``xmlns=""``, or the payload is silently adopted by the envelope's namespace; here it is `message_text` and
`build_envelope` that see to it.
"""

from __future__ import annotations

import copy
import functools
import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from lxml import etree

from xml_pipeline.errors import ValidationError
from xml_pipeline.strict_xml import canonical_bytes, parse_strict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lxml.etree import XMLSchema, _Element

    from third_party.xmlable import Codec

__all__ = [
    "ENVELOPE_NAMESPACE",
    "build_envelope",
    "canonical_elements",
    "element_name",
    "envelope_schema",
    "envelope_to_bytes",
    "escape_text",
    "extract_meta",
    "extract_payload",
    "message_schema",
    "message_text",
    "payload_bytes",
    "payload_elements",
    "peek",
    "read_meta",
    "read_request",
    "sent_payload",
]

ENVELOPE_NAMESPACE: Final = "https://xml-pipeline.org/ns/envelope/v1"

_MESSAGE: Final = f"{{{ENVELOPE_NAMESPACE}}}message"
_META: Final = f"{{{ENVELOPE_NAMESPACE}}}meta"
_FROM: Final = f"{{{ENVELOPE_NAMESPACE}}}from"
_TO: Final = f"{{{ENVELOPE_NAMESPACE}}}to"
_THREAD: Final = f"{{{ENVELOPE_NAMESPACE}}}thread"

_XSD: Final = "{http://www.w3.org/2001/XMLSchema}"

_CANONICAL_START: Final = f'<message xmlns="{ENVELOPE_NAMESPACE}"><meta><from>'.encode()
_CANONICAL_END: Final = b"</message>"
_META_END: Final = b"</meta>"
# The head of a canonical envelope, as long as no name in it is escaped; such names are read from the tree.
_CANONICAL_META = re.compile(
    rb'<message xmlns="%b"><meta><from>([^<&]+)</from>(?:<to>([^<&]*)</to>)?<thread>([^<&]+)</thread><'
    % re.escape(ENVELOPE_NAMESPACE).encode()
)
_NO_NAMESPACE: Final = b' xmlns=""'
_DECLARATION: Final = b'<?xml version="1.0" encoding="UTF-8"?>\n'

# XML 1.0 (5th edition), production 2: everything that is not a Char.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME_END = re.compile(rb"[\s/>]")

_KEPT: Final = "_message_schema"
_PEEK_BYTES: Final = 4096
_PEEK_TO = re.compile(rb"<(?:[^\s<>/:]{1,64}:)?to(?:\s[^<>]{0,256})?>([^<]{0,1024})<")
_PEEK_THREAD = re.compile(rb"<(?:[^\s<>/:]{1,64}:)?thread(?:\s[^<>]{0,256})?>([^<]{0,1024})<")


@functools.cache
def envelope_schema() -> XMLSchema:
    """The compiled schema of the envelope; read from package data at the first call."""
    return etree.XMLSchema(parse_strict(_schema_text()))


def message_schema(codec: Codec[Any]) -> XMLSchema:
    """The schema of an envelope with one payload of a known class, which checks both in one pass over the tree.

    It accepts exactly what both `envelope_schema` and the class's own schema accept. Which of them refuses a message,
    only they can say. It is kept with the codec, and goes with it: classes come and go with agents of the mesh.
    """
    known: XMLSchema | None = codec.__dict__.get(_KEPT)
    if known is None:
        known = codec.__dict__[_KEPT] = _message_schema(codec)
    return known


def _message_schema(codec: Codec[Any]) -> XMLSchema:
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    parser.resolvers.add(_OneDocument(etree.tostring(codec.xsd())))
    schema = etree.fromstring(_schema_text(), parser)
    # Without a namespace: payloads are in none. The location is what the resolver answers.
    schema.insert(0, schema.makeelement(f"{_XSD}import", {"schemaLocation": "payload.xsd"}))
    (payloads,) = schema.iterfind(f".//{_XSD}any[@namespace='##local']")
    payloads.set("processContents", "strict")
    payloads.set("maxOccurs", "1")
    return etree.XMLSchema(schema)


def _schema_text() -> bytes:
    return (resources.files("xml_pipeline") / "schema" / "envelope.xsd").read_bytes()


class _OneDocument(etree.Resolver):
    """Answers the only import of a schema from memory.

    Args:
        document: what is imported.
    """

    def __init__(self, document: bytes) -> None:
        super().__init__()
        self._document = document

    def resolve(self, system_url: str, public_id: str, context: Any = None) -> Any:
        return self.resolve_string(self._document, context, base_url=None)


# ---- writing


def escape_text(text: str) -> str:
    """``text`` as it stands in a canonical text node.

    Source: Canonical XML 1.0, section 2.3, "Text Nodes": ``&``, ``<``, ``>`` and U+000D are replaced.

    Raises:
        ValidationError: it has a character that XML 1.0 cannot carry, e.g. U+0000 or a lone surrogate.
    """
    # Printable text has no control characters, surrogates or non-characters, and most names need no more than this.
    if not text.isprintable():
        bad = _NOT_XML.search(text)
        if bad:
            raise ValidationError(f"U+{ord(bad[0]):04X} at position {bad.start()} cannot be carried by XML")
        if "\r" in text:
            return _escape_mark_up(text).replace("\r", "&#xD;")
    return _escape_mark_up(text)


def _escape_mark_up(text: str) -> str:
    if "&" in text:
        text = text.replace("&", "&amp;")
    if "<" in text:
        text = text.replace("<", "&lt;")
    if ">" in text:
        text = text.replace(">", "&gt;")
    return text


def message_text(payload_text: str, from_xml: str, to_xml: str | None, thread_id: str, extensions: str = "") -> bytes:
    """The canonical bytes of an envelope around a payload that is canonical already. Checks nothing: the hot path.

    Args:
        payload_text: the payload's canonical text with ``xmlns=""`` on its root, as ``Codec.encode_payload`` gives it.
        from_xml: the sender's name, already escaped (`escape_text`).
        to_xml: the receiver's name, already escaped; ``None`` leaves ``to`` out.
        thread_id: the thread's id, a canonical UUID.
        extensions: further elements of ``meta``, as canonical text; each in a namespace other than the envelope's.

    Returns:
        UTF-8 bytes, which are their own exclusive canonical form.
    """
    to = "" if to_xml is None else f"<to>{to_xml}</to>"
    return (
        f'<message xmlns="{ENVELOPE_NAMESPACE}"><meta><from>{from_xml}</from>{to}<thread>{thread_id}</thread>'
        f"{extensions}</meta>{payload_text}</message>"
    ).encode()


def build_envelope(
    payload: bytes | _Element,
    from_id: str,
    thread_id: str,
    to_id: str | None = None,
    extensions: Iterable[_Element] = (),
    further: Iterable[_Element] = (),
) -> _Element:
    """Build an envelope around any payload.

    The payload is taken as it means itself where it stands: what is in no namespace stays in none. Nothing of it can
    become envelope mark-up, and neither can the names.

    Args:
        payload: an element, which is left unchanged, or the bytes of one document.
        from_id: the sender's name.
        thread_id: the thread's id.
        to_id: the receiver's name; ``None`` leaves ``to`` out.
        extensions: elements to append to ``meta``; each must be in a namespace other than the envelope's.
        further: more payloads, to stand behind the first.

    Returns:
        The root of a new tree.

    Raises:
        ValidationError: the payload is not well-formed, a name has a character that XML cannot carry, or an extension
            is in no namespace or in the envelope's.
    """
    element = parse_strict(payload) if isinstance(payload, bytes) else payload
    to = "" if to_id is None else f"<to>{escape_text(to_id)}</to>"
    head = f'<message xmlns="{ENVELOPE_NAMESPACE}"><meta><from>{escape_text(from_id)}</from>{to}'
    head += f"<thread>{escape_text(thread_id)}</thread>"
    extras = canonical_elements(extensions).encode()
    payloads = b"".join(_graft(each) for each in (element, *further))
    return parse_strict(head.encode() + extras + _META_END + payloads + _CANONICAL_END)


def canonical_elements(extensions: Iterable[_Element]) -> str:
    """The text of elements for ``meta``, for `message_text`.

    Args:
        extensions: each in a namespace other than the envelope's, best as a default namespace.

    Raises:
        ValidationError: one is in no namespace, or in the envelope's.
    """
    return b"".join(_graft(_foreign(extension)) for extension in extensions).decode()


def envelope_to_bytes(envelope: _Element, *, declaration: bool = True) -> bytes:
    """The envelope in UTF-8: its exclusive canonical form, after an XML declaration.

    Args:
        envelope: the root element.
        declaration: ``False`` leaves the XML declaration out, which gives the canonical bytes exactly.
    """
    canonical = canonical_bytes(envelope)
    return _DECLARATION + canonical if declaration else canonical


def _graft(element: _Element) -> bytes:
    """The element's text, fit to stand below a default namespace that it does not know of."""
    text = canonical_bytes(element)
    end = _NAME_END.search(text)
    position = end.start() if end else len(text)
    # In canonical form the default namespace comes first. Without one, whatever is unprefixed below is in none.
    if text.startswith(b' xmlns="', position):
        return text
    return text[:position] + _NO_NAMESPACE + text[position:]


def _foreign(extension: _Element) -> _Element:
    namespace = etree.QName(extension).namespace
    if not namespace or namespace == ENVELOPE_NAMESPACE:
        raise ValidationError(f"the meta extension {extension.tag!r} must be in a namespace of its own")
    return extension


# ---- reading


def read_meta(root: _Element, wire: bytes = b"") -> tuple[str, str | None, str]:
    """Sender, receiver and thread of an envelope, exactly as written: nothing is trimmed.

    Works on any tree, validated or not.

    Args:
        root: the envelope's root element.
        wire: the exclusive canonical bytes of the same envelope, where at hand: reading them is twice as quick.

    Returns:
        ``(from, to, thread)``; ``to`` is ``None`` when the element is missing or empty.

    Raises:
        ValidationError: the root is not ``message``, or ``meta``, ``from`` or ``thread`` is missing or empty.
    """
    head = _CANONICAL_META.match(wire)
    if head:
        sender, to, thread = head.groups()
        return sender.decode(), to.decode() if to else None, thread.decode()
    if root.tag != _MESSAGE:
        raise ValidationError(f"the root element is not message in {ENVELOPE_NAMESPACE}: {root.tag!r}")
    names = _read_names(root)
    for tag in (_FROM, _THREAD):
        if not names.get(tag):
            raise ValidationError(f"missing <{etree.QName(tag).localname}>")
    return names[_FROM], names.get(_TO) or None, names[_THREAD]


def _read_names(root: _Element) -> dict[str, str]:
    meta = root[0] if len(root) else None
    if meta is None or meta.tag != _META:
        raise ValidationError("missing <meta>")
    names: dict[str, str] = {}
    for child in meta:
        tag = child.tag
        if tag in (_FROM, _TO, _THREAD):
            if tag in names:
                raise ValidationError(f"more than one <{etree.QName(child).localname}>")
            names[tag] = _whole_text(child)
    return names


def _whole_text(element: _Element) -> str:
    """All of the text, also around comments and processing instructions (which `parse_strict` leaves none of)."""
    if not len(element):
        return element.text or ""
    for child in element:
        if not isinstance(child, (etree._Comment, etree._ProcessingInstruction)):
            raise ValidationError(f"<{etree.QName(element).localname}> holds something other than text")
    return "".join(element.itertext())  # type: ignore[arg-type]


def extract_meta(envelope: _Element) -> dict[str, str | None]:
    """`read_meta` as a dict with the keys ``from_id``, ``to_id`` and ``thread_id``."""
    sender, to, thread = read_meta(envelope)
    return {"from_id": sender, "to_id": to, "thread_id": thread}


def extensions(root: _Element) -> list[_Element]:
    """The extension elements in the ``meta`` of an envelope that is valid."""
    return [child for child in root[0] if child.tag not in (_FROM, _TO, _THREAD)]


def payload_elements(root: _Element) -> list[_Element]:
    """The payloads of an envelope in document order: every child element but ``meta``."""
    return [child for child in root if isinstance(child.tag, str) and child.tag != _META]


def extract_payload(envelope: _Element) -> _Element | None:
    """The first payload of an envelope; ``None`` if it has none."""
    if len(envelope) == 2:
        second = envelope[1]  # by far the most frequent shape; walking to it makes an object of meta too
        if isinstance(second.tag, str) and second.tag != _META:
            return second
    for child in envelope:
        if isinstance(child.tag, str) and child.tag != _META:
            return child
    return None


def read_request(root: _Element) -> tuple[str | None, list[bytes]]:
    """What a ``message`` element in model output asks for: its ``to`` and its payloads. All else in it is ignored.

    A model may leave the envelope's namespace out, and ``from`` and ``thread`` too: those are not its to decide.

    Args:
        root: an element named ``message``, in the envelope's namespace or in none.

    Returns:
        ``(to, payloads)``: the name in ``to`` exactly as written, ``None`` when it is missing or empty; the exclusive
        canonical bytes of each payload.

    Raises:
        ValidationError: the root is no ``message``, there is more than one ``meta`` or ``to``, or ``to`` holds
            elements.
    """
    if root.tag not in (_MESSAGE, "message"):
        raise ValidationError(f"the root element is not message: {root.tag!r}")
    namespace = root.tag.removesuffix("message")
    metas = root.findall(f"{namespace}meta")
    names = [name for meta in metas for name in meta.findall(f"{namespace}to")]
    if len(metas) > 1 or len(names) > 1:
        raise ValidationError("more than one <meta> or <to>")
    to = _whole_text(names[0]) if names else None
    payloads = [child for child in root if isinstance(child.tag, str) and child not in metas]
    return to or None, [canonical_bytes(_out_of_envelope(payload)) for payload in payloads]


def _out_of_envelope(payload: _Element) -> _Element:
    """A payload that stands in the envelope's namespace because nobody wrote ``xmlns=""``: what it means is in none."""
    if etree.QName(payload).namespace != ENVELOPE_NAMESPACE:
        return payload
    payload = copy.deepcopy(payload)
    for element in payload.iter(f"{{{ENVELOPE_NAMESPACE}}}*"):
        element.tag = etree.QName(element).localname
    etree.cleanup_namespaces(payload)
    return payload


def payload_bytes(wire: bytes, root: _Element) -> bytes:
    """The exclusive canonical bytes of an envelope's only payload.

    They are cut out of the envelope's where that is the same, which is several times quicker than serialising.

    Args:
        wire: the envelope's exclusive canonical bytes.
        root: the envelope's tree, of the same content.

    Raises:
        ValidationError: there is not exactly one payload.
    """
    # Below exactly this start, the envelope's default namespace is the only declaration a payload could rely on.
    if len(root) == 2 and wire.startswith(_CANONICAL_START) and wire.count(_META_END) == 1:
        begin = wire.find(_META_END) + len(_META_END)
        name, mark, rest = wire[begin : -len(_CANONICAL_END)].partition(_NO_NAMESPACE)
        if mark and rest.endswith(b">") and name.startswith(b"<") and b" " not in name and b">" not in name:
            return name + rest
    payloads = payload_elements(root)
    if len(payloads) != 1:
        raise ValidationError(f"one payload expected, {len(payloads)} found")
    return canonical_bytes(payloads[0])


def sent_payload(wire: bytes) -> bytes:
    """The payload's text in an envelope that `message_text` made, cut out without parsing.

    Args:
        wire: what `message_text` returned; anything else gives anything.

    Returns:
        The canonical text that `message_text` was given, with its ``xmlns=""``.
    """
    return wire[wire.index(_META_END) + len(_META_END) : -len(_CANONICAL_END)]


def element_name(text: bytes) -> str:
    """The name of the element that a canonical text begins with, with its prefix if it has one."""
    end = _NAME_END.search(text)
    return text[1 : end.start() if end else len(text)].decode()


def peek(raw: bytes) -> tuple[str | None, str | None]:
    """Guess receiver and thread of an envelope without parsing it.

    A guess, for fairness between queues and for nothing else: comments, CDATA or a clever sender can make it wrong.

    Args:
        raw: an envelope, or anything. Only its first 4,096 bytes are looked at.

    Returns:
        ``(to, thread)``, each ``None`` where nothing was found.
    """
    head = raw[:_PEEK_BYTES]
    return _guess(_PEEK_TO.search(head)), _guess(_PEEK_THREAD.search(head))


def _guess(found: re.Match[bytes] | None) -> str | None:
    if found is None:
        return None
    text = found[1].decode("utf-8", "replace")
    if "&" in text:
        text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return text
