"""Print lines, tables and JSON, without control characters."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any, NoReturn

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def log_to_stderr() -> None:
    """Print warnings on standard error, one line each, so that none can forge others."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("jobhistory: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)


def say(message: str) -> None:
    """Print a line on standard error."""
    if sys.stderr is not None:  # without it, print would take standard output
        print(f"jobhistory: {one_line(message)}", file=sys.stderr, flush=True)


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


def table_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return the width of each column on a terminal."""
    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def print_row(
    console: Console,
    cells: Sequence[str],
    widths: Sequence[int],
    styles: Sequence[str],
    *,
    cut: bool = False,
) -> None:
    """Print cells in columns; those without a width keep their own.

    With `cut`, the line ends at the edge of the terminal; otherwise the terminal wraps it.
    """
    line = Text("  ").join(
        Text(cell if width is None else set_cell_size(cell, width), style or "")
        for cell, width, style in zip_longest(cells, widths, styles[: len(cells)])
    )
    line.rstrip()
    if cut:
        console.print(line, no_wrap=True, overflow="ellipsis")
    else:
        console.print(line, soft_wrap=True)


def took(milliseconds: int | None) -> str:
    """Return a duration as text: `"850 ms"`, `"2.5 s"`, `"3 m 20 s"`, `"26 h 5 m"`."""
    if milliseconds is None:
        return "-"
    if milliseconds < 1000:
        return f"{milliseconds} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(milliseconds // 1000, 60)
    if minutes < 60:
        return f"{minutes} m {seconds} s"
    return f"{minutes // 60} h {minutes % 60} m"


def moment_text(moment: datetime, timespec: str = "seconds") -> str:
    """Return a time in UTC as ISO 8601 text."""
    return moment.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"


def shown(text: str) -> str:
    """Return the text with escaped control characters, except tabs and line breaks."""
    # Unprintable characters include the control characters of ASCII and Latin-1, which terminals
    # obey, and those of Unicode that change the direction of the text.
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def one_line(text: str) -> str:
    """Return the text as one line without tabs: each run of white space becomes one space."""
    return " ".join(shown(text).split())
