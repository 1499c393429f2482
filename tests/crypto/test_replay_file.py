"""The window on disk: what came in before a restart, however that came about, does not come in after it."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.crypto import Reason, ReplayFile, Seen, Verifier
from xml_pipeline.crypto.replay import ReplayWindow
from xml_pipeline.errors import ConfigurationError

from .kit import BANK, HERE, NOON, SHOP, USUAL, Clock, signed

ROOT = Path(__file__).resolve().parents[2]
KEY, OTHER = SHOP.key_id, BANK.key_id


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Callable[..., ReplayFile]]:
    """Opens the file; whoever has it open before is closed."""
    last: list[ReplayFile] = []

    def begin(**options: float) -> ReplayFile:
        for file in last:
            file.close()
        file = ReplayFile(tmp_path / "window", clock=clock, **{"floor": -math.inf, **options})  # type: ignore[arg-type]
        last.append(file)
        return file

    yield begin
    for file in last:
        file.close()


def seen(message: str = "m", created: float = NOON, key: str = KEY) -> Seen:
    return Seen(key, message, created)


def test_what_came_in_is_known_after_a_restart(opened, tmp_path):
    file = opened()
    assert file.admit(seen("a")) is None and file.admit(seen("b", NOON + 0.25, OTHER)) is None
    assert file.admit(seen("a")) is Reason.REPLAYED
    for _ in range(3):
        file = opened()
        assert file.admit(seen("a")) is Reason.REPLAYED
        assert file.admit(seen("b", NOON + 0.25, OTHER)) is Reason.REPLAYED
    assert file.admit(seen("c")) is None
    assert (tmp_path / "window").stat().st_mode & 0o777 == 0o600


def test_after_a_restart_nothing_needs_to_be_waited_for(opened, clock):
    opened()
    clock.now += 1
    file = opened()
    assert file.admit(seen(created=clock.now)) is None


def test_a_file_that_is_new_knows_nothing(tmp_path, clock):
    with contextlib.closing(ReplayFile(tmp_path / "window", clock=clock)) as file:
        assert file.admit(seen(created=NOON)) is Reason.NOT_REMEMBERED
        clock.now += 31
        assert file.admit(seen(created=clock.now)) is None
    with contextlib.closing(ReplayFile(tmp_path / "window", clock=clock)) as file:
        assert file.admit(seen("new", created=clock.now)) is None, "now it does"
        assert file.admit(seen("old", created=NOON)) is Reason.NOT_REMEMBERED


def test_what_is_not_let_in_is_not_written(opened, tmp_path):
    file = opened()
    file.admit(seen("a"))
    before = (tmp_path / "window").read_bytes()
    for other in (seen("a"), seen("old", NOON - 1000), seen("new", NOON + 1000)):
        assert file.admit(other) is not None
    assert (tmp_path / "window").read_bytes() == before


def test_a_door_with_a_file(tmp_path, clock):
    wire = signed()
    for expected in (None, Reason.REPLAYED):
        with contextlib.closing(ReplayFile(tmp_path / "w", clock=clock, floor=-math.inf)) as file:
            door = Verifier(USUAL, file)
            if expected is None:
                assert door.verify(wire, HERE).is_proven
            else:
                with pytest.raises(Exception, match="replayed"):
                    door.verify(wire, HERE)


@given(
    st.lists(
        st.tuples(st.sampled_from([KEY, OTHER]), st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:\-]{0,20}", fullmatch=True),
                  st.floats(NOON - 90, NOON + 30)),
        max_size=30,
    )
)  # fmt: skip
def test_a_file_is_a_window(tmp_path_factory, messages):
    """With restarts between any two messages it decides as one window does that was there all the time."""
    path = tmp_path_factory.mktemp("window") / "w"
    clock = Clock()
    window = ReplayWindow(clock=clock, floor=-math.inf)
    for key, message, created in messages:
        with contextlib.closing(ReplayFile(path, clock=clock, floor=-math.inf)) as file:
            assert file.admit(Seen(key, message, created)) is window.admit(Seen(key, message, created))


# -- being written anew


def test_the_file_stays_small(opened, tmp_path, clock):
    file = opened(max_age=1.0, tolerance=0.0)
    sizes = []
    for number in range(5_000):
        clock.now += 0.1
        assert file.admit(seen(f"m{number}", clock.now)) is None
        sizes.append((tmp_path / "window").stat().st_size)
    assert max(sizes) < 1_100 * 80 and sizes[-1] < max(sizes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["window", "window.lock"]
    file = opened(max_age=1.0, tolerance=0.0)
    assert file.admit(seen("m4999", clock.now)) is Reason.REPLAYED
    clock.now = NOON + 3  # set back: what was left out of the file does not come in either
    assert file.admit(seen("m29", NOON + 3)) is Reason.NOT_REMEMBERED


# -- the process is killed

PROGRAM = """
import math, sys
from xml_pipeline.crypto import ReplayFile, Seen
file = ReplayFile(sys.argv[1], clock=lambda: 1_800_000_000.0, floor=-math.inf)
for number in range(int(sys.argv[2]), 1_000_000):
    if file.admit(Seen("k" * 43, f"m{number}", 1_800_000_000.0)) is None:
        sys.stdout.write(f"{number}\\n")
        sys.stdout.flush()
"""


def test_nothing_comes_back_after_being_killed(tmp_path, clock):
    """Killed at whatever it is doing, several times: all that it said had come in is known afterwards."""
    path = tmp_path / "window"
    told = -1
    for rounds in (50, 333, 1500):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path), str(told + 1)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        ) as process:
            assert process.stdout is not None
            for _ in range(rounds):
                told = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            told = max([told, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
        with contextlib.closing(ReplayFile(path, clock=clock, floor=-math.inf)) as file:
            reasons = {file.admit(seen(f"m{number}", key="k" * 43)) for number in range(told + 1)}
            assert reasons == {Reason.REPLAYED}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["window", "window.lock"]


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_last_line_that_is_cut_off_was_not_let_in(opened, tmp_path, cut):
    file = opened()
    assert file.admit(seen("first")) is None and file.admit(seen("last")) is None
    content = (tmp_path / "window").read_bytes()
    assert len(content.splitlines()[-1]) > cut
    file.close()
    (tmp_path / "window").write_bytes(content[:-cut])
    file = opened()
    assert file.admit(seen("first")) is Reason.REPLAYED
    assert file.admit(seen("last")) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\0" * 1000,
        b"something else\n",
        b"xml-pipeline replay window 1 \n",
        b"xml-pipeline replay window 1 1-1\n",
        b"xml-pipeline replay window 2 -inf\n",
        b"xml-pipeline replay window 1 -inf",
        b"xml-pipeline replay window 1 nan\n",
        b"xml-pipeline replay window 1 -inf\nrubbish\n",
        b"xml-pipeline replay window 1 -inf\n" + f"1-1 {KEY} m\n".encode(),
        b"xml-pipeline replay window 1 -inf\n" + f"{NOON} {KEY} m".encode() + f"{NOON} {KEY} n\n".encode(),
        b"xml-pipeline replay window 1 -inf\n\n" + f"{NOON} {KEY} m\n".encode(),
    ],
)
def test_a_damaged_file_leads_to_a_window_that_knows_nothing(opened, tmp_path, content, caplog, clock):
    (tmp_path / "window").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        file = opened()
    assert "is damaged" in caplog.text and "begins anew" in caplog.text
    assert file.admit(seen(created=NOON + 30)) is Reason.NOT_REMEMBERED
    clock.now += 31
    assert file.admit(seen(created=clock.now)) is None


# -- it cannot be used


def test_one_process_at_a_time(opened, tmp_path, clock):
    file = opened()
    with pytest.raises(ConfigurationError, match="window is in use by another process"):
        ReplayFile(tmp_path / "window", clock=clock)
    assert file.admit(seen()) is None, "the first goes on"
    file.close()
    with contextlib.closing(ReplayFile(tmp_path / "window", clock=clock)) as file:
        assert file.admit(seen()) is Reason.REPLAYED


def test_a_place_that_cannot_be_written(tmp_path, clock):
    with pytest.raises(ConfigurationError, match="cannot be used: No such file or directory"):
        ReplayFile(tmp_path / "none" / "window", clock=clock)
    (tmp_path / "window").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be used: Is a directory"):
        ReplayFile(tmp_path / "window", clock=clock)
    (tmp_path / "window").rmdir()
    with contextlib.closing(ReplayFile(tmp_path / "window", clock=clock, floor=-math.inf)) as file:
        assert file.admit(seen()) is None, "nothing of the attempts is left over that locks it"


def test_bounds_that_are_none(tmp_path, clock):
    with pytest.raises(ValueError, match="max_age must be positive"):
        ReplayFile(tmp_path / "window", max_age=0, clock=clock)
    ReplayFile(tmp_path / "window", clock=clock).close()


def test_a_full_disk_lets_nothing_in_until_there_is_room(opened, tmp_path, monkeypatch, caplog):
    file = opened()
    assert file.admit(seen("before")) is None
    write = os.write

    def half(descriptor: int, content: bytes) -> int:
        write(descriptor, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", half)
    for number in range(3):
        assert file.admit(seen(f"full{number}")) is Reason.WINDOW_UNUSABLE
    assert "No space left on device" in caplog.text
    monkeypatch.setattr(os, "write", write)
    assert file.admit(seen("after")) is None
    file = opened()
    for message in ("before", "after"):
        assert file.admit(seen(message)) is Reason.REPLAYED
    assert file.admit(seen("more")) is None


def test_after_it_is_closed_nothing_comes_in(opened):
    file = opened()
    file.close()
    file.close()
    assert file.admit(seen()) is Reason.WINDOW_UNUSABLE


def test_of_many_at_once_one_comes_in(opened):
    file = opened()
    results: list[Reason | None] = []
    start = threading.Barrier(6)

    def enter() -> None:
        start.wait()
        results.extend(file.admit(seen(f"m{number}")) for number in range(200))

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(None) == 200 and results.count(Reason.REPLAYED) == 1000
    file = opened()
    assert {file.admit(seen(f"m{number}")) for number in range(200)} == {Reason.REPLAYED}
