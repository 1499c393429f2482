"""Reads text that is almost XML: finds its root elements and mends what people and models get wrong.

A repair must never change what the text says. So this is a tokenizer of our own rather than libxml2's recovery mode,
which deletes what it does not understand (``R&D`` becomes ``R``, ``x<5`` becomes ``x5``, a cut number is a number).

====================================  =================================================================================
found                                 done
====================================  =================================================================================
``&`` that begins no reference        escaped. ``&nbsp;`` is no reference in XML: the text says ``&nbsp;``
``<`` that begins no tag              escaped, inside a root; outside, it is part of the text that is dropped
``]]>`` in text                       its ``>`` is escaped
a character that XML cannot carry     U+FFFD in its place, also when written as a reference (``&#1;``)
text outside roots, code fences       dropped, as are comments and instructions there
several roots                         kept apart
an unclosed element without children  closed before the end tag of its parent, if that is the next tag
everything else                       left as it is, for the strict parser to refuse
====================================  =================================================================================

Refused here, because no reading of it is safe: input that ends inside a root or a tag (it was cut, and a cut number is
another number), an end tag that closes nothing or is malformed, a malformed start tag outside of roots (its element
would be taken for text, and its children for roots), and any declaration.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from xml_pipeline.errors import ValidationError

if TYPE_CHECKING:
    from xml_pipeline.message_bus.steps.bounds import Bounds

__all__ = ["AlmostXml"]

# XML 1.0 (5th edition), productions 2, 4 and 4a; U+FFFD is left out of names, since it is what we put in ourselves.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAME_START: Final = (
    ":A-Z_a-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02ff\u0370-\u037d\u037f-\u1fff\u200c\u200d\u2070-\u218f"
    "\u2c00-\u2fef\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffc\U00010000-\U000effff"
)
_NAME: Final = f"[{_NAME_START}][{_NAME_START}\\-.0-9\u00b7\u0300-\u036f\u203f\u2040]*+"
_SPACE: Final = "[ \t\r\n]"
_ATTRIBUTE: Final = f"{_SPACE}++{_NAME}{_SPACE}*+={_SPACE}*+(?:\"[^\"<]*+\"|'[^'<]*+')"
_START_TAG = re.compile(f"<({_NAME})((?:{_ATTRIBUTE})*+){_SPACE}*+(/?)>")
_END_TAG = re.compile(f"</({_NAME}){_SPACE}*+>")
_TAG_LIKE = re.compile(f"</|<[{_NAME_START}]|<{_SPACE}++{_NAME}{_SPACE}*+(?:/?>|{_NAME}{_SPACE}*+=)|<$")
_END_TAG_LIKE = re.compile(f"</{_SPACE}*+[{_NAME_START}]")
_DECLARATION = re.compile("<!(?:DOCTYPE|ENTITY|ELEMENT|ATTLIST|NOTATION)", re.IGNORECASE)
_ENCODING = re.compile(r"<\?xml\s[^>]*?\sencoding\s*=\s*[\"']([^\"']*)[\"']")
_STRAY_AMPERSAND = re.compile("&(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,10}|#x[0-9A-Fa-f]{1,8});)")
_CHARACTER_REFERENCE = re.compile("&#(?:x([0-9A-Fa-f]{1,8})|([0-9]{1,10}));")
_FENCE = re.compile("```[^\n`]*")

_REPLACEMENT: Final = "\ufffd"
_LAST_CODE_POINT: Final = 0x10FFFF
_MAX_REPAIRS: Final = 20


class AlmostXml:
    """One text, read once, at construction.

    Args:
        text: what a model wrote, or an envelope that is not well-formed.
        bounds: nesting and number of elements are checked while reading.

    Attributes:
        roots: the text of each root element, mended; still to be parsed, strictly.
        repairs: what was done to it, in words; at most twenty entries.

    Raises:
        ValidationError: the text is cut, or no reading of it is safe.
    """

    def __init__(self, text: str, bounds: Bounds) -> None:
        self._bounds = bounds
        self._counts: Counter[str] = Counter()
        self._open: list[str] = []
        self._elements = 0
        self._others = 0
        self._is_leaf = False  # the innermost open element has no children so far
        self._root: list[str] = []
        self._dropped: list[str] = []
        self.roots: list[str] = []
        self._text, replaced = _NOT_XML.subn(_REPLACEMENT, text.removeprefix("\ufeff"))
        self._counts["character that XML cannot carry replaced by U+FFFD"] += replaced
        self._read()
        self._describe_dropped()
        self.repairs = self._describe()

    def _read(self) -> None:
        text = self._text
        position = 0
        while (found := text.find("<", position)) >= 0:
            self._put_text(text[position:found])
            position = self._read_mark_up(found)
        self._put_text(text[position:])
        if self._open:
            raise ValidationError(f"the input ends before <{self._open[0][:80]}> is closed")
        if not self.roots:
            raise ValidationError("there is no XML element in it")

    def _read_mark_up(self, position: int) -> int:
        """Read what begins with the ``<`` at ``position``; return the position behind it."""
        text = self._text
        if tag := _START_TAG.match(text, position):
            return self._start(tag)
        if tag := _END_TAG.match(text, position):
            return self._end(tag)
        self._others += 1
        if self._others > self._bounds.max_elements:
            raise ValidationError(f"more than max_elements, {self._bounds.max_elements}, comments or stray '<'")
        for start, end in (("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")):
            if text.startswith(start, position):
                return self._copy_through(start, end, position)
        if _DECLARATION.match(text, position):
            raise ValidationError("a document type declaration is not allowed")
        if (_END_TAG_LIKE if self._open else _TAG_LIKE).match(text, position):
            raise ValidationError(f"a malformed or unfinished tag: {text[position : position + 40]!r}")
        if self._open:
            self._counts["stray '<' escaped"] += 1
            self._root.append("&lt;")
        else:
            self._dropped.append("<")
        return position + 1

    def _start(self, tag: re.Match[str]) -> int:
        name, attributes, slash = tag.groups()
        self._elements += 1
        if self._elements > self._bounds.max_elements:
            raise ValidationError(f"the message exceeds max_elements, {self._bounds.max_elements}")
        if len(self._open) >= self._bounds.max_element_depth:
            raise ValidationError(f"the message exceeds max_element_depth, {self._bounds.max_element_depth}")
        self._root.append(f"<{name}{self._mend_references(attributes)}{slash}>")
        self._is_leaf = not slash
        if not slash:
            self._open.append(name)
        self._finish_root()
        return tag.end()

    def _end(self, tag: re.Match[str]) -> int:
        name = tag[1]
        if self._is_leaf and self._open[-2:-1] == [name] and self._open[-1] != name:
            # With children it would be a guess which of them are its own, and which its siblings.
            unclosed = self._open.pop()
            self._counts[f"unclosed <{unclosed[:80]}> closed"] += 1
            self._root.append(f"</{unclosed}>")
        if self._open[-1:] != [name]:
            raise ValidationError(f"the end tag </{name[:80]}> closes nothing")
        self._open.pop()
        self._is_leaf = False
        self._root.append(tag[0])
        self._finish_root()
        return tag.end()

    def _finish_root(self) -> None:
        if not self._open:
            self.roots.append("".join(self._root))
            self._root.clear()

    def _copy_through(self, start: str, end: str, position: int) -> int:
        """Comments, CDATA sections and processing instructions are kept as they are in a root, and dropped outside."""
        text = self._text
        found = text.find(end, position + len(start))
        if found < 0:
            raise ValidationError(f"the input ends inside of {start}")
        stop = found + len(end)
        if self._open:
            self._root.append(text[position:stop])
        elif start == "<![CDATA[":
            self._dropped.append(text[position:stop])
        else:
            self._drop_instruction(position, stop)
        return stop

    def _drop_instruction(self, position: int, stop: int) -> None:
        declared = _ENCODING.match(self._text, position, stop)
        if declared and declared[1].lower() not in ("utf-8", "utf8"):
            raise ValidationError(f"not UTF-8: declares {declared[1][:40]!r}")
        self._counts["comment or instruction around the XML removed"] += 1

    def _put_text(self, text: str) -> None:
        if not text:
            return
        if not self._open:
            self._dropped.append(text)
            return
        text = self._mend_references(text)
        if "]]>" in text:
            self._counts["']]>' escaped"] += text.count("]]>")
            text = text.replace("]]>", "]]&gt;")
        self._root.append(text)

    def _mend_references(self, text: str) -> str:
        if "&" not in text:
            return text
        text, escaped = _STRAY_AMPERSAND.subn("&amp;", text)
        self._counts["stray '&' escaped"] += escaped
        return _CHARACTER_REFERENCE.sub(self._mend_character, text)

    def _mend_character(self, reference: re.Match[str]) -> str:
        hexadecimal, decimal = reference.groups()
        code = int(hexadecimal, 16) if hexadecimal else int(decimal)
        if code <= _LAST_CODE_POINT and not _NOT_XML.match(chr(code)):
            return reference[0]
        self._counts["character that XML cannot carry replaced by U+FFFD"] += 1
        return _REPLACEMENT

    def _describe_dropped(self) -> None:
        text, fences = _FENCE.subn("", "".join(self._dropped))
        self._counts["code fence removed"] += fences
        self._counts["character of text around the XML removed"] += len(text.strip())
        if len(self.roots) > 1:
            self._counts["root elements kept apart"] += len(self.roots)

    def _describe(self) -> tuple[str, ...]:
        repairs = [f"{what} ({count})" for what, count in self._counts.items() if count]
        if len(repairs) > _MAX_REPAIRS:
            repairs[_MAX_REPAIRS - 1 :] = [f"and {len(repairs) - _MAX_REPAIRS + 1} more"]
        return tuple(repairs)
