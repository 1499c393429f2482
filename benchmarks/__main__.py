"""``python -m benchmarks``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from rich.console import Console

from benchmarks import report, suite
from benchmarks.size import FULL, QUICK

_RESULTS = Path(__file__).parent / "results" / "latest.json"


def main(arguments: list[str] | None = None) -> int:
    """Run benchmarks, print the table, write the JSON. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the pump and the mesh against floors and rivals measured in the same run.",
        epilog="example: python -m benchmarks floor pump --quick",
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"which: {', '.join(suite.NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds of less: a look, not a measurement")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each case is measured")
    parser.add_argument("--json", type=Path, default=_RESULTS, metavar="FILE", help="where to write the figures")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in suite.NAMES]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; choose from {', '.join(suite.NAMES)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    size = suite.resized(QUICK if options.quick else FULL, options.rounds)
    about = report.environment(size)
    logging.getLogger("xml_pipeline").setLevel(logging.ERROR)  # the flood of `fairness` is cancelled on purpose
    console = Console(stderr=True)
    with console.status("measuring") as status:
        rows = suite.run(options.names or suite.NAMES, size, status.update)
    output = Console(width=None if sys.stdout.isatty() else 200)
    report.show(rows, about, output)
    report.write(rows, about, options.json)
    output.print(f"written: {options.json}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
