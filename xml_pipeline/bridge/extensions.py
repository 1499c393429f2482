"""Elements that the bridge puts into the ``meta`` of envelopes: where a message comes from."""

from __future__ import annotations

from typing import Final

from lxml import etree

__all__ = ["MESH_NAMESPACE", "caller_element", "entry_element", "subject_element"]

MESH_NAMESPACE: Final = "https://xml-pipeline.org/ns/mesh/v1"


def entry_element(key: str, revision: int, operation: str) -> etree._Element:
    """The change of a key."""
    return _element("entry", {"key": key, "revision": str(revision), "operation": operation})


def subject_element(subject: str) -> etree._Element:
    """The subject that a message came on."""
    return _element("arrival", {"subject": subject})


def caller_element(sender: str, thread: str, key_id: str) -> etree._Element:
    """Where a call comes from, in the words of whoever called; what is not known is left out.

    Args:
        sender: who says to have called.
        thread: of the call, over there.
        key_id: the key that signed it, and may speak for the sender: without it, both are only said.
    """
    known = {"from": sender, "thread": thread, "key": key_id}
    return _element("caller", {name: value for name, value in known.items() if value})


def _element(name: str, values: dict[str, str]) -> etree._Element:
    nsmap: dict[str | None, str] = {None: MESH_NAMESPACE}
    root = etree.Element(f"{{{MESH_NAMESPACE}}}{name}", nsmap=nsmap)  # type: ignore[arg-type]
    for key, value in values.items():
        etree.SubElement(root, f"{{{MESH_NAMESPACE}}}{key}").text = value
    return root
