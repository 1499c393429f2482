"""``new``: what it writes works, and it destroys nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .forked import ENVIRONMENT

FILES = {"organism.yaml", "handlers.py", "test_organism.py", "pytest.ini", "README.md"}


def test_what_it_writes_can_be_checked_tested_and_asked(cli, tmp_path):
    made = cli("new", "demo")
    assert (made.code, made.err) == (0, "")
    directory = tmp_path / "demo"
    assert {file.name for file in directory.iterdir()} == FILES

    checked = cli("check", cwd=directory)
    assert (checked.code, checked.err) == (0, "")
    assert "organism 'demo' is good: 2 listeners, 1 agent" in checked.out

    sent = cli("send", "greeter", '{"name": "Ada"}', cwd=directory)
    assert (sent.code, sent.err) == (0, "")
    assert "answer: Answer(text='HELLO, ADA!')" in sent.out

    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=directory,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "2 passed" in tested.stdout


def test_the_test_that_it_writes_fails_with_the_organism(cli, tmp_path):
    cli("new", "demo")
    handlers = tmp_path / "demo" / "handlers.py"
    handlers.write_text(handlers.read_text().replace(".upper()", ".lower()"))
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path / "demo",
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 1
    assert "1 failed, 1 passed" in tested.stdout, tested.stdout


def test_it_says_how_to_go_on(cli):
    assert (
        'next: cd demo && xml-pipeline check && xml-pipeline send greeter \'{"name": "Ada"}\'' in cli("new", "demo").out
    )


def test_the_name_stands_in_all_files(cli, tmp_path):
    cli("new", "My-Own_7")
    for file in FILES - {"pytest.ini"}:
        text = (tmp_path / "My-Own_7" / file).read_text()
        assert "My-Own_7" in text
        assert "@NAME@" not in text


def test_it_refuses_to_overwrite_unless_forced(cli, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "handlers.py").write_text("mine")
    line = cli("new", "demo").complaint(1)
    assert line == "error: demo has handlers.py already; --force overwrites"
    assert [file.name for file in (tmp_path / "demo").iterdir()] == ["handlers.py"]
    assert (tmp_path / "demo" / "handlers.py").read_text() == "mine"

    assert cli("new", "demo", "--force").code == 0
    assert "mine" not in (tmp_path / "demo" / "handlers.py").read_text()


def test_a_directory_with_other_files_is_added_to(cli, tmp_path):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "notes.txt").write_text("mine")
    assert cli("new", "demo").code == 0
    assert (tmp_path / "demo" / "notes.txt").read_text() == "mine"


def test_it_can_be_made_elsewhere(cli, tmp_path):
    assert cli("new", "demo", "--directory", "some/where").code == 0
    assert (tmp_path / "some" / "where" / "demo" / "organism.yaml").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../up", "1st", "-x-", "with space", "naïve", "a" * 65, "a\nb"])
def test_a_name_that_is_no_name_is_refused(cli, tmp_path, name):
    line = cli("new", "--", name).complaint(2)
    assert "cannot be the name of an organism; begin with a letter" in line
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_told(cli, tmp_path):
    (tmp_path / "demo").write_text("a file")
    assert cli("new", "demo").complaint(1) == "error: demo exists, and is no directory; choose another name"


def test_a_place_that_cannot_be_written_is_told(cli, tmp_path):
    (tmp_path / "file").write_text("")
    line = cli("new", "demo", "--directory", "file").complaint(1)
    assert line == "error: file/demo cannot be written: Not a directory"
