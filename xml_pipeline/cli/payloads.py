"""From what somebody typed to a payload: JSON or XML, read as one of the classes that the target takes."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

from xml_pipeline.cli.exits import CommandFailed
from xml_pipeline.cli.targets import codec_named, codecs_of

if TYPE_CHECKING:
    from lxml.etree import _Element

    from third_party.xmlable import Codec
    from xml_pipeline.message_bus.stream_pump import StreamPump

__all__ = ["MalformedXml", "read_message", "read_payload"]

_LONGEST: Final = 1_048_576
"""Bytes read from stdin; more is refused by every pump with the default ``max_message_bytes``."""
_UTF8_BOM: Final = b"\xef\xbb\xbf"


class MalformedXml(CommandFailed):
    """The message is not well-formed, or does not fit its schema.

    Args:
        line: for people.
        original: what was given, for a `huh`.
    """

    def __init__(self, line: str, original: bytes) -> None:
        super().__init__(line)
        self.original = original


def read_message(text: str) -> bytes:
    """The message as it was given: the argument, or stdin for ``-``.

    Raises:
        CommandFailed: stdin holds more than a message may.
    """
    if text != "-":
        return text.encode("utf-8", "surrogateescape")
    raw = sys.stdin.buffer.read(_LONGEST + 1)
    if len(raw) > _LONGEST:
        raise CommandFailed(f"error: standard input has more than {_LONGEST} bytes; a message is not that large")
    return raw


def read_payload(pump: StreamPump, target: str, raw: bytes, class_name: str | None = None) -> Any:
    """The payload that ``raw`` describes.

    Args:
        pump: knows the target.
        target: a listener or a broadcast group.
        raw: a JSON object, or an XML element.
        class_name: which of the target's classes; default: the one named like the XML element, or the one that the
            JSON fits.

    Raises:
        MalformedXml: it is XML, and wrong.
        CommandFailed: there is no such target or class, or it is JSON, and wrong.
    """
    codecs = codecs_of(pump, target)
    chosen = None if class_name is None else codec_named(codecs, target, class_name)
    content = raw.removeprefix(_UTF8_BOM).strip()
    if not content:
        raise CommandFailed("error: the message is empty; give a JSON object or an XML element")
    if content.startswith(b"<"):
        return _from_xml(raw.strip(), target, codecs if chosen is None else {chosen.name: chosen})
    return _from_json(content, target, codecs if chosen is None else {chosen.name: chosen})


def _from_xml(raw: bytes, target: str, codecs: dict[str, Codec[Any]]) -> Any:
    from third_party.xmlable import DecodeError
    from xml_pipeline.errors import ValidationError
    from xml_pipeline.strict_xml import parse_strict

    try:
        root = parse_strict(raw)
    except ValidationError as error:
        raise MalformedXml(f"error: the message is not usable XML: {error.detail}", raw) from None
    codec = codecs.get(str(root.tag))
    if codec is None:
        raise MalformedXml(f"error: {_wrong_element(root, target, codecs)}", raw)
    if not codec.schema.validate(root):
        log: Any = codec.schema.error_log  # the stubs do not know what is in it
        fault = " ".join(log[0].message.split())
        raise MalformedXml(f"error: the message does not fit {codec.name}: line {log[0].line}: {fault}", raw)
    try:
        return codec.decode(root)
    except DecodeError as error:
        raise MalformedXml(f"error: the message does not fit: {error}", raw) from None


def _wrong_element(root: _Element, target: str, codecs: dict[str, Codec[Any]]) -> str:
    from xml_pipeline.config.problems import Hints
    from xml_pipeline.envelope import ENVELOPE_NAMESPACE

    tag = str(root.tag)
    if tag == f"{{{ENVELOPE_NAMESPACE}}}message":
        return "give the payload's element alone, without the <message> around it"
    takes = " or ".join(f"<{name}>" for name in codecs)
    if tag.startswith("{"):
        return f"the element <{tag}> is in a namespace, and {target!r} takes {takes}, in none"
    near = Hints().did_you_mean(tag, codecs, "class")
    return f"{target!r} takes {takes}, not <{tag}>{near}"


def _from_json(content: bytes, target: str, codecs: dict[str, Codec[Any]]) -> Any:
    from third_party.xmlable import DecodeError

    data = _parsed(content)
    if not isinstance(data, dict):
        raise CommandFailed(f"error: a message is a JSON object, or an XML element; {_shapes(codecs)}")
    fits, misfits = [], []
    for codec in codecs.values():
        try:
            fits.append(codec.from_json(data))
        except DecodeError as error:
            misfits.append(str(error))
    if len(fits) == 1:
        return fits[0]
    if fits:
        names = " and ".join(type(payload).__name__ for payload in fits)
        raise CommandFailed(f"error: {target!r} takes {names}, and the message fits both; say which with --class NAME")
    raise CommandFailed(f"error: the message does not fit: {'; or '.join(misfits)}; {_shapes(codecs)}")


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content.decode(), object_pairs_hook=_without_doubles)
    except UnicodeDecodeError as error:
        raise CommandFailed(f"error: the message is not UTF-8: byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise CommandFailed(
            f"error: the message is not JSON: line {error.lineno}, column {error.colno}: {error.msg}; "
            'in a shell, put it into single quotes: \'{"key": "value"}\''
        ) from None
    except ValueError as error:  # a number with thousands of digits
        raise CommandFailed(f"error: the message is not usable JSON: {error}") from None
    except RecursionError:
        raise CommandFailed("error: the message is not usable JSON: it is nested too deeply") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise CommandFailed(f"error: the message has the key {double!r} twice")
    return data


def _shapes(codecs: dict[str, Codec[Any]]) -> str:
    """What would fit: ``expected Order {"item": string, "quantity": integer}``."""
    return "expected " + " or ".join(f"{name} {_shape(codec)}" for name, codec in codecs.items())


def _shape(codec: Codec[Any]) -> str:
    schema = codec.json_schema()
    fields = []
    for name, about in schema.get("properties", {}).items():
        optional = "" if name in schema.get("required", ()) else " (optional)"
        fields.append(f"{json.dumps(name, ensure_ascii=False)}: {about.get('type', 'value')}{optional}")
    return f"{{{', '.join(fields)}}}"
