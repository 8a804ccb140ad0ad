"""What runs now, and when it should end."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from jobhistory.query.reports import TaskStats
from jobhistory.query.usual import Usual, elapsed_ms
from jobhistory.schema import HistoryRecord
from jobhistory.web.asking import Ask, Steps, ask
from jobhistory.web.charts import range_bar
from jobhistory.web.context import Context
from jobhistory.web.usual import Expectation, ask_week, execution_times

MOST_RUNNING = 100


@dataclass(frozen=True)
class Row:
    """An execution that runs.

    Attributes:
        record: the execution.
        elapsed: for how many milliseconds it has been running.
        usual: the usual times of its task; `None` if they are not known.
        expectation: when it should end; `None` if that is not known.
    """

    record: HistoryRecord
    elapsed: int
    usual: Usual | None
    expectation: Expectation | None

    @property
    def bar(self) -> Markup | str:
        """The time on an axis, on which the usual range is shaded; empty if it is not known."""
        if self.usual is None:
            return ""
        return range_bar(self.elapsed, self.usual.low, self.usual.high)


def running(page: Context) -> Steps:
    """Show what runs now, longest first."""
    window = page.window()
    query = page.query(window, limit=MOST_RUNNING)
    records: list[HistoryRecord] = yield ask("running", query, reads="what has not ended")
    rows = yield from rows_of(page, records)
    return page.render(
        "running.html",
        window=window,
        rows=rows,
        overdue=sum(row.expectation is not None and row.expectation.is_overdue for row in rows),
        most=MOST_RUNNING,
    )


def rows_of(page: Context, records: Iterable[HistoryRecord]) -> Generator[Ask, Any, list[Row]]:
    """Return executions that run, with what is usual for their tasks."""
    known = list(records)
    tasks = {record.task_identifier for record in known}
    times = page.settings.usual_times
    missing = sorted(task for task in tasks if not times.knows(task, page.now))
    if missing:
        found: list[TaskStats] = yield ask_week(missing, page.now, page.now)
        by_task = {stats.task_identifier: stats for stats in found}
        for task in missing:
            times.note(task, Usual.of(by_task.get(task), execution_times), page.now)
    rows = []
    for record in known:
        usual = times.of(record.task_identifier)
        expectation = Expectation.of(record, usual, page.now)
        rows.append(Row(record, elapsed_ms(record, page.now), usual, expectation))
    return rows
