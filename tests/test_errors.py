"""Errors that are kept: bare copies, whatever their classes want."""

from __future__ import annotations

import pytest

from xml_pipeline import errors
from xml_pipeline.errors import BudgetExhausted, DeadlineExceeded, PipelineError


class Wanting(BudgetExhausted):
    """An error of somebody's own, which is made in a way of its own."""

    def __new__(cls, tokens: int, *, model: str) -> Wanting:
        return super().__new__(cls)

    def __init__(self, tokens: int, *, model: str) -> None:
        super().__init__(f"{tokens} tokens of {model}")
        self.tokens = tokens


def _all(cls: type[PipelineError]) -> list[type[PipelineError]]:
    return [cls, *(below for each in cls.__subclasses__() for below in _all(each))]


OURS = sorted(
    (each for each in _all(PipelineError) if each.__module__ == errors.__name__), key=lambda cls: cls.__name__
)


@pytest.mark.parametrize(
    "error", [*(cls("where", step="s", target="t") for cls in OURS), Wanting(3, model="m")], ids=str
)
def test_a_bare_copy_says_the_same_and_holds_no_frames(error: PipelineError):
    try:
        try:
            raise LookupError("why")
        except LookupError as cause:
            raise error from cause
    except PipelineError:
        pass
    twin = error.bare()
    assert type(twin) is type(error)
    assert (str(twin), twin.args, vars(twin)) == (str(error), error.args, vars(error))
    assert (twin.__traceback__, twin.__cause__, twin.__context__) == (None, None, None)
    assert error.__traceback__ is not None and error.__cause__ is not None


def test_there_are_some():
    assert DeadlineExceeded in OURS and len(OURS) > 10
