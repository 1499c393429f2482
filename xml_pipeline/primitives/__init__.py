"""Payload classes and handlers that every organism has."""

from xml_pipeline.primitives.boot import Boot, handle_boot
from xml_pipeline.primitives.text import TextInput, TextOutput

__all__ = ["Boot", "TextInput", "TextOutput", "handle_boot"]
