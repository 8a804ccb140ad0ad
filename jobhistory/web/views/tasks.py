"""The list of tasks, with the statistics of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from jobhistory.errors import InvalidInput
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.reports import TaskStats
from jobhistory.web.asking import Ask, Steps, ask
from jobhistory.web.charts import sparkline
from jobhistory.web.context import Context
from jobhistory.web.figures import Counts, Series
from jobhistory.web.timeline import Timeline
from jobhistory.web.window import Window

DEFAULT_WINDOW = "24h"
_MOST_TASKS = 100
_MOST_BUCKETS = 31

_ORDERS: dict[str, Callable[[TaskStats], Any]] = {
    "runs": lambda stats: -stats.executions,
    "failure-rate": lambda stats: -(stats.failure_rate or 0),
    "p95": lambda stats: -(stats.execution_time_ms.p95 or 0),
    "name": lambda stats: stats.task_identifier,
}
"""The orders of the list; tasks that are equal in one are in the order of their names."""


@dataclass(frozen=True)
class Row:
    """A task in the list: its statistics, and a small chart of its runs."""

    stats: TaskStats
    spark: Markup


def tasks(page: Context) -> Steps:
    """Show the tasks that ran in a window, with the statistics of each."""
    window = page.window(DEFAULT_WINDOW)
    order = order_of(page, _ORDERS)
    everything = HistoryQuery(from_=window.from_, to=window.to)
    stats: list[TaskStats] = yield ask("stats", everything, reads="statistics of all tasks")
    name = page.request.parameter("name") or ""
    found = [each for each in stats if name.casefold() in each.task_identifier.casefold()]
    found.sort(key=_ORDERS[order])
    shown = found[:_MOST_TASKS]
    timeline = Timeline.of(window, _MOST_BUCKETS, tasks=len(shown))
    series: list[TaskStats] = []
    if shown:
        series = yield _ask_series(timeline, window, None if len(shown) == len(stats) else shown)
    over_time = Series(page, timeline, series)
    return page.render(
        "tasks.html",
        window=window,
        name=name,
        order=order,
        orders=list(_ORDERS),
        total=Counts.of(found),
        number=len(found),
        rows=_rows(shown, series, timeline),
        figures=[over_time.runs(), over_time.failures()] if shown else [],
    )


def _ask_series(timeline: Timeline, window: Window, tasks: Sequence[TaskStats] | None) -> Ask:
    """Return the question for the statistics over time, of some tasks or of all."""
    names = None if tasks is None else [each.task_identifier for each in tasks]
    query = HistoryQuery(task_identifier=names, from_=timeline.from_, to=window.to)
    reads = "statistics of the tasks in the list, over time"
    return ask("stats", query, bucket=timeline.bucket_text, reads=reads)


def order_of(page: Context, orders: Collection[str]) -> str:
    """Return the order of a list that the URL names, or else the first one.

    Raises:
        InvalidInput: if it is none of the orders.
    """
    order = page.request.parameter("sort") or next(iter(orders))
    if order not in orders:
        raise InvalidInput("sort", order, f"is not an order; write one of {', '.join(orders)}")
    return order


def _rows(shown: Sequence[TaskStats], series: Sequence[TaskStats], timeline: Timeline) -> list[Row]:
    by_task: dict[str, dict[Any, TaskStats]] = {}
    for each in series:
        by_task.setdefault(each.task_identifier, {})[each.bucket] = each
    return [Row(stats, _spark(by_task.get(stats.task_identifier, {}), timeline)) for stats in shown]


def _spark(by_bucket: dict[Any, TaskStats], timeline: Timeline) -> Markup:
    found = [by_bucket.get(start) for start in timeline.buckets]
    runs = [each.executions if each else 0 for each in found]
    failures = [each.failed if each else 0 for each in found]
    label = f"{sum(runs):,} runs over time, {sum(failures):,} of them failed"
    return sparkline(runs, failures, label)
