"""The screen of `jobhistory show`: all that is known of executions, after a summary of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from rich.text import Text

from jobhistory._runtime.ages import relative_in_words
from jobhistory._runtime.durations import took
from jobhistory.cli.output import iso_text
from jobhistory.cli.screens.cells import (
    STYLES,
    age_cell,
    counted,
    error_text,
    id_column,
    moment_cell,
    moment_column,
    moment_text,
    number_column,
    status_cell,
)
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Table
from jobhistory.cli.screens.units import unit_of
from jobhistory.execution.tracebacks import parts_of
from jobhistory.schema import COLUMN_NAMES, HistoryRecord

_LABEL_WIDTH = 21
_IN_TITLE = ("task_identifier", "status", "error_stack")


def print_details(screen: Screen, records: Sequence[HistoryRecord]) -> None:
    """Print all columns of each record, without cutting any; of several, first a summary."""
    if len(records) > 1 and screen.is_terminal:
        _print_summary(screen, records)
        screen.print()
    for number, record in enumerate(records):
        if number:
            screen.print()
        _print_record(screen, record)


def _print_summary(screen: Screen, records: Sequence[HistoryRecord]) -> None:
    """Print one line per attempt."""
    unit = unit_of(record.execution_time_ms for record in records)
    columns = [
        number_column("ATTEMPT", 70),
        moment_column("STARTED", 50, (record.started_at for record in records), screen),
        Column("AGE", 10),
        Column("STATUS", 60),
        number_column(f"TOOK ({unit.name})", 40),
        id_column("WORKER", 30),
        Column("ERROR", moves_below=True),
    ]
    rows = [
        (
            Cell(str(record.attempt_number)),
            moment_cell(record.started_at, screen),
            age_cell(record.started_at, screen),
            status_cell(record.status),
            Cell(unit.text(record.execution_time_ms)),
            Cell(screen.text(record.worker_id)),
            Cell(screen.text(error_text(record)), "red"),
        )
        for record in records
    ]
    title = (screen.text(records[0].job_id), "bold")
    screen.print_folded(Text.assemble(title, f"  {counted(len(records), 'execution')}"))
    Table(columns, rows).print(screen)


def _print_record(screen: Screen, record: HistoryRecord) -> None:
    title = (screen.text(record.task_identifier), "bold")
    screen.print_folded(Text.assemble(title, "  ", (record.status.value, STYLES[record.status])))
    for name, value in _details(screen, record):
        label = Text(f"  {name}".ljust(_LABEL_WIDTH), "dim")
        screen.print_folded(Text(screen.lines(value)), label)
    if record.error_stack:
        _print_stack(screen, screen.lines(record.error_stack.rstrip()))


def _print_stack(screen: Screen, stack: str) -> None:
    """Print a traceback, in which the app's own frames and the errors stand out."""
    for part in parts_of(stack):
        for line in part.text.splitlines():
            style = "dim" if line.startswith(("Traceback", " ")) else "red"
            screen.print_folded(Text(line, style), Text("  "))
        for frame in part.frames:
            place, *source = frame.lines
            screen.print_folded(Text(place, "bold" if frame.is_own else "dim"), Text("  "))
            for line in source:
                screen.print_folded(Text(line, "" if frame.is_own else "dim"), Text("  "))


def _details(screen: Screen, record: HistoryRecord) -> Iterator[tuple[str, str]]:
    for name in COLUMN_NAMES:
        value = getattr(record, name)
        if value is not None and name not in _IN_TITLE:
            yield name, _detail(screen, name, value)


def _detail(screen: Screen, name: str, value: Any) -> str:
    if isinstance(value, datetime):
        return _moment(screen, value)
    if name.endswith("_time_ms"):
        return took(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _moment(screen: Screen, moment: datetime) -> str:
    if not screen.is_terminal:
        return iso_text(moment, timespec="milliseconds")
    text = f"{moment_text(moment, screen, 'milliseconds')} {screen.zone([moment])}"
    return f"{text} ({relative_in_words(moment, screen.now)})"
