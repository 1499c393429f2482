"""``python -m tests.mesh.proofs``."""

from __future__ import annotations

import signal
import sys

from tests.mesh.proofs import counting, crashes, crowd, hostile, killed, leaving, resuming, stalling
from tests.mesh.proofs.command import Proof, run_proofs

FULL: dict[str, Proof] = {
    "crashes": lambda folder: crashes.prove(folder, times=20, longest_absence=3.0),
    "crowd-sigterm": lambda _: crowd.prove(20, 5, signal.SIGTERM),
    "crowd-sigkill": lambda _: crowd.prove(20, 5, signal.SIGKILL),
    "crowd-one-host": lambda _: crowd.prove_many(1000),
    "killed-embedded": lambda _: killed.prove(200, monitored=True, work=4.0),
    "killed-plain": lambda _: killed.prove(40, monitored=False, work=20.0),
    "stopped-embedded": lambda _: killed.prove_stopped(5.0, 16),
    "stopped-plain": lambda _: killed.prove_stopped(5.0, 16, monitored=False),
    "leaving": lambda _: leaving.prove(rate=200.0, times=10, pause=1.0),
    "stalling": lambda _: stalling.prove(chunks=300, wait=5.0),
    "stalling-process": lambda _: stalling.prove(chunks=300, wait=5.0, whole_process=True),
    "hostile": lambda _: hostile.prove(requests=100_000),
    "counting": lambda folder: counting.prove(folder, writers=20, times=50),
    "counting-crashes": lambda folder: counting.prove(folder, writers=20, times=50, kills=10),
    "resuming": lambda folder: resuming.prove(folder, kills=50, keys=40, patience=1.0, longest=1.0),
}
SMALL: dict[str, Proof] = {
    **FULL,
    "crashes": lambda folder: crashes.prove(folder, times=3, longest_absence=0.3),
    "crowd-one-host": lambda _: crowd.prove_many(100),
    "killed-embedded": lambda _: killed.prove(20, monitored=True, work=1.0),
    "killed-plain": lambda _: killed.prove(20, monitored=False, work=3.0, lease=0.5),
    "stopped-embedded": lambda _: killed.prove_stopped(0.5, 4),
    "stopped-plain": lambda _: killed.prove_stopped(0.5, 4, monitored=False),
    "leaving": lambda _: leaving.prove(rate=200.0, times=2, pause=0.3),
    "stalling": lambda _: stalling.prove(chunks=120, wait=0.3),
    "stalling-process": lambda _: stalling.prove(chunks=120, wait=1.0, whole_process=True),
    "hostile": lambda _: hostile.prove(requests=2000),
    "counting-crashes": lambda folder: counting.prove(folder, writers=10, times=20, kills=2),
    "resuming": lambda folder: resuming.prove(folder, kills=4, keys=10, patience=0.5, longest=0.2),
}


def main(arguments: list[str] | None = None) -> int:
    """Run proofs. Returns the exit code."""
    return run_proofs(
        "python -m tests.mesh.proofs",
        "Measure what the mesh promises, with real servers and processes that are really killed.",
        FULL,
        SMALL,
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
