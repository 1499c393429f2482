"""One node of an organism: ``xml-pipeline run`` in a process of its own, to be killed and to be told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

__all__ = ["Node"]

_ROOT = Path(__file__).parents[3]


class Node:
    """The process, started as often as asked.

    Args:
        file: the organism's; what the process complains of is written beside it.
        url: of the server, in the place of the file's.
        name: of the node.
        environment: variables of its own.
        lease: seconds, see `ConnectionOptions`; 0.0 for the default.
    """

    def __init__(self, file: Path, url: str, name: str, environment: dict[str, str], lease: float = 0.0) -> None:
        self.name = name
        self.life = -1
        self._url = url
        self._file = file
        self._environment = environment
        self._lease = lease
        self._process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> str:
        """What it is called in this life."""
        return f"{self.name}.{self.life}"

    async def start(self) -> None:
        """Start it; when this returns, it need not have begun to serve."""
        self.life += 1
        program = ["-m", "tests.bridge.proofs.node", str(self._lease)] if self._lease else ["-m", "xml_pipeline.cli"]
        environment = {**os.environ, "PYTHONPATH": str(_ROOT), **self._environment, "BRIDGE_PROOF_NODE": self.alive}
        with self._file.with_suffix(f".{self.name}.err").open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, *program, "run", str(self._file), "--mesh", self._url),
                env=environment,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
            )

    async def end(self, what: signal.Signals) -> int:
        """Send it a signal, and wait until it has ended.

        Args:
            what: the signal.

        Returns:
            Its exit code, negative for a signal.
        """
        assert self._process is not None
        self._process.send_signal(what)
        return await self._process.wait()

    async def close(self) -> None:
        """End it, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            await self.end(signal.SIGKILL)


def main(lease: str) -> int:
    """``xml-pipeline`` with hosts that say so often that they are there."""
    from xml_pipeline.cli.main import main as command
    from xml_pipeline.mesh.options import ConnectionOptions

    made = ConnectionOptions.__init__

    def make(self: ConnectionOptions, *args: object, **more: object) -> None:
        made(self, *args, **{"lease": float(lease), **more})  # type: ignore[arg-type]

    ConnectionOptions.__init__ = make  # type: ignore[method-assign]
    return command()


if __name__ == "__main__":
    sys.exit(main(sys.argv.pop(1)))
