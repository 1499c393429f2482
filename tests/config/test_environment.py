from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from xml_pipeline.config import InvalidConfiguration, read_environment


@pytest.fixture(autouse=True)
def process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OURS": "process"})


def without_pytest(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith("PYTEST")}


def test_without_a_file_it_is_the_environment_of_the_process(tmp_path: Path) -> None:
    assert without_pytest(read_environment(tmp_path)) == {"OURS": "process"}


def test_variables_of_the_file_are_added_and_those_of_the_process_win(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# comment\nOURS=file\nTHEIRS='a b'\nexport THIRD=c\nNOTHING\n")
    assert without_pytest(read_environment(tmp_path)) == {"OURS": "process", "THEIRS": "a b", "THIRD": "c"}
    assert without_pytest(os.environ) == {"OURS": "process"}


def test_the_environment_of_the_process_is_changed_only_on_demand(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OURS=file\nTHEIRS=a\n")
    read_environment(tmp_path, export=True)
    assert without_pytest(os.environ) == {"OURS": "process", "THEIRS": "a"}


def test_a_directory_of_that_name_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    assert without_pytest(read_environment(tmp_path)) == {"OURS": "process"}


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    with pytest.raises(InvalidConfiguration, match=r"\.env: is not UTF-8 text"):
        read_environment(tmp_path)


def test_a_variable_that_no_process_can_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=x\x00y\n")
    with pytest.raises(InvalidConfiguration, match=r"\.env: the variable 'A' contains a NUL"):
        read_environment(tmp_path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / ".env").touch()
    monkeypatch.setattr("xml_pipeline.config.environment.dotenv_values", refuse)
    with pytest.raises(InvalidConfiguration, match=r"\.env: cannot be read: Permission denied"):
        read_environment(tmp_path)
