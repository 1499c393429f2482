"""Calling constructors of classes that are not ours."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from .errors import DecodeError
from .fields import is_model

__all__ = ["construct", "refused"]


def construct(cls: type, arguments: dict[str, Any]) -> Any:
    """Make an instance; whatever the class raises becomes a `DecodeError`."""
    try:
        return cls.model_validate(arguments) if is_model(cls) else cls(**arguments)
    except Exception as error:
        raise refused(error) from error


def refused(error: Exception) -> DecodeError:
    """Tell why a constructor, ``__post_init__`` or validator raised ``error``."""
    if isinstance(error, ValidationError):
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or 'value'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        return DecodeError("the class refused the values: " + "; ".join(problems))
    return DecodeError(f"the class refused the values: {type(error).__name__}: {error}")
