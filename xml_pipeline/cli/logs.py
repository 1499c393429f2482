"""Logs of a command: on stderr, from the level that was asked for."""

from __future__ import annotations

import logging
import sys

__all__ = ["log_to_stderr"]


def log_to_stderr(level: str) -> None:
    """Send the logs of all modules, the organism's own included, to stderr.

    Args:
        level: the least level shown, e.g. ``warning``.
    """
    logging.basicConfig(
        stream=sys.stderr,
        level=level.upper(),
        format="%(asctime)s %(levelname)-8s %(name)s: %(message)s",
        force=True,
    )
    # What a reload did or could not do is this room's to tell, in its own words; what it warns of is not.
    logging.getLogger("xml_pipeline.message_bus.reload").addFilter(lambda record: record.levelno == logging.WARNING)
    # So is what a shutdown left unfinished: it is in the report.
    logging.getLogger("xml_pipeline.message_bus.lifecycle").addFilter(_is_not_in_the_report)


def _is_not_in_the_report(record: logging.LogRecord) -> bool:
    return not (record.levelno == logging.WARNING and str(record.msg).startswith("shutdown: "))
