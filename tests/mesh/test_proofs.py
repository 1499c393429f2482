"""What the mesh promises, in a small form; in full: ``python -m tests.mesh.proofs``."""

from __future__ import annotations

import os

import pytest

from tests.mesh.proofs.__main__ import FULL, SMALL, main
from tests.mesh.proofs.figures import Figure, broken, count, line_of, seconds, spread

pytestmark = [
    pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="forks processes, and measures their memory"),
    pytest.mark.timeout(300),  # a machine may be slow; nothing here waits that long
]


@pytest.mark.parametrize("name", SMALL)
async def test_what_is_promised_is_kept(name, tmp_path):
    figures = await SMALL[name](tmp_path / "nats")
    assert not broken(figures), "\n".join(map(line_of, figures))


def test_a_promise_can_be_broken():
    assert not count("x", 1, exactly=1).promise.startswith("at")
    assert [figure.is_kept for figure in (count("x", 1, exactly=2), count("x", 1, most=0), count("x", 1, least=2))] == [
        False
    ] * 3
    assert count("x", 1, most=1).is_kept
    assert count("x", 1, least=1).is_kept
    assert broken([count("x", 1, exactly=2), seconds("y", 2.0, most=1.0)]) == [count("x", 1, exactly=2)]


def test_times_are_told():
    figure = spread("until it was so", [0.3, 0.1, 0.2], most=0.25)
    assert (figure.value, figure.is_kept) == (0.3, False)
    assert line_of(figure) == (
        "  BROKEN until it was so: 0.300 s (at most 0.250); of 3: least 0.100, median 0.200, nine in ten 0.300"
    )
    assert not spread("what never happened", [], most=1.0).is_kept
    assert line_of(Figure("bytes", 1_000_000)) == "  bytes: 1,000,000"


def test_every_proof_has_a_small_form():
    assert SMALL.keys() == FULL.keys()


def test_the_command_knows_what_there_is(capsys):
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "there is no proof 'nothing'; choose from crashes" in capsys.readouterr().err
