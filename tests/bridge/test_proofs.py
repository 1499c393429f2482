"""The proofs, small."""

from __future__ import annotations

import pytest

from tests.bridge.proofs import pipeline
from tests.mesh.proofs.figures import broken, line_of


@pytest.mark.timeout(180)
async def test_no_document_is_lost_however_often_the_stages_are_killed(tmp_path):
    figures = await pipeline.prove(tmp_path / "pipeline", documents=200, kills=1)
    assert [line_of(figure) for figure in broken(figures)] == []
