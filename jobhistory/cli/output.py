"""Print lines and JSON, without control characters."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NoReturn

import typer

from jobhistory.cli.lines import one_line as one_line
from jobhistory.cli.lines import say as say
from jobhistory.cli.lines import shown as shown


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def log_to_stderr() -> None:
    """Print warnings on standard error, one line each, so that none can forge others."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("jobhistory: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def fail(message: str) -> NoReturn:
    """Print a line on standard error, and exit with status 1."""
    say(message)
    raise typer.Exit(1)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on one line, in ASCII, which every encoding includes."""
    print(json.dumps(value))


def print_tabbed(rows: Iterable[Sequence[str]]) -> None:
    """Print rows as they arrive, with tabs between the cells."""
    for row in rows:
        print("\t".join(row))


def iso_text(moment: datetime, timespec: str = "seconds") -> str:
    """Return a time in UTC as ISO 8601 text."""
    return moment.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"
