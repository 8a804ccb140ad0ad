"""How records look: aligned on a terminal, a line each in a pipe, a JSON object each on demand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import zip_longest
from textwrap import indent
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from jobhistory.execution.status import Status
from jobhistory.schema import COLUMN_NAMES, HistoryRecord

_STYLES = {
    Status.STARTED: "cyan",
    Status.COMPLETED: "green",
    Status.FAILED: "bold red",
    Status.PARTIAL_SUCCESS: "yellow",
}
_LABEL_WIDTH = 21
_HEADINGS = ("STARTED (UTC)", "STATUS", "TOOK", "TASK", "JOB", "ERROR")


def say(message: str) -> None:
    """Print a line on standard error."""
    if sys.stderr is not None:  # without it, print would take standard output
        print(f"jobhistory: {one_line(message)}", file=sys.stderr, flush=True)


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on a line of its own; ASCII, so that any pipe can take it."""
    print(json.dumps(value, default=_json_text))


def record_json(record: HistoryRecord) -> dict[str, Any]:
    """All columns of a record."""
    return {name: getattr(record, name) for name in COLUMN_NAMES}


def print_records(records: Iterable[HistoryRecord]) -> None:
    """Print a line for each record: in a pipe with tabs between, on a terminal aligned.

    On a terminal the error has a line of its own below, cut to the width.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        print_all(records)
        return
    rows = [_HEADINGS, *map(_cells, records)]
    if len(rows) == 1:
        console.print("no executions")
        return
    widths = table_widths(rows)[:-1]
    for number, (*cells, error) in enumerate(rows):
        styles = ["bold"] * 5 if number == 0 else ["", _STYLES[Status(cells[1])]]
        print_row(console, cells, widths, styles)
        if number and error:
            console.print(Text(f"    {error}", "red"), no_wrap=True, overflow="ellipsis")


def print_all(records: Iterable[HistoryRecord]) -> None:
    """Print a line for each record as it comes, with tabs between its fields."""
    print_tabbed([_HEADINGS])
    print_tabbed(map(_cells, records))


def print_tabbed(rows: Iterable[Sequence[str]]) -> None:
    """Print the rows as they come, with tabs between their cells."""
    for row in rows:
        print("\t".join(row))


def table_widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """How wide the columns of a table are on a terminal."""
    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def print_row(
    console: Console,
    cells: Sequence[str],
    widths: Sequence[int],
    styles: Sequence[str],
    *,
    cut: bool = False,
) -> None:
    """Print the cells in columns; cells beyond the widths are as long as they are.

    The line is as long as it is, or with `cut` no longer than the terminal is wide.
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


def print_details(records: Iterable[HistoryRecord]) -> None:
    """Print everything that is known of each record; lines are as long as they are."""
    console = Console(highlight=False, soft_wrap=True)
    for number, record in enumerate(records):
        if number:
            console.print()
        title = Text(one_line(record.task_identifier), "bold").append("  ", "")
        console.print(title.append(record.status.value, _STYLES[record.status]))
        for name, value in _details(record):
            lines = indent(shown(value), " " * _LABEL_WIDTH).lstrip()
            console.print(Text(f"  {name}".ljust(_LABEL_WIDTH), "dim").append(lines, "not dim"))
        if record.error_stack:
            console.print(Text(indent(shown(record.error_stack.rstrip()), "  ")))


def took(milliseconds: int | None) -> str:
    """A duration as people say it: `"850 ms"`, `"2.5 s"`, `"3 m 20 s"`, `"26 h 5 m"`."""
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


def _cells(record: HistoryRecord) -> tuple[str, ...]:
    return (
        moment_text(record.started_at),
        record.status.value,
        took(record.execution_time_ms),
        one_line(record.task_identifier),
        one_line(record.job_id),
        one_line(_error_line(record)),
    )


def _error_line(record: HistoryRecord) -> str:
    if record.error_type is None:
        return ""
    lines = (record.error_message or "").strip().splitlines()
    return f"{record.error_type}: {lines[0]}" if lines else record.error_type


def _details(record: HistoryRecord) -> Iterator[tuple[str, str]]:
    for name in COLUMN_NAMES:
        value = getattr(record, name)
        if value is not None and name not in ("task_identifier", "status", "error_stack"):
            yield name, _detail(name, value)


def _detail(name: str, value: Any) -> str:
    if isinstance(value, datetime):
        return moment_text(value, timespec="milliseconds")
    if name.endswith("_time_ms"):
        return took(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def moment_text(moment: datetime, timespec: str = "seconds") -> str:
    """A moment as ISO 8601 text, in UTC."""
    return moment.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"


def shown(text: str) -> str:
    """Return the text with escapes for all that a terminal obeys, except tabs and line breaks."""
    # Not printable are the control characters of ASCII and of Latin-1, which terminals obey, and
    # those of Unicode that change the direction of what follows.
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()
        for char in text
    )


def one_line(text: str) -> str:
    """Return the text as one line and one field: a space for each run of spaces and line breaks."""
    return " ".join(shown(text).split())


def _json_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
