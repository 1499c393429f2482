"""``.oam-url``, and where the mesh is for whoever was not told."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.mesh import ConnectionFailed
from xml_pipeline.mesh.options import find_credentials
from xml_pipeline.mesh.place import Place, find_place
from xml_pipeline.mesh.pointer import (
    Pointer,
    check_url,
    nearest_pointer,
    read_pointer,
    remove_pointer,
    write_pointer,
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory in a directory, without anything around that says where the mesh is."""
    for name in ("OAM_URL", "OAM_CREDS"):
        monkeypatch.delenv(name, raising=False)
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    return below


URL = "nats://host:1234"


@pytest.mark.parametrize(
    ("text", "url", "creds"),
    [
        (URL, URL, ""),
        (f"\n \t\n  {URL}  \nmore", URL, ""),
        (f"\ufeff{URL}\r\n", URL, ""),
        ("host:1234", "host:1234", ""),
        ("", "", ""),
        (" \n\n", "", ""),
        ("# nothing yet", "", ""),
        (f'url = "{URL}"', URL, ""),
        (f'url = "{URL}"\ncreds = "me.creds"', URL, "{folder}/me.creds"),
        ('creds = "/abs/me.creds"\nother = 1', "", "/abs/me.creds"),
        ("tls://a:1,nats://user:p=w@b:2", "tls://a:1,nats://user:p=w@b:2", ""),
        ("nats://[::1]:4222/", "nats://[::1]:4222/", ""),
    ],
)
def test_both_forms_are_read(tmp_path, text, url, creds):
    path = tmp_path / ".oam-url"
    path.write_text(text, encoding="utf-8")
    assert read_pointer(path) == Pointer(path, url, creds.format(folder=tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        b'url = "nats://host',
        b"not a url",
        b"http://host",
        b'url = "http://host"',
        b"url = 5",
        b"urls = []",
        b"\xff\xfe",
        b"\x0b",
        b"nats://host:99999",
        b"nats://a,,b",
    ],
)
def test_what_makes_no_sense_is_told_with_its_place(tmp_path, text):
    path = tmp_path / ".oam-url"
    path.write_bytes(text)
    with pytest.raises(ConnectionFailed, match=r"\.oam-url"):
        read_pointer(path)


@given(st.binary(max_size=200))
def test_no_file_does_worse_than_that(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / ".oam-url"
    path.write_bytes(content)
    try:
        found = read_pointer(path)
    except ConnectionFailed:
        return
    assert not found.url or check_url(found.url)


def test_the_nearest_one_counts(here):
    assert nearest_pointer(here) is None or nearest_pointer(here).path.parent not in here.parents[:2]
    (here.parent / ".oam-url").write_text(URL)
    assert nearest_pointer().url == nearest_pointer(here).url == URL
    (here / ".oam-url").mkdir()  # no file
    assert nearest_pointer().url == URL
    (here / ".oam-url").rmdir()
    (here / ".oam-url").write_text("nats://nearer:1")
    assert nearest_pointer().url == "nats://nearer:1"
    assert nearest_pointer(here.parent).url == URL


def test_without_a_current_directory_there_is_none(here):
    here.rmdir()
    assert nearest_pointer() is None


def test_it_is_written_as_every_peer_reads_it(tmp_path):
    path = write_pointer(tmp_path, URL)
    assert path.read_bytes() == URL.encode() + b"\n"
    with pytest.raises(FileExistsError):
        write_pointer(tmp_path, "nats://other:1")
    assert read_pointer(path).url == URL
    write_pointer(tmp_path, "nats://other:1", replace=True)
    assert read_pointer(path).url == "nats://other:1"
    assert [file.name for file in tmp_path.iterdir()] == [".oam-url"]


def test_a_dangling_link_is_not_written_through(tmp_path):
    (tmp_path / ".oam-url").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write_pointer(tmp_path, URL)
    write_pointer(tmp_path, URL, replace=True)
    assert not (tmp_path / "elsewhere").exists()


def test_it_is_removed_if_it_still_says_the_same(tmp_path):
    path = write_pointer(tmp_path, URL)
    assert not remove_pointer(path, "nats://other:1")
    assert remove_pointer(path, URL)
    assert not remove_pointer(path, URL)
    assert os.listdir(tmp_path) == []


# -- where


def test_the_default(here):
    assert find_place() == Place("nats://localhost:4222", "", "the default")


def test_what_is_nearer_wins(here, monkeypatch):
    file = here.parent / ".oam-url"
    file.write_text('url = "nats://file:1"\ncreds = "file.creds"')
    creds = str(here.parent / "file.creds")
    assert find_place() == Place("nats://file:1", creds, str(file))
    monkeypatch.setenv("OAM_URL", "nats://environment:1")
    assert find_place() == Place("nats://environment:1", creds, "OAM_URL")
    monkeypatch.setenv("OAM_CREDS", "environment.creds")
    assert find_place() == Place("nats://environment:1", "environment.creds", "OAM_URL")
    assert find_place("nats://given:1") == Place("nats://given:1", "environment.creds", "")
    assert find_place("nats://given:1", "given.creds") == Place("nats://given:1", "given.creds", "")
    monkeypatch.setenv("OAM_URL", " ")
    assert find_place("", "given.creds") == Place("nats://file:1", "given.creds", str(file)), "nothing is said"


def test_a_file_without_a_url_leaves_the_default(here):
    (here / ".oam-url").write_text('creds = "me.creds"')
    assert find_place() == Place("nats://localhost:4222", str(here / "me.creds"), "the default")
    assert find_credentials() == str(here / "me.creds")


def test_what_is_no_url_is_told_with_who_said_it(here, monkeypatch):
    with pytest.raises(ValueError, match=r"^'http://x' is not the URL"):
        find_place("http://x")
    monkeypatch.setenv("OAM_URL", "http://x")
    with pytest.raises(ValueError, match=r"^OAM_URL: 'http://x' is not the URL"):
        find_place()
    assert find_place("nats://x").url == "nats://x"
    monkeypatch.delenv("OAM_URL")
    (here / ".oam-url").write_text("no url")
    with pytest.raises(ConnectionFailed, match="no url"):
        find_place()


def test_a_password_is_not_shown():
    with pytest.raises(ValueError, match="not the URL") as caught:
        check_url("nats://me:secret@host:port:1")
    assert "secret" not in str(caught.value)
