"""Files with keys: closed to others, whole or not there at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from xml_pipeline.crypto import key_file
from xml_pipeline.crypto.key_file import read_key_file, write_key_file
from xml_pipeline.crypto.refusals import IdentityError


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666, 0o777])
def test_a_private_key_that_others_can_reach_is_not_used(tmp_path, mode):
    path = tmp_path / "me.key"
    path.write_bytes(b"secret")
    path.chmod(mode)
    with pytest.raises(IdentityError, match=f"others can reach it .mode {mode:04o}.*chmod 600") as caught:
        read_key_file(path, private=True)
    assert "secret" not in str(caught.value)
    assert read_key_file(path, private=False) == b"secret"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_one_that_is_closed_is(tmp_path, mode):
    path = tmp_path / "me.key"
    path.write_bytes(b"secret")
    path.chmod(mode)
    assert read_key_file(path, private=True) == b"secret"


def test_the_file_of_somebody_else_is_his_business(tmp_path, monkeypatch):
    """As with ssh: what an orchestrator mounts belongs to another user, with the modes that it was told to give it."""
    path = tmp_path / "me.key"
    path.write_bytes(b"secret")
    path.chmod(0o640)
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    assert read_key_file(path, private=True) == b"secret"


def test_a_link_leads_to_the_file_and_its_mode(tmp_path):
    (tmp_path / "real").write_bytes(b"secret")
    (tmp_path / "real").chmod(0o644)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(IdentityError, match="others can reach it"):
        read_key_file(tmp_path / "link", private=True)


def test_what_is_no_file_is_said_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, told in ((tmp_path, "not a regular file"), (tmp_path / "pipe", "not a regular file"), ("/dev/zero", "")):
        with pytest.raises(IdentityError, match=f"Failed to load the key file .*{told}"):
            read_key_file(path, private=True)
    with pytest.raises(IdentityError, match="Failed to load the key file"):
        read_key_file(f"{tmp_path}/a\0b", private=True)
    with pytest.raises(IdentityError, match="not found"):
        read_key_file(tmp_path / "none", private=True)


@pytest.fixture
def open_mask() -> Iterator[None]:
    """As if the user had asked for files that everybody may write."""
    mask = os.umask(0)
    yield
    os.umask(mask)


@pytest.mark.usefixtures("open_mask")
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_private_key_is_closed_from_the_first_moment_on(tmp_path, overwrite, monkeypatch):
    modes = []
    write = os.fsync

    def look(descriptor: int) -> None:
        modes.append(os.fstat(descriptor).st_mode & 0o777)
        write(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_key_file(tmp_path / "me.key", b"secret", private=True, overwrite=overwrite)
    assert modes == [0o600]
    assert (tmp_path / "me.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "me.key").read_bytes() == b"secret"


@pytest.mark.usefixtures("open_mask")
def test_an_open_file_is_replaced_by_a_closed_one(tmp_path):
    (tmp_path / "me.key").write_bytes(b"old")
    (tmp_path / "me.key").chmod(0o666)
    with pytest.raises(IdentityError, match="exists already"):
        write_key_file(tmp_path / "me.key", b"new", private=True)
    assert (tmp_path / "me.key").read_bytes() == b"old"
    write_key_file(tmp_path / "me.key", b"new", private=True, overwrite=True)
    assert (tmp_path / "me.key").read_bytes() == b"new"
    assert (tmp_path / "me.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, overwrite, monkeypatch):
    (tmp_path / "me.key").write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(IdentityError, match="cannot be written: No space left"):
        write_key_file(tmp_path / "me.key", b"new", private=True, overwrite=overwrite)
    assert os.listdir(tmp_path) == ["me.key"] and (tmp_path / "me.key").read_bytes() == b"old"


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def fail(source: object, target: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    write_key_file(tmp_path / "me.key", b"one", private=True)
    with pytest.raises(IdentityError, match="exists already"):
        write_key_file(tmp_path / "me.key", b"two", private=True)
    assert (tmp_path / "me.key").read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["me.key"]


def test_of_many_who_write_at_once_one_succeeds_wholly(tmp_path):
    contents = [bytes([number]) * 5_000 for number in range(8)]
    written: list[bytes] = []
    start = threading.Barrier(len(contents))

    def write(content: bytes) -> None:
        start.wait()
        try:
            write_key_file(tmp_path / "me.key", content, private=True)
        except IdentityError:
            return
        written.append(content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert written == [(tmp_path / "me.key").read_bytes()]
    assert os.listdir(tmp_path) == ["me.key"]


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(IdentityError, match="cannot be written: No such file or directory"):
        write_key_file(tmp_path / "none" / "me.key", b"secret", private=True)


def test_a_device_is_not_read_to_its_end():
    assert key_file._MAX_BYTES < 100_000
    with pytest.raises(IdentityError, match="not a regular file"):
        read_key_file("/dev/zero", private=False)
