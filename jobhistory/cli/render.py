"""Print records and reports: aligned on a terminal, tab-separated in a pipe, or as JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from textwrap import indent
from typing import Any

from rich.console import Console
from rich.text import Text

from jobhistory.cli.charts import bar, spark
from jobhistory.cli.output import (
    moment_text,
    one_line,
    print_json,
    print_row,
    print_tabbed,
    shown,
    table_widths,
    took,
)
from jobhistory.contrib.replayer import Replayed
from jobhistory.errors import NotReplayable
from jobhistory.execution.status import Status
from jobhistory.query.reports import FailureGroup, Percentiles, TaskStats
from jobhistory.schema import COLUMN_NAMES, HistoryRecord

_STYLES = {
    Status.STARTED: "cyan",
    Status.COMPLETED: "green",
    Status.FAILED: "bold red",
    Status.PARTIAL_SUCCESS: "yellow",
    Status.CANCELLED: "magenta",
}
_LABEL_WIDTH = 21
_HEADINGS = ("STARTED (UTC)", "STATUS", "TOOK", "TASK", "JOB", "ERROR")
_BAR_WIDTH = 10
_MOST_COLUMNS = 60
_STATS_HEADINGS = (
    *("TASK", "RUNS", "FAILED", "", "RETRIED", "P50", "P95", "P99", "MAX", "QUEUED P95"),
    "LAST START (UTC)",
)
_SERIES_HEADINGS = (
    *("BEGIN (UTC)", "TASK", "RUNS", "COMPLETED", "FAILED", "RETRIED", "PARTIAL", "CANCELLED"),
    *("STARTED", "P50", "P95", "P99", "MAX", "QUEUED P95"),
)
_RUNNING_HEADINGS = ("STARTED (UTC)", "FOR", "", "TASK", "JOB", "WORKER")
_REPLAY_HEADINGS = ("EXECUTION", "TASK", "JOB", "NEW JOB", "REFUSED")
_FAILURES_HEADINGS = ("FAILURES", "", "LAST (UTC)", "TASK", "ERROR")


def print_records_json(records: Iterable[HistoryRecord]) -> None:
    """Print records as they arrive, each as JSON on one line."""
    for record in records:
        print_json(record.to_dict())


def print_records(records: Iterable[HistoryRecord]) -> None:
    """Print one line per record: aligned on a terminal, tab-separated in a pipe.

    On a terminal, an error follows on a second line, which is cut at the edge.
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
    """Print records as they arrive, one tab-separated line each."""
    print_tabbed([_HEADINGS])
    print_tabbed(map(_cells, records))


def print_details(records: Iterable[HistoryRecord]) -> None:
    """Print all columns of each record, without cutting any."""
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


def print_stats(
    totals: Sequence[TaskStats], series: Sequence[TaskStats] = (), bucket: timedelta | None = None
) -> None:
    """Print one line per task, followed by charts of its series if there is a bucket.

    In a pipe, a series has one line per task and period instead.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        if bucket is None:
            print_tabbed([_STATS_HEADINGS[:3] + _STATS_HEADINGS[4:]])
            print_tabbed(_stats_cells(stats) for stats in totals)
        else:
            print_tabbed([_SERIES_HEADINGS])
            print_tabbed(_series_cells(stats) for stats in series)
        return
    # These are two statements, so the first execution may be in only one of the results.
    if not totals or (bucket is not None and not series):
        console.print("no executions")
        return
    charts = None if bucket is None else _Charts(series, bucket)
    rows = [_with_bar(_stats_cells(stats), 3, stats.failure_rate or 0, console) for stats in totals]
    headings, *rows = _without_zeros([_STATS_HEADINGS, *rows], _STATS_HEADINGS.index("RETRIED"))
    widths = table_widths([headings, *rows])
    print_row(console, headings, widths, ["bold"] * len(widths))
    for stats, row in zip(totals, rows, strict=True):
        failed = "red" if stats.final_failures else ""
        print_row(console, row, widths, ["", "", failed, "red"])
        if charts is not None:
            charts.print_task(console, stats.task_identifier)
    if charts is not None:
        console.print(Text(charts.caption, "dim"), soft_wrap=True)


def print_failures(groups: Sequence[FailureGroup]) -> None:
    """Print one line per group; on a terminal, a second line names an example."""
    console = Console(highlight=False)
    cells = [
        (
            str(group.count),
            moment_text(group.last_seen),
            one_line(group.task_identifier),
            one_line(_error_line(group)),
        )
        for group in groups
    ]
    if not console.is_terminal:
        print_tabbed([("FAILURES", *_FAILURES_HEADINGS[2:])])
        print_tabbed(cells)
        return
    if not groups:
        console.print("no failures")
        return
    most = max(group.count for group in groups)
    rows = [
        _with_bar(row, 1, group.count / most, console)
        for row, group in zip(cells, groups, strict=True)
    ]
    widths = table_widths([row[:-1] for row in (_FAILURES_HEADINGS, *rows)])
    print_row(console, _FAILURES_HEADINGS, widths, ["bold"] * 5)
    for row, group in zip(rows, groups, strict=True):
        print_row(console, row, widths, ["", "red", "", "", "red"], cut=True)
        since = moment_text(group.first_seen)
        example = f"    since {since}, for example job {one_line(group.example.job_id)}"
        console.print(Text(example, "dim"), soft_wrap=True)


def print_running(records: Sequence[HistoryRecord], now: datetime) -> None:
    """Print one line per execution, with its running time so far."""
    console = Console(highlight=False)
    times = [max(timedelta(0), now - record.started_at) for record in records]
    cells = [
        (
            moment_text(record.started_at),
            took(time // timedelta(milliseconds=1)),
            *map(one_line, (record.task_identifier, record.job_id, record.worker_id)),
        )
        for record, time in zip(records, times, strict=True)
    ]
    if not console.is_terminal:
        print_tabbed([(*_RUNNING_HEADINGS[:2], *_RUNNING_HEADINGS[3:])])
        print_tabbed(cells)
        return
    if not records:
        console.print("nothing is running")
        return
    longest = max(times) or timedelta(1)
    rows = [
        _with_bar(row, 2, time / longest, console) for row, time in zip(cells, times, strict=True)
    ]
    widths = table_widths([_RUNNING_HEADINGS, *rows])
    print_row(console, _RUNNING_HEADINGS, widths, ["bold"] * len(widths))
    for row in rows:
        print_row(console, row, widths, ["", "", "cyan"])


def print_replays(results: Sequence[Replayed | NotReplayable]) -> None:
    """Print one line per execution that was replayed or refused, aligned for a terminal."""
    console = Console(highlight=False)
    rows = [_REPLAY_HEADINGS, *map(replay_cells, results)]
    widths = table_widths(rows)[:-1]
    for number, row in enumerate(rows):
        styles = ["bold"] * 5 if number == 0 else ["", "", "", "green", "red"]
        print_row(console, row, widths, styles)


def print_replay_headings() -> None:
    """Print the headings of `replay_cells` for a pipe."""
    print_tabbed([_REPLAY_HEADINGS])


def replay_cells(result: Replayed | NotReplayable) -> tuple[str, ...]:
    """Return the cells of one line: the execution, the new job, and why it was refused."""
    record = result.record
    new, reason = "-", ""
    if isinstance(result, NotReplayable):
        reason = one_line(result.reason)
    elif result.job_id is not None:
        new = one_line(result.job_id)
    return (str(record.id), one_line(record.task_identifier), one_line(record.job_id), new, reason)


def _cells(record: HistoryRecord) -> tuple[str, ...]:
    return (
        moment_text(record.started_at),
        record.status.value,
        took(record.execution_time_ms),
        one_line(record.task_identifier),
        one_line(record.job_id),
        one_line(_record_error(record)),
    )


def _record_error(record: HistoryRecord) -> str:
    """Return the type and the message of a failure, or the reason for a cancellation."""
    lines = (record.error_message or "").strip().splitlines()
    return ": ".join([*filter(None, [record.error_type]), *lines[:1]])


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


def _stats_cells(stats: TaskStats) -> tuple[str, ...]:
    return (
        one_line(stats.task_identifier),
        str(stats.executions),
        "-" if stats.failure_rate is None else f"{stats.failure_rate:.1%}",
        _retried(stats),
        *_times(stats.execution_time_ms),
        took(stats.queue_time_ms.p95),
        moment_text(stats.last_start),
    )


def _series_cells(stats: TaskStats) -> tuple[str, ...]:
    counts = (
        *(stats.executions, stats.completed, stats.final_failures, _retried(stats)),
        *(stats.partial_success, stats.cancelled, stats.started),
    )
    return (
        moment_text(stats.bucket) if stats.bucket else "-",
        one_line(stats.task_identifier),
        *map(str, counts),
        *_times(stats.execution_time_ms),
        took(stats.queue_time_ms.p95),
    )


def _without_zeros(rows: list[tuple[str, ...]], column: int) -> list[tuple[str, ...]]:
    """Return the rows without a column that would show nothing but zeros below its heading."""
    if any(row[column] != "0" for row in rows[1:]):
        return rows
    return [(*row[:column], *row[column + 1 :]) for row in rows]


def _retried(stats: TaskStats) -> str:
    return str(stats.failed - stats.final_failures)


def _times(times: Percentiles) -> Iterable[str]:
    return map(took, (times.p50, times.p95, times.p99, times.max))


def _with_bar(
    cells: tuple[str, ...], place: int, share: float, console: Console
) -> tuple[str, ...]:
    chart = bar(share, _BAR_WIDTH, ascii_only=console.options.ascii_only)
    return (*cells[:place], chart, *cells[place:])


class _Charts:
    """Charts of each task with one column per period; only the last ones of a long series."""

    def __init__(self, series: Sequence[TaskStats], bucket: timedelta) -> None:
        begun = [stats.bucket for stats in series if stats.bucket is not None]
        count = min(_MOST_COLUMNS, (max(begun) - min(begun)) // bucket + 1)
        first = max(begun) - (count - 1) * bucket
        length = took(bucket // timedelta(milliseconds=1))
        self.caption = f"charts: {count} periods of {length}, from {moment_text(first)}"
        self._runs: defaultdict[str, list[int]] = defaultdict(lambda: [0] * count)
        self._failed: defaultdict[str, list[int]] = defaultdict(lambda: [0] * count)
        for stats, each in zip(series, begun, strict=True):
            if each >= first:
                number = (each - first) // bucket
                self._runs[stats.task_identifier][number] = stats.executions
                self._failed[stats.task_identifier][number] = stats.final_failures

    def print_task(self, console: Console, task: str) -> None:
        """Print the charts of a task; one of its failures only if there are any."""
        ascii_only = console.options.ascii_only
        runs = spark(self._runs[task], ascii_only=ascii_only)
        console.print(Text(f"    runs    {runs}", "cyan"), no_wrap=True)
        if any(self._failed[task]):
            failed = spark(self._failed[task], ascii_only=ascii_only)
            console.print(Text(f"    failed  {failed}", "red"), no_wrap=True)


def _error_line(group: FailureGroup) -> str:
    return f"{group.error_type}: {group.message}" if group.message else group.error_type
