"""``python -m tests.bridge.proofs``."""

from __future__ import annotations

import sys

from tests.bridge.proofs import absence, pipeline, replicas
from tests.mesh.proofs.command import Proof, run_proofs

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


def main(arguments: list[str] | None = None) -> int:
    """Run proofs. Returns the exit code."""
    return run_proofs(
        "python -m tests.bridge.proofs",
        "Measure what the bridge promises, with real servers and nodes that are really killed.",
        FULL,
        SMALL,
        arguments,
    )


if __name__ == "__main__":
    sys.exit(main())
