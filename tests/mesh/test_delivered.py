from __future__ import annotations

import pytest

from xml_pipeline.mesh.delivered import Delivered


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.KV_x.c.1.7.3.1795269830728395255.2",
        "$JS.ACK.hub.hash.KV_x.c.1.7.3.1795269830728395255.2",
        "$JS.ACK._.hash.KV_x.c.1.7.3.1795269830728395255.2.random",
    ],
)
def test_the_numbers_are_read(reply):
    assert Delivered.of(reply) == Delivered(revision=7, number=3, pending=2)


@pytest.mark.parametrize("reply", ["", "_INBOX.a.b.c.d.1.2.3.4", "$JS.ACK.a.b.1.x.3.4.5", "$JS.ACK.a.b.1.2.3.4", "$JS"])
def test_what_is_something_else(reply):
    assert Delivered.of(reply) is None
