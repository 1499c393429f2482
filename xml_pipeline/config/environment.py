"""The variables that a configuration may use: the process's own, and those of ``.env``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from xml_pipeline.config.problems import InvalidConfiguration, Problem, one_line, quoted

__all__ = ["read_environment"]


def read_environment(directory: str | Path, *, export: bool = False) -> Mapping[str, str]:
    """The environment for an organism file in ``directory``.

    Args:
        directory: where ``.env`` is looked for. There need not be one.
        export: also put what ``.env`` adds into ``os.environ``, for handlers that read it; off by default.

    Returns:
        The variables of ``.env`` and of the process. The process's win, so that a deployment overrides a file that
        was checked in.

    Raises:
        InvalidConfiguration: ``.env`` cannot be read, or is not UTF-8 text.
    """
    path = Path(directory) / ".env"
    added: dict[str, str] = {}
    try:
        if path.is_file():
            added = {name: value for name, value in dotenv_values(path).items() if value is not None}
    except OSError as error:
        raise InvalidConfiguration([Problem(f"cannot be read: {error.strerror or error}", file=str(path))]) from None
    except ValueError as error:
        raise InvalidConfiguration([Problem(f"is not UTF-8 text: {one_line(str(error))}", file=str(path))]) from None
    for name, value in added.items():
        if "\0" in name + value:
            raise InvalidConfiguration([Problem(f"the variable {quoted(name)} contains a NUL", file=str(path))])
    if export:
        for name, value in added.items():
            os.environ.setdefault(name, value)
    return {**added, **os.environ}
