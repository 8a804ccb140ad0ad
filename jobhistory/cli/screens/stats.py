"""The screen of `jobhistory stats`: one line per task, and charts of its periods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text

from jobhistory._runtime.durations import took
from jobhistory.cli.charts import bar
from jobhistory.cli.output import iso_text, one_line, print_tabbed
from jobhistory.cli.screens.cells import (
    age_cell,
    counted,
    moment_cell,
    moment_column,
    name_column,
    number_column,
)
from jobhistory.cli.screens.periods import PeriodCharts, Periods
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Row, Table
from jobhistory.cli.screens.units import Unit, count_text, share_text, unit_of
from jobhistory.query.reports import Percentiles, TaskStats

_HEADINGS = (
    *("TASK", "RUNS", "FAILED", "RETRIED", "P50", "P95", "P99", "MAX", "QUEUED P95"),
    "LAST START (UTC)",
)
_SERIES_HEADINGS = (
    *("BEGIN (UTC)", "TASK", "RUNS", "COMPLETED", "FAILED", "RETRIED", "PARTIAL", "CANCELLED"),
    *("STARTED", "P50", "P95", "P99", "MAX", "QUEUED P95"),
)
_BAR_WIDTH = 10
_ESTIMATED = "percentiles within 2 %, from statistics that outlive the rows; --exact reads rows"


def print_stats(
    screen: Screen,
    totals: Sequence[TaskStats],
    series: Sequence[TaskStats] = (),
    periods: Periods | None = None,
) -> None:
    """Print one line per task, followed by charts of its series if there are periods.

    In a pipe, a series has one line per task and period instead.
    """
    if not screen.is_terminal:
        if periods is None:
            print_tabbed([_HEADINGS])
            print_tabbed(map(_stats_texts, totals))
        else:
            print_tabbed([_SERIES_HEADINGS])
            print_tabbed(map(_series_texts, series))
        return
    if not totals:
        screen.print("no executions")
        return
    charts = None if periods is None else PeriodCharts(screen, series, periods)
    below = [] if charts is None else [charts.lines(each.task_identifier) for each in totals]
    _print_table(screen, totals, below)
    if charts is not None:
        screen.print_note(charts.caption)
    if not all(stats.is_exact for stats in totals):
        screen.print_note(_ESTIMATED)


def _print_table(
    screen: Screen, totals: Sequence[TaskStats], below: Sequence[Iterable[Text]]
) -> None:
    """Print one line per task, and a last one for all of them if there are several."""
    times = unit_of(time for stats in totals for time in _times(stats.execution_time_ms))
    queued = unit_of(stats.queue_time_ms.p95 for stats in totals)
    columns = [
        name_column("TASK", 100, least=20),
        number_column("RUNS", 90),
        number_column("FAILED", 95),
        Column("", 20),
        number_column("RETRIED", 30),
        number_column(f"P50 ({times.name})", 50),
        number_column(f"P95 ({times.name})", 80),
        number_column(f"P99 ({times.name})", 40),
        number_column(f"MAX ({times.name})", 45),
        number_column(f"QUEUED P95 ({queued.name})", 25),
        moment_column("LAST START", 33, (stats.last_start for stats in totals), screen),
        Column("AGE", 36),
    ]
    rows = [_row(screen, stats, times, queued) for stats in totals]
    total = _total(totals, times) if len(totals) > 1 else None
    table = Table(columns, rows, total, below)
    (table if any(map(_retried, totals)) else table.without("RETRIED")).print(screen)


def _row(screen: Screen, stats: TaskStats, times: Unit, queued: Unit) -> Row:
    share = stats.failure_rate or 0
    failed = "red" if stats.final_failures else ""
    return (
        Cell(screen.text(stats.task_identifier)),
        Cell(count_text(stats.executions)),
        Cell(share_text(stats.failure_rate), failed),
        Cell(bar(share, _BAR_WIDTH, ascii_only=screen.ascii_only), "red"),
        Cell(count_text(_retried(stats)), "yellow" if _retried(stats) else ""),
        *(Cell(times.text(time)) for time in _times(stats.execution_time_ms)),
        Cell(queued.text(stats.queue_time_ms.p95)),
        moment_cell(stats.last_start, screen),
        age_cell(stats.last_start, screen),
    )


def _total(totals: Sequence[TaskStats], times: Unit) -> Row:
    """Return the row of sums. Percentiles cannot be added; the maximum is that of all."""
    failed = sum(stats.final_failures for stats in totals)
    counted_runs = failed + sum(stats.completed + stats.partial_success for stats in totals)
    longest = [stats.execution_time_ms.max for stats in totals]
    return (
        Cell(counted(len(totals), "task")),
        Cell(count_text(sum(stats.executions for stats in totals))),
        Cell(share_text(failed / counted_runs if counted_runs else None)),
        Cell(""),
        Cell(count_text(sum(map(_retried, totals)))),
        *(Cell("") for _ in range(3)),
        Cell(times.text(max((each for each in longest if each is not None), default=None))),
        *(Cell("") for _ in range(3)),
    )


def _stats_texts(stats: TaskStats) -> tuple[str, ...]:
    return (
        one_line(stats.task_identifier),
        str(stats.executions),
        share_text(stats.failure_rate),
        str(_retried(stats)),
        *map(took, _times(stats.execution_time_ms)),
        took(stats.queue_time_ms.p95),
        iso_text(stats.last_start),
    )


def _series_texts(stats: TaskStats) -> tuple[str, ...]:
    counts = (
        *(stats.executions, stats.completed, stats.final_failures, _retried(stats)),
        *(stats.partial_success, stats.cancelled, stats.started),
    )
    return (
        iso_text(stats.bucket) if stats.bucket else "-",
        one_line(stats.task_identifier),
        *map(str, counts),
        *map(took, _times(stats.execution_time_ms)),
        took(stats.queue_time_ms.p95),
    )


def _retried(stats: TaskStats) -> int:
    return stats.failed - stats.final_failures


def _times(times: Percentiles) -> tuple[int | None, ...]:
    return (times.p50, times.p95, times.p99, times.max)
