"""What all configuration models have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from xml_pipeline.config.problems import Hints, InvalidConfiguration
from xml_pipeline.config.wording import describe

__all__ = ["ConfigModel", "StrictModel"]


class StrictModel(BaseModel):
    """A model that takes no unknown fields and converts nothing silently."""

    # Values may be secrets, and what pydantic says hangs on as the context of what we say.
    model_config = ConfigDict(extra="forbid", strict=True, validate_default=False, hide_input_in_errors=True)


class ConfigModel(StrictModel):
    """A model that Python programs build. A bad argument raises `InvalidConfiguration`, in the loader's words.

    Assignment is validated like construction.
    """

    model_config = ConfigDict(validate_assignment=True, arbitrary_types_allowed=True)

    # Hidden from type checkers, which derive the constructor's keywords from the fields.
    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise InvalidConfiguration(describe(error, type(self), values, Hints())) from None

        def __setattr__(self, name: str, value: Any) -> None:
            try:
                super().__setattr__(name, value)
            except ValidationError as error:
                raise InvalidConfiguration(describe(error, type(self), {name: value}, Hints())) from None
