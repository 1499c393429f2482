"""What the bridge promises, in a small form; in full: ``python -m tests.bridge.proofs``."""

from __future__ import annotations

import os

import pytest

from tests.bridge.proofs.__main__ import FULL, SMALL, main
from tests.mesh.proofs.figures import broken, line_of

pytestmark = [
    pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="measures the memory of processes"),
    pytest.mark.timeout(300),  # a machine may be slow; nothing here waits that long
]


@pytest.mark.parametrize("name", SMALL)
async def test_what_is_promised_is_kept(name, tmp_path):
    figures = await SMALL[name](tmp_path / "proof")
    assert not broken(figures), "\n".join(map(line_of, figures))


def test_every_proof_has_a_small_form():
    assert SMALL.keys() == FULL.keys()


def test_the_command_knows_what_there_is(capsys):
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "there is no proof 'nothing'; choose from pipeline" in capsys.readouterr().err
