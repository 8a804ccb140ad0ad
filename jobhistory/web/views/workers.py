"""Workers: when each was last seen, what it did in a window, and what it does now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from jobhistory.execution.outcome import WORKER_LOST
from jobhistory.query.criteria import replace
from jobhistory.query.reports import WorkerActivity
from jobhistory.schema import HistoryRecord
from jobhistory.web.asking import Steps, ask
from jobhistory.web.context import Context
from jobhistory.web.search import join
from jobhistory.web.views.running import MOST_RUNNING
from jobhistory.web.window import Window

_DEFAULT_WINDOW = "1h"
_MOST_WORKERS = 100
_MOST_SHOWN = 3


@dataclass(frozen=True)
class Row:
    """A worker in the list.

    Attributes:
        worker_id: the worker.
        activity: what it did in the window; `None` if nothing of it started there.
        last_seen: its last sign of life.
        running: what it does now, longest first; at most three executions.
        number: the number of executions that it runs now, as far as they were read.
        executions, failures, lost: the URLs of its executions, of those that failed, and of those
            that were lost.
    """

    worker_id: str
    activity: WorkerActivity | None
    last_seen: datetime
    running: Sequence[HistoryRecord]
    number: int
    executions: str
    failures: str
    lost: str


def workers(page: Context) -> Steps:
    """Show the workers of which something started in a window, or still runs."""
    window = page.window(_DEFAULT_WINDOW)
    query = page.query(window, limit=_MOST_WORKERS)
    found: list[WorkerActivity] = yield ask("workers", query, reads="all executions in the window")
    now: list[HistoryRecord] = []
    if window.is_live:
        still = replace(query, from_=None, limit=MOST_RUNNING)
        now = yield ask("running", still, reads="what has not ended")
    rows = _rows(page, window, found, now)
    return page.render(
        "workers.html",
        window=window,
        rows=rows,
        has_more=len(found) == _MOST_WORKERS,
        most=_MOST_WORKERS,
    )


def _rows(
    page: Context,
    window: Window,
    found: Iterable[WorkerActivity],
    now: Iterable[HistoryRecord],
) -> list[Row]:
    running: dict[str, list[HistoryRecord]] = {}
    for record in now:
        running.setdefault(record.worker_id, []).append(record)
    activities = {each.worker_id: each for each in found}
    rows = []
    for worker in dict.fromkeys([*activities, *running]):
        activity, records = activities.get(worker), running.get(worker, [])
        seen = [moment for each in records for moment in (each.started_at, each.heartbeat_at)]
        seen.append(activity.last_seen if activity else None)
        rows.append(
            Row(
                worker,
                activity,
                max(moment for moment in seen if moment is not None),
                records[:_MOST_SHOWN],
                len(records),
                _link(page, window, worker),
                _link(page, window, worker, "status", "failed"),
                _link(page, window, worker, "error-type", WORKER_LOST),
            )
        )
    return sorted(rows, key=lambda row: row.last_seen, reverse=True)


def _link(page: Context, window: Window, worker: str, *term: str) -> str:
    terms: list[tuple[str | None, str]] = [("worker", worker)]
    if term:
        terms.append((term[0], term[1]))
    return page.link("", q=join(terms), **window.parameters())
