"""The screen of `jobhistory list`: one line per execution, and its error below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobhistory._runtime.durations import took
from jobhistory.cli.output import iso_text, one_line, print_json, print_tabbed
from jobhistory.cli.screens.cells import (
    age_cell,
    error_text,
    id_column,
    moment_cell,
    moment_column,
    name_column,
    number_column,
    status_cell,
)
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Row, Table
from jobhistory.cli.screens.units import Unit, unit_of
from jobhistory.expectations.missed import MissedRun, among
from jobhistory.schema import HistoryRecord

HEADINGS = ("STARTED (UTC)", "STATUS", "TOOK", "TASK", "JOB", "ERROR")


def print_records_json(records: Iterable[HistoryRecord]) -> None:
    """Print records as they arrive, each as JSON on one line."""
    for record in records:
        print_json(record.to_dict())


def print_all(records: Iterable[HistoryRecord]) -> None:
    """Print records as they arrive, one tab-separated line each."""
    print_tabbed([HEADINGS])
    print_tabbed(map(record_cells, records))


def print_records(
    screen: Screen,
    records: Sequence[HistoryRecord],
    missed: Iterable[MissedRun] = (),
    order: str = "",
) -> None:
    """Print one line per record: aligned on a terminal, tab-separated in a pipe.

    On a terminal, runs that were missed stand among them, where they were due.
    """
    if not screen.is_terminal:
        print_all(records)
        return
    entries = among(records, missed, order=order)
    if not entries:
        screen.print("no executions")
        return
    unit = unit_of(record.execution_time_ms for record in records)
    columns = record_columns(screen, records, unit)
    rows = [
        _missed_row(screen, entry)
        if isinstance(entry, MissedRun)
        else record_row(screen, entry, unit)
        for entry in entries
    ]
    Table(columns, rows).without_empty().print(screen)


def record_columns(screen: Screen, records: Sequence[HistoryRecord], unit: Unit) -> list[Column]:
    """Return the columns of a table of records."""
    return [
        moment_column("STARTED", 50, (record.started_at for record in records), screen),
        Column("AGE", 10),
        Column("STATUS", 60),
        number_column(f"TOOK ({unit.name})", 40),
        name_column("TASK", 70),
        id_column("JOB", 55),
        Column("ERROR", moves_below=True),
    ]


def record_row(screen: Screen, record: HistoryRecord, unit: Unit) -> Row:
    """Return the row of a record."""
    return (
        moment_cell(record.started_at, screen),
        age_cell(record.started_at, screen),
        status_cell(record.status),
        Cell(unit.text(record.execution_time_ms)),
        Cell(screen.text(record.task_identifier)),
        Cell(screen.text(record.job_id)),
        Cell(screen.text(error_text(record)), "red"),
    )


def _missed_row(screen: Screen, missed: MissedRun) -> Row:
    return (
        moment_cell(missed.due_at, screen),
        age_cell(missed.due_at, screen),
        Cell("missed", "red"),
        Cell("-"),
        Cell(screen.text(missed.task_identifier), "dim"),
        Cell("-"),
        Cell(""),
    )


def record_cells(record: HistoryRecord) -> tuple[str, ...]:
    """Return the cells of one line in a pipe, under `HEADINGS`."""
    return (
        iso_text(record.started_at),
        record.status.value,
        took(record.execution_time_ms),
        one_line(record.task_identifier),
        one_line(record.job_id),
        one_line(error_text(record)),
    )
