"""Element names: how fields, and the items of containers, are called in XML."""

from __future__ import annotations

import re

from .errors import XError

__all__ = ["checked", "is_xml_name", "pascal"]

# W3C XML 1.0 (5th edition) production 4 and 4a, without the colon: the NCName of Namespaces in XML.
_START = (
    r"A-Z_a-z\xC0-\xD6\xD8-\xF6\xF8-\u02FF\u0370-\u037D\u037F-\u1FFF\u200C\u200D\u2070-\u218F"
    r"\u2C00-\u2FEF\u3001-\uD7FF\uF900-\uFDCF\uFDF0-\uFFFD\U00010000-\U000EFFFF"
)
_NCNAME = re.compile(rf"[{_START}][{_START}\-.0-9\xB7\u0300-\u036F\u203F\u2040]*")
_SEPARATOR = re.compile("([_-])")


def pascal(name: str) -> str:
    """Return the element name of the Python name ``name``.

    Each part between ``_`` and ``-`` gets a capital, and the separators go: ``user_id`` becomes ``UserId``. A result
    without any lower-case letter keeps them, so that ``MAX_SIZE`` stays itself; that this also makes ``a_b`` into
    ``A_B`` is odd, and kept because messages on the wire are named so.
    """
    parts = _SEPARATOR.split(name)
    parts[::2] = [part[:1].upper() + part[1:] for part in parts[::2]]
    joined = "".join(parts)
    return "".join(parts[::2]) if any(character.islower() for character in joined) else joined


def is_xml_name(name: str) -> bool:
    """Whether ``name`` can be an element name without a prefix (NCName of Namespaces in XML 1.0)."""
    return _NCNAME.fullmatch(name) is not None


def checked(name: str, *, of: str) -> str:
    """Return ``name``, or raise `XError` where XML has no such name. ``of`` says what is to be called so."""
    if not is_xml_name(name):
        raise XError(f"{of} would be called {name!r}, which is no XML name; choose another name, or set xml_name")
    return name
