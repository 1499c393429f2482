"""``python -m tests.bridge.proofs``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.bridge.proofs import absence, pipeline, replicas
from tests.mesh.proofs.figures import Figure, line_of

Proof = Callable[[Path], Awaitable[list[Figure]]]

FULL: dict[str, Proof] = {
    "pipeline": lambda folder: pipeline.prove(folder, documents=10_000, kills=3),
    "replicas-embedded": lambda folder: replicas.prove(folder, 42, 0.25, cases=6, monitored=True),
    "replicas-plain": lambda folder: replicas.prove(folder, 42, 0.25, cases=2, monitored=False),
    "absence": lambda folder: absence.prove(folder, away=30.0, around=5.0),
    "absence-stopped": lambda folder: absence.prove(folder, away=30.0, around=5.0, stopped=True),
    "absence-flood": lambda folder: absence.prove_flood(folder, away=30.0, around=5.0),
}
SMALL: dict[str, Proof] = {
    "pipeline": lambda folder: pipeline.prove(folder, documents=200, kills=1),
    "replicas-embedded": lambda folder: replicas.prove(folder, 21, 0.2, cases=1, monitored=True, patience=10.0),
    "replicas-plain": lambda folder: replicas.prove(
        folder, 21, 0.2, cases=1, monitored=False, lease=0.5, patience=10.0
    ),
    "absence": lambda folder: absence.prove(folder, away=2.5, around=0.5, patience=1.0),
    "absence-stopped": lambda folder: absence.prove(folder, away=2.5, around=0.5, patience=1.0, stopped=True),
    "absence-flood": lambda folder: absence.prove_flood(folder, away=2.0, around=0.5),
}


async def run(name: str, proof: Proof) -> bool:
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


def main(arguments: list[str] | None = None) -> int:
    """Run proofs. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bridge.proofs",
        description="Measure what the bridge promises, with real servers and nodes that are really killed.",
    )
    parser.add_argument("names", nargs="*", metavar="name", help=f"which: {', '.join(FULL)}; default: all")
    parser.add_argument("--small", action="store_true", help="as the suite does: a look, not a measurement")
    options = parser.parse_args(arguments)
    proofs = SMALL if options.small else FULL
    unknown = [name for name in options.names if name not in proofs]
    if unknown:
        parser.error(f"there is no proof {unknown[0]!r}; choose from {', '.join(proofs)}")
    logging.disable(logging.WARNING)  # of what is killed, much is said
    kept = [asyncio.run(run(name, proofs[name])) for name in options.names or proofs]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
