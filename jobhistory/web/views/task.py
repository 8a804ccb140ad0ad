"""One task: how often it ran, how long that took, how it failed, and what runs now."""

from __future__ import annotations

from collections.abc import Generator
from http import HTTPStatus
from typing import Any

from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.reports import FailureGroup, TaskStats
from jobhistory.query.usual import Usual
from jobhistory.schema import HistoryRecord
from jobhistory.web.asking import Ask, Steps, ask
from jobhistory.web.context import Context
from jobhistory.web.errors import Refused, not_found
from jobhistory.web.figures import Figure, Series, executions_link, last_runs
from jobhistory.web.timeline import Timeline
from jobhistory.web.usual import Expectation, execution_times, queue_times
from jobhistory.web.views.failures import KNOWN_FOR, rows_of
from jobhistory.web.views.tasks import DEFAULT_WINDOW
from jobhistory.web.window import Window

_MOST_BUCKETS = 96
_LAST_RUNS = 50
_MOST_GROUPS = 10
_MOST_RUNNING = 20


def task(page: Context) -> Steps:
    """Show one task, which the URL names."""
    name = page.request.parameter("task")
    if name is None:
        raise Refused(HTTPStatus.BAD_REQUEST, "Name a task, as in task?task=send_email.")
    window = page.window(DEFAULT_WINDOW)
    query = HistoryQuery(task_identifier=name, from_=window.from_, to=window.to)
    found: list[TaskStats] = yield ask("stats", query, reads="statistics of the task")
    newest = HistoryQuery(task_identifier=name, to=window.to, limit=_LAST_RUNS)
    last = yield ask("page", newest, reads="one page, from an index")
    if not found and not last.records:
        yield from _must_exist(name)
    stats = found[0] if found else None
    usual = Usual.of(stats, execution_times)
    figures = (yield from _figures(page, window, name)) if stats else []
    running = yield from _running(query, stats)
    groups = yield from _groups(query, stats)
    return page.render(
        "task.html",
        window=window,
        name=name,
        stats=stats,
        last=last_runs(page, last.records, usual) if last.records else None,
        figures=figures,
        running=[(each, Expectation.of(each, usual, page.now)) for each in running],
        groups=rows_of(page, groups, window),
        executions=executions_link(page, name, **window.parameters()),
        failures=executions_link(page, name, ("status", "failed"), **window.parameters()),
    )


def _must_exist(name: str) -> Generator[Ask, Any, None]:
    """Refuse a task that never ran."""
    ever = yield ask(
        "stats", HistoryQuery(task_identifier=name), reads="statistics of the task, by month"
    )
    if not ever:
        raise not_found(f"There is no task named {name[:255]!r} in the history.")


def _figures(page: Context, window: Window, name: str) -> Generator[Ask, Any, list[Figure]]:
    timeline = Timeline.of(window, _MOST_BUCKETS)
    query = HistoryQuery(task_identifier=name, from_=timeline.from_, to=window.to)
    found = yield ask(
        "stats", query, bucket=timeline.bucket_text, reads="statistics of the task over time"
    )
    series = Series(page, timeline, found, name)
    return [
        series.runs(),
        series.times("Time to run", execution_times),
        series.times("Time in the queue", queue_times),
    ]


def _running(
    query: HistoryQuery, stats: TaskStats | None
) -> Generator[Ask, Any, list[HistoryRecord]]:
    if stats is None or not stats.started:
        return []
    reads = "executions of the task that run"
    found: list[HistoryRecord] = yield ask("running", query, limit=_MOST_RUNNING, reads=reads)
    return found


def _groups(
    query: HistoryQuery, stats: TaskStats | None
) -> Generator[Ask, Any, list[FailureGroup]]:
    if stats is None or not stats.failed:
        return []
    found: list[FailureGroup] = yield ask(
        "failure_groups",
        query,
        known_for=KNOWN_FOR,
        limit=_MOST_GROUPS,
        reads=f"failures of the task in the window, and similar ones of the {KNOWN_FOR} before",
    )
    return found
