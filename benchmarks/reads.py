"""The duration of reads in histories of several sizes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from time import perf_counter
from uuid import UUID

import psycopg
from sqlalchemy import URL

from benchmarks.filling import NOW, fill
from benchmarks.measuring import Table, new_database, new_engine, raw
from jobhistory import HistoryQuery, HistoryStore, create_store
from jobhistory.query.cursor import Cursor

Read = Callable[[HistoryStore], object]

DAY = {"from_": NOW - timedelta(days=1), "to": NOW}
HOUR = {"from_": NOW - timedelta(hours=1), "to": NOW}


def deep(**criteria: object) -> Read:
    """Return a read of the page after nine tenths of the history."""
    query = HistoryQuery(**criteria)
    cursor = Cursor(NOW - timedelta(days=30), UUID(int=0)).to_text(query)
    return lambda store: store.page(query, after=cursor)


RAW = "newest 100, raw psycopg"


def fetch_raw(connection: psycopg.Connection) -> list[object]:
    """Fetch the same page without the library, for comparison."""
    query = "SELECT * FROM job_history ORDER BY started_at DESC, id DESC LIMIT 100"
    return connection.execute(query, prepare=True).fetchall()


PAGES: dict[str, Read] = {
    "newest 100": lambda store: store.query(),
    "newest 100 of a task": lambda store: store.query(task_identifier="task_3"),
    "newest 100 of a rare task": lambda store: store.query(task_identifier="rare_task"),
    "newest 100 of three tasks": lambda store: store.query(
        task_identifier=["task_3", "task_4", "rare_task"]
    ),
    "newest 100 of a worker": lambda store: store.query(worker_id="worker-3"),
    "newest 100 failures (3 %)": lambda store: store.query(status="failed"),
    "failures of a task": lambda store: store.query(status="failed", task_identifier="task_7"),
    "failures of a rare task": lambda store: store.query(
        status="failed", task_identifier="rare_task"
    ),
    "failures of three tasks": lambda store: store.query(
        status="failed", task_identifier=["task_7", "task_4", "rare_task"]
    ),
    "partial successes (0.1 %)": lambda store: store.query(status="partial_success"),
    "failures and partial successes": lambda store: store.query(
        status=["failed", "partial_success"]
    ),
    "an error type": lambda store: store.query(error_type="ValueError"),
    "a frequent text in errors": lambda store: store.query(error_contains="no answer from"),
    "an hour": lambda store: store.query(**HOUR),
    "a task, of 24 h": lambda store: store.query(task_identifier="task_3", **DAY),
    "by job id": lambda store: store.get_by_job_id("job-5000"),
    "by correlation id": lambda store: store.get_by_correlation_id("request-300"),
    "a page at nine tenths": deep(),
    "the same, oldest first": deep(order="oldest"),
    "the same of a task": deep(task_identifier="task_3"),
    "the same of failures": deep(status="failed"),
    "count, capped at 10,000": lambda store: store.count(cap=10_000),
    "count of failures of a task, capped at 100": lambda store: store.count(
        status="failed", task_identifier="task_7", cap=100
    ),
}
"""Reads whose cost must not grow with the history."""

WINDOWS: dict[str, Read] = {
    "running, of 24 h": lambda store: store.running(**DAY),
    "statistics of 24 h, from rows": lambda store: store.stats(**DAY, exact=True),
    "the same by the hour": lambda store: store.stats(**DAY, bucket="1h", exact=True),
    "failure groups of 24 h": lambda store: store.failure_groups(**DAY),
    "a text that no error of 24 h has": lambda store: store.query(**DAY, error_contains="nowhere"),
    "running, of all history": lambda store: store.running(),
    "count of failures, exact": lambda store: store.count(status="failed"),
}
"""Reads of a whole window, or of the whole history."""


def measure(
    server: URL, sizes: Sequence[int], rounds: int, window_rounds: int
) -> dict[str, list[float]]:
    """Return the median milliseconds of each read, by size of the history."""
    times: dict[str, list[list[float]]] = {
        name: [[] for _ in sizes] for name in (RAW, *PAGES, *WINDOWS)
    }
    with ExitStack() as stack:
        stores, connections = [], []
        for rows in sizes:
            url = stack.enter_context(new_database(server, f"reads_{rows}"))
            with new_engine(url) as engine:
                fill(engine, rows)
            stores.append(stack.enter_context(create_store(url)))
            connections.append(stack.enter_context(raw(url)))
        for number in range(rounds + 6):  # psycopg prepares statements in the first six rounds
            for place, store in enumerate(stores):
                for name, read in {RAW: fetch_raw, **PAGES}.items():
                    begun = perf_counter()
                    read(connections[place] if name == RAW else store)
                    if number >= 6:
                        times[name][place].append((perf_counter() - begun) * 1000)
        for _ in range(window_rounds):
            for name, read in WINDOWS.items():
                for place, store in enumerate(stores):
                    begun = perf_counter()
                    read(store)
                    times[name][place].append((perf_counter() - begun) * 1000)
    return {
        name: [statistics.median(figures) for figures in of_sizes]
        for name, of_sizes in times.items()
    }


def report(times: dict[str, list[float]], sizes: Sequence[int]) -> Table:
    """Return the table of milliseconds by read and size."""
    return Table(
        "Reads",
        "Median milliseconds. Each history spans 33 days, so a larger one is denser. Reads below "
        "the empty line scan their whole window, or the whole history, and take longer as it "
        "grows.",
        ["read", *(f"{rows:,} rows" for rows in sizes), "last / first"],
        [
            *(_line(name, times[name]) for name in (RAW, *PAGES)),
            ["", *[""] * len(sizes), ""],
            *(_line(name, times[name]) for name in WINDOWS),
        ],
    )


def _line(name: str, figures: Sequence[float]) -> list[str]:
    return [name, *(f"{figure:,.1f}" for figure in figures), f"{figures[-1] / figures[0]:.1f}"]


def beyond(times: dict[str, list[float]]) -> tuple[list[str], list[str]]:
    """Return the pages that grow to more than 1 ms plus twice the time, and those over 5 ms."""
    return (
        [name for name in PAGES if times[name][-1] > 2 * times[name][0] + 1],
        [name for name in PAGES if times[name][-1] > 5],
    )
