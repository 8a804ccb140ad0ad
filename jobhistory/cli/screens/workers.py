"""The screen of `jobhistory workers`: one line per worker."""

from __future__ import annotations

from collections.abc import Sequence

from jobhistory.cli.output import iso_text, one_line, print_tabbed
from jobhistory.cli.screens.cells import (
    age_cell,
    counted,
    id_column,
    moment_cell,
    moment_column,
    number_column,
)
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Row, Table
from jobhistory.cli.screens.units import count_text
from jobhistory.query.reports import WorkerActivity

_HEADINGS = ("LAST SEEN (UTC)", "RUNS", "RUNNING", "FAILED", "LOST", "WORKER")
_STYLES = ("", "cyan", "red", "bold red")
"""The styles of counts other than zero."""


def print_workers(screen: Screen, workers: Sequence[WorkerActivity]) -> None:
    """Print one line per worker, and a last one for all of them if there are several."""
    if not screen.is_terminal:
        print_tabbed([_HEADINGS])
        print_tabbed(map(_texts, workers))
        return
    if not workers:
        screen.print("no workers")
        return
    columns = [
        moment_column("LAST SEEN", 30, (worker.last_seen for worker in workers), screen),
        Column("AGE", 50),
        *(number_column(heading, 60) for heading in _HEADINGS[1:5]),
        id_column("WORKER", 70),
    ]
    rows = [
        (
            moment_cell(worker.last_seen, screen),
            age_cell(worker.last_seen, screen),
            *_counts(worker),
            Cell(screen.text(worker.worker_id)),
        )
        for worker in workers
    ]
    Table(columns, rows, _total(workers) if len(workers) > 1 else None).print(screen)


def _numbers(worker: WorkerActivity) -> tuple[int, ...]:
    return (worker.executions, worker.running, worker.failed, worker.lost)


def _counts(worker: WorkerActivity) -> Row:
    return [
        Cell(count_text(count), style if count else "")
        for count, style in zip(_numbers(worker), _STYLES, strict=True)
    ]


def _total(workers: Sequence[WorkerActivity]) -> Row:
    sums = [sum(counts) for counts in zip(*map(_numbers, workers), strict=True)]
    name = Cell(counted(len(workers), "worker"))
    return (Cell(""), Cell(""), *(Cell(count_text(each)) for each in sums), name)


def _texts(worker: WorkerActivity) -> tuple[str, ...]:
    return (
        iso_text(worker.last_seen),
        *map(str, _numbers(worker)),
        one_line(worker.worker_id),
    )
