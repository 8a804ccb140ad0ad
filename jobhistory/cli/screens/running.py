"""The screen of `jobhistory running`: how long executions run, and how long is usual."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from jobhistory._runtime.durations import took
from jobhistory.base_store import BaseStore
from jobhistory.cli.charts import bar
from jobhistory.cli.output import iso_text, one_line, print_tabbed
from jobhistory.cli.screens.cells import (
    id_column,
    moment_cell,
    moment_column,
    name_column,
    number_column,
)
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Row, Table
from jobhistory.cli.screens.units import Unit, unit_of
from jobhistory.query.usual import Usual, elapsed_ms, week_before
from jobhistory.schema import HistoryRecord

_HEADINGS = ("STARTED (UTC)", "FOR", "TASK", "JOB", "WORKER")
_BAR = ""
_BAR_WIDTH = 10
_LONGER = "+"
_CAPTION = (
    "usual: 95 % of the runs of the task in the last week took no longer; "
    f"a full bar is as long, and {_LONGER} is longer"
)


def usual_limits(
    store: BaseStore, records: Sequence[HistoryRecord], now: datetime
) -> dict[str, int]:
    """Return what nearly all runs of the last week took at most, in milliseconds, by task.

    Tasks that ran too rarely are left out.
    """
    tasks = sorted({record.task_identifier for record in records})
    if not tasks:
        return {}
    known = {
        stats.task_identifier: Usual.of(stats, lambda stats: stats.execution_time_ms)
        for stats in store.stats(week_before(tasks, now, now))
    }
    return {task: usual.high for task, usual in known.items() if usual is not None}


def print_running(
    screen: Screen, records: Sequence[HistoryRecord], usual: Mapping[str, int]
) -> None:
    """Print one line per execution: how long it has been running, and how long is usual."""
    times = [elapsed_ms(record, screen.now) for record in records]
    if not screen.is_terminal:
        print_tabbed([_HEADINGS])
        print_tabbed(map(_texts, records, times))
        return
    if not records:
        screen.print("nothing is running")
        return
    limits = [usual.get(record.task_identifier) for record in records]
    unit = unit_of([*times, *limits])
    usual_heading = f"USUAL ({unit.name})"
    columns = [
        moment_column("STARTED", 20, (record.started_at for record in records), screen),
        number_column(f"FOR ({unit.name})", 90),
        Column(_BAR, 60),
        number_column(usual_heading, 50),
        name_column("TASK", 80),
        id_column("JOB", 70),
        id_column("WORKER", 30),
    ]
    rows = [
        _row(screen, record, time, limit, unit)
        for record, time, limit in zip(records, times, limits, strict=True)
    ]
    table, count = Table(columns, rows), f"{len(records):,} running"
    if not any(limits):
        table.without(_BAR, usual_heading).print(screen)
        screen.print_note(count)
        return
    table.print(screen)
    overdue = sum(map(_is_longer, times, limits))
    screen.print_note(f"{count}, {overdue:,} of them for longer than usual")
    screen.print_note(_CAPTION)


def _row(screen: Screen, record: HistoryRecord, time: int, limit: int | None, unit: Unit) -> Row:
    style = "bold red" if _is_longer(time, limit) else ""
    return (
        moment_cell(record.started_at, screen),
        Cell(unit.text(time), style),
        Cell(_bar(screen, time, limit), style or "cyan"),
        Cell(unit.text(limit)),
        Cell(screen.text(record.task_identifier)),
        Cell(screen.text(record.job_id)),
        Cell(screen.text(record.worker_id)),
    )


def _bar(screen: Screen, time: int, limit: int | None) -> str:
    """Return a bar that the usual time fills; empty if that is not known."""
    if limit is None:
        return ""
    share = min(1.0, time / max(1, limit))
    drawn = bar(share, _BAR_WIDTH, ascii_only=screen.ascii_only)
    return drawn + _LONGER if _is_longer(time, limit) else drawn


def _is_longer(time: int, limit: int | None) -> bool:
    return limit is not None and time > limit


def _texts(record: HistoryRecord, time: int) -> tuple[str, ...]:
    return (
        iso_text(record.started_at),
        took(time),
        *map(one_line, (record.task_identifier, record.job_id, record.worker_id)),
    )
