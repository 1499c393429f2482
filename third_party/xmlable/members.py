"""The members that `xmlify` puts on a class, under the names that programs of the earlier library know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lxml import etree
from lxml.etree import _Element, _ElementTree

from .codec import Codec
from .parsing import parsed

__all__ = ["MEMBER_NAMES", "members"]

MEMBER_NAMES = ("xsd", "xml", "xml_value", "parse", "get_xobject", "xsd_forward", "xsd_dependencies")


def members(codec_of: Callable[[type[Any]], Codec[Any]]) -> dict[str, Any]:
    """Return the members by name. What could be static is a class method, so that a subclass answers for itself."""

    def xsd(
        cls: type[Any],
        id: str = "",
        namespaces: Mapping[str, str] | None = None,
        imports: Mapping[str, str] | None = None,
    ) -> _ElementTree:
        """Return the complete schema; ``id`` names it and its element. See `Codec.xsd`."""
        return codec_of(cls).xsd(id, namespaces, imports)

    def xml(cls: type[Any], schema_name: str = "") -> _ElementTree:
        """Return a template document: all elements, with comments where their texts belong."""
        return codec_of(cls).template(schema_name)

    def xml_value(self: Any, id: str = "") -> _ElementTree:
        """Return this instance as a document whose root is called ``id`` (default: as the class)."""
        root = parsed(codec_of(type(self)).encode(self))
        root.tag = id or root.tag
        return etree.ElementTree(root)

    def parse(cls: type[Any], obj: _Element) -> Any:
        """Return the instance that an lxml or objectify element describes, whatever the element is called."""
        return codec_of(cls).decode_any(obj)

    def get_xobject(cls: type[Any]) -> Codec[Any]:
        """Return the codec of the class."""
        return codec_of(cls)

    def xsd_forward(cls: type[Any], add_ns: Mapping[str, str] | None = None) -> _Element:
        """Return the named complex type of the class alone, with ``add_ns`` declared in its document."""
        *_, complex_type, _ = codec_of(cls).xsd("", add_ns).getroot()
        return complex_type

    def xsd_dependencies(cls: type[Any]) -> frozenset[type]:
        """Return the classes whose types the schema of this one contains, without itself."""
        return codec_of(cls).dependencies()

    functions: dict[str, Callable[..., Any]] = {
        "xsd": xsd,
        "xml": xml,
        "parse": parse,
        "get_xobject": get_xobject,
        "xsd_forward": xsd_forward,
        "xsd_dependencies": xsd_dependencies,
    }
    return {"xml_value": xml_value, **{name: classmethod(function) for name, function in functions.items()}}
