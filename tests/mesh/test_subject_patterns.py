"""What patterns of subjects hold, compared with every subject of a small alphabet."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xml_pipeline.mesh.subject_patterns import common, holds

LONGEST = 3
TOKENS = ("a", "b", "no pattern names this")
SUBJECTS = [list(each) for length in range(1, LONGEST + 3) for each in product(TOKENS, repeat=length)]

patterns = st.builds(
    lambda tokens, rest: ".".join([*tokens, *rest]),
    st.lists(st.sampled_from(["a", "b", "*"]), max_size=LONGEST - 1),
    st.sampled_from([["a"], ["b"], ["*"], [">"]]),
)


def fitting(pattern):
    """The numbers of the subjects that a pattern fits, by its definition."""
    *tokens, last = pattern.split(".")
    return {
        number
        for number, subject in enumerate(SUBJECTS)
        if (len(subject) > len(tokens) if last == ">" else len(subject) == len(tokens) + 1)
        and all(token in ("*", subject[index]) for index, token in enumerate(tokens))
        and last in (">", "*", subject[len(tokens)])
    }


@given(st.lists(patterns, max_size=4), patterns)
def test_what_holds_a_pattern_fits_every_subject_that_it_fits(wide, narrow):
    assert holds(wide, narrow) == (fitting(narrow) <= set().union(*map(fitting, wide)))


@given(patterns, patterns)
def test_what_two_have_in_common_is_what_both_fit(one, other):
    both = common(one, other)
    assert (fitting(both) if both else set()) == fitting(one) & fitting(other)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        (["orders.new"], "orders.>", False),
        (["orders.*", "orders.*.>"], "orders.>", True),
        (["orders.*", "orders.*.*.>"], "orders.>", False),
        (["orders.>"], "orders", False),
        (["orders.new", "orders.old"], "orders.*", False),
        (["*", "*.>"], ">", True),
        (["*", "*.*"], ">", False),
        (["*", "*.*", "*.*.*.>"], ">", False),
        (["a", "a.*", "a.*.*.>", "a.*.*"], "a.>", True),
        ([], "orders", False),
    ],
)
def test_patterns_that_together_hold_one(wide, narrow, expected):
    assert holds(wide, narrow) is expected
