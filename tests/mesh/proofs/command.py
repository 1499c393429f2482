"""The command that runs proofs, in full or small, and prints what they found."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from tests.mesh.proofs.figures import Figure, line_of

Proof = Callable[[Path], Awaitable[list[Figure]]]
"""Gets a folder that does not exist yet."""


async def _run(name: str, proof: Proof) -> bool:
    """Run one, and print what it found; whether everything is as promised."""
    sys.stdout.write(f"{name}\n")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="proofs-") as folder:
        figures = await proof(Path(folder) / "proof")
    for figure in figures:
        sys.stdout.write(line_of(figure) + "\n")
    sys.stdout.write(f"  it took {time.monotonic() - began:.1f} s\n")
    sys.stdout.flush()
    return all(figure.is_kept for figure in figures)


def run_proofs(
    prog: str,
    description: str,
    full: Mapping[str, Proof],
    small: Mapping[str, Proof],
    arguments: list[str] | None = None,
) -> int:
    """Run those that the command line names, or all. Returns the exit code: 1 if something is not as promised."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which: {', '.join(full)}; default: all")
    parser.add_argument("--small", action="store_true", help="as the suite does: a look, not a measurement")
    options = parser.parse_args(arguments)
    proofs = small if options.small else full
    unknown = [name for name in options.names if name not in proofs]
    if unknown:
        parser.error(f"there is no proof {unknown[0]!r}; choose from {', '.join(proofs)}")
    logging.disable(logging.WARNING)  # of what is killed, much is said
    kept = [asyncio.run(_run(name, proofs[name])) for name in options.names or proofs]
    return 0 if all(kept) else 1
