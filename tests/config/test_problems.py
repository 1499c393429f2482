from __future__ import annotations

import pickle

import pytest

from xml_pipeline.config.problems import Hints, InvalidConfiguration, Problem, format_path, one_line, quoted
from xml_pipeline.errors import ConfigurationError


def test_a_problem_is_one_line_with_file_line_column_and_path() -> None:
    problem = Problem("is wrong", ("listeners", 1, "peers", 0)).located("organism.yaml", 14, 7)
    assert str(problem) == "organism.yaml:14:7 listeners[1].peers[0]: is wrong"


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("broken"), "broken"),
        (Problem("broken", file="a.yaml"), "a.yaml: broken"),
        (Problem("broken", ("organism",), file="a.yaml"), "a.yaml organism: broken"),
        (Problem("broken", ("organism",)), "organism: broken"),
        (Problem("broken", file="a.yaml", line=3, column=4), "a.yaml:3:4: broken"),
        (Problem("broken", line=3, column=4), "3:4: broken"),
        (Problem("broken", file="a\nb.yaml"), "'a\\nb.yaml': broken"),
    ],
)
def test_what_is_not_known_of_the_place_is_left_out(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_a_path_quotes_keys_that_are_no_names() -> None:
    assert format_path(("a", "b-c", 0, "d e", "f\ng")) == "a.b-c[0]['d e']['f\\ng']"


def test_a_problem_can_be_moved_under_a_prefix() -> None:
    assert Problem("x", ("name",)).under(("listeners", 2)).path == ("listeners", 2, "name")


def test_the_error_has_a_line_for_each_problem() -> None:
    problems = [Problem("one"), Problem("two", ("a",))]
    error = InvalidConfiguration(problems)
    assert str(error) == "one\na: two"
    assert error.problems == tuple(problems)
    assert error.code == "configuration"


def test_the_error_is_a_configuration_error_and_a_value_error() -> None:
    assert issubclass(InvalidConfiguration, ConfigurationError)
    assert issubclass(InvalidConfiguration, ValueError)


def test_the_error_shows_a_hundred_problems_and_keeps_all() -> None:
    error = InvalidConfiguration(Problem(str(number)) for number in range(150))
    assert str(error).splitlines()[-1] == "... and 50 more"
    assert len(str(error).splitlines()) == 101
    assert len(error.problems) == 150


def test_the_error_can_be_made_of_a_text_and_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(InvalidConfiguration("broken")))
    assert str(error) == "broken"
    assert error.problems == (Problem("broken"),)


def test_the_nearest_candidate_is_suggested_whatever_its_case() -> None:
    assert Hints().did_you_mean("PEERZ", ["peers", "prompt"], "key") == ", did you mean 'peers'?"
    assert Hints().did_you_mean("zzz", ["peers", "prompt"], "key") == ""


def test_suggestions_have_a_budget_for_each_kind_and_repeated_questions_are_free() -> None:
    hints = Hints(budget=1)
    assert hints.did_you_mean("peerz", ["peers"], "key")
    assert hints.did_you_mean("peerz", ["peers"], "key")
    assert hints.did_you_mean("peerx", ["peers"], "key") == ""
    assert hints.did_you_mean("peerx", ["peers"], "peer")


def test_long_words_are_not_compared() -> None:
    assert Hints().did_you_mean("a" * 100, ["a" * 99], "key") == ""


def test_quotes_are_short_and_printable() -> None:
    assert quoted("a\nb") == "'a\\nb'"
    assert len(quoted("x" * 1000)) < 100


def test_foreign_texts_become_one_short_printable_line() -> None:
    assert one_line("a\n  b\tc") == "a b c"
    assert one_line("a\x00b") == "a\N{REPLACEMENT CHARACTER}b"
    assert len(one_line("x" * 10_000)) == 400
