"""A grid of tasks by time: what ran, what failed, and what was missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from jobhistory._runtime.clock import before
from jobhistory.expectations.missed import MissedRun, MissedTime
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.reports import TaskStats
from jobhistory.web.asking import Steps, ask
from jobhistory.web.context import Context
from jobhistory.web.missed import missed_in
from jobhistory.web.search import join
from jobhistory.web.timeline import Timeline

_DEFAULT_WINDOW = "24h"
_MOST_BUCKETS = 31
_MOST_TASKS = 200
_MOST_MISSED = 10_000
_INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True)
class Cell:
    """What a task did in a time.

    Attributes:
        kind: what the cell shows: `missed`, `failed`, `running`, `completed`, or `empty`.
        text: a short text for the cell, so that its color is not all that tells.
        title: what happened, in words.
        href: the executions of the task at the time.
    """

    kind: str
    text: str
    title: str
    href: str


@dataclass(frozen=True)
class Row:
    """A task, and what it did over time."""

    task: str
    cells: Sequence[Cell]


def grid(page: Context) -> Steps:
    """Show for each task and time what ran, what failed, and what was missed."""
    window = page.window(_DEFAULT_WINDOW)
    timeline = Timeline.of(window, _MOST_BUCKETS, tasks=_MOST_TASKS // 4)
    query = HistoryQuery(from_=timeline.from_, to=window.to)
    stats: list[TaskStats] = yield ask(
        "stats", query, bucket=timeline.bucket_text, reads="statistics of all tasks, over time"
    )
    time = MissedTime(before(timeline.start, _INSTANT), timeline.end)
    missed = yield from missed_in(time, _MOST_MISSED)
    name = page.request.parameter("name") or ""
    rows = [
        row
        for row in _rows(page, timeline, stats, missed)
        if name.casefold() in row.task.casefold()
    ]
    return page.render(
        "grid.html",
        window=window,
        name=name,
        buckets=timeline.buckets,
        bucket_text=timeline.bucket_text,
        ticks=timeline.ticks(page.zone),
        rows=rows[:_MOST_TASKS],
        number=len(rows),
    )


def _rows(
    page: Context,
    timeline: Timeline,
    stats: Iterable[TaskStats],
    missed: Iterable[MissedRun],
) -> list[Row]:
    ran = {(each.task_identifier, each.bucket): each for each in stats}
    gaps: Counter[tuple[str, datetime | None]] = Counter()
    for each in missed:
        number = (each.due_at - timeline.start) // timeline.bucket
        gaps[each.task_identifier, timeline.start + number * timeline.bucket] += 1
    tasks = sorted({task for task, _ in (*ran, *gaps)})
    return [
        Row(
            task,
            [
                _cell(page, timeline, task, start, ran.get((task, start)), gaps[task, start])
                for start in timeline.buckets
            ],
        )
        for task in tasks
    ]


def _cell(
    page: Context,
    timeline: Timeline,
    task: str,
    start: datetime,
    stats: TaskStats | None,
    missed: int,
) -> Cell:
    end = start + timeline.bucket
    href = page.link("", q=join([("task", task)]), since=start.isoformat(), until=end.isoformat())
    runs = stats.executions if stats else 0
    failed = stats.final_failures if stats else 0
    counts = [(runs, "ran"), (failed, "failed"), (missed, "missed")]
    words = ", ".join(f"{number:,} {word}" for number, word in counts if number) or "nothing"
    title = f"{task}, {page.exact(start)}: {words}"
    if missed:
        return Cell("missed", _short(missed), title, href)
    if failed:
        return Cell("failed", _short(failed), title, href)
    if stats and stats.started and stats.started == runs:
        return Cell("running", _short(runs), title, href)
    return Cell("completed" if runs else "empty", _short(runs), title, href)


def _short(number: int) -> str:
    if number < 1000:
        return str(number or "")
    return f"{ceil(number / 1000)}k"
