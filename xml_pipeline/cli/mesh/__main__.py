"""The program in the background that ``mesh up`` starts, by its path: ``python -P __main__.py ORDER STATUS``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Where neither an installation nor PYTHONPATH has it. Last, lest anything here hides a module of the library.
    sys.path.append(str(Path(__file__).resolve().parents[3]))
    from xml_pipeline.cli.mesh.supervisor import Order, supervise_in_background

    sys.exit(supervise_in_background(Order.read(sys.argv[1]), int(sys.argv[2])))
