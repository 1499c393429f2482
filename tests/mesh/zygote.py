"""The zygote of the command line's tests, which has imported the mesh, too."""

import runpy
from pathlib import Path

from xml_pipeline import mesh  # noqa: F401 - for the children
from xml_pipeline.cli.mesh import lines, output, session, stdin, tap  # noqa: F401 - for the children

runpy.run_path(str(Path(__file__).parents[1] / "cli" / "zygote.py"), run_name="__main__")
