"""`xml_pipeline.message_bus.identifiers`: version-4 UUIDs in batches."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import uuid
import weakref
from collections import Counter

import pytest

from xml_pipeline.message_bus.identifiers import IdPool


@pytest.mark.parametrize("batch", [1, 2, 256])
def test_identifiers_are_canonical_version_4_uuids_and_distinct(batch: int) -> None:
    pool = IdPool(batch)
    made = [pool.next() for _ in range(1000)]
    assert len(set(made)) == 1000
    for text in made:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 4
        assert parsed.variant == uuid.RFC_4122


def test_every_random_bit_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each identifier is what `uuid` makes of the same 16 random bytes: none lost, none used twice."""
    random = bytes(range(256)) * 16
    monkeypatch.setattr(os, "urandom", lambda size: random[:size])
    pool = IdPool(256)
    made = {pool.next() for _ in range(16)}
    expected = {str(uuid.UUID(bytes=random[i : i + 16], version=4)) for i in range(0, 4096, 16)}
    assert made == expected


def test_all_four_variant_digits_occur() -> None:
    pool = IdPool()
    digits = Counter(pool.next()[19] for _ in range(2000))
    assert set(digits) == set("89ab")


def test_clear_drops_what_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def urandom(size: int) -> bytes:
        calls.append(size)
        return bytes([len(calls)]) * size

    monkeypatch.setattr(os, "urandom", urandom)
    pool = IdPool(4)
    before = pool.next()
    assert pool.next() == before
    pool.clear()
    assert pool.next() != before
    assert calls == [64, 64]


def test_a_batch_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        IdPool(0)


def test_the_registration_for_forks_does_not_keep_a_pool_alive() -> None:
    gc.collect()
    gc.disable()
    try:
        pool = IdPool()
        pool.next()
        gone = weakref.ref(pool)
        del pool
        assert gone() is None
    finally:
        gc.enable()


FORK = """
import os
from xml_pipeline.message_bus.identifiers import IdPool
lost = IdPool()          # gone before the fork: must not disturb
del lost
pool = IdPool()
pool.next()
read, write = os.pipe()
if os.fork() == 0:
    os.write(write, " ".join(pool.next() for _ in range(300)).encode())
    os._exit(0)
os.close(write)
mine = {pool.next() for _ in range(300)}
with os.fdopen(read) as pipe:
    theirs = set(pipe.read().split())
os.wait()
assert len(mine) == len(theirs) == 300
assert not mine & theirs
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_identifiers_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
