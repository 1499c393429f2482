"""``python -m tests.bridge.proofs``."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from tests.bridge.proofs import pipeline
from tests.mesh.proofs.figures import line_of


def main() -> int:
    """Run the proofs. Returns the exit code."""
    logging.disable(logging.WARNING)  # of what is killed, much is said
    with tempfile.TemporaryDirectory(prefix="proofs-") as folder:
        figures = asyncio.run(pipeline.prove(Path(folder) / "pipeline", documents=10_000, kills=3))
    for figure in figures:
        sys.stdout.write(line_of(figure) + "\n")
    return 0 if all(figure.is_kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
