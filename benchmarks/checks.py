"""How long `store.check` takes for expectations of all kinds, on a large history."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from statistics import median
from time import perf_counter
from typing import Any

from sqlalchemy import URL

from benchmarks.filling import NOW, fill
from benchmarks.measuring import Table, new_database, new_engine
from jobhistory import HistoryStore, create_store

EXPECTATIONS = 100
TASKS = 50
MINUTE = timedelta(minutes=1)

KINDS: dict[str, dict[str, Any]] = {
    "a schedule": {"every": "1h"},
    "a schedule and all limits": {
        "cron": "0 * * * *",
        "min_runtime": "1s",
        "max_runtime": "1h",
        "max_running": 3,
        "max_success_age": "1d",
        "max_failure_rate": 0.1,
    },
    "a schedule of executions with a label": {"every": "1h", "labels": {"tenant": "acme"}},
}
"""What is expected, by what the table calls it."""


def measure(server: URL, rows: int, rounds: int) -> dict[str, tuple[float, float, float]]:
    """Return the median milliseconds by kind: of a check, of a dry run, and of metrics."""
    found = {}
    with new_database(server, "checks") as url, new_engine(url) as engine:
        fill(engine, rows)
        now = [NOW]
        with create_store(url, clock=lambda: now[0]) as store:
            for kind, fields in KINDS.items():
                _declare(store, fields)
                now[0] += MINUTE
                store.check()  # opens the incidents
                times: tuple[list[float], ...] = ([], [], [])
                for _ in range(rounds):
                    now[0] += MINUTE
                    for ask, each in zip(
                        (store.check, lambda: store.check(dry_run=True), store.metrics),
                        times,
                        strict=True,
                    ):
                        each.append(_milliseconds(ask))
                found[kind] = (median(times[0]), median(times[1]), median(times[2]))
                for each in store.expectations():
                    store.remove_expectation(each.expectation.name)
            found["nothing"] = (
                median(_milliseconds(store.check) for _ in range(rounds)),
                median(_milliseconds(lambda: store.check(dry_run=True)) for _ in range(rounds)),
                median(_milliseconds(store.metrics) for _ in range(rounds)),
            )
    return found


def _declare(store: HistoryStore, fields: dict[str, Any]) -> None:
    for number in range(EXPECTATIONS):
        labels = {**fields.get("labels", {}), "number": str(number // TASKS)}
        is_labelled = "labels" in fields
        # Two of a task differ in their labels only; tasks without rows are the other half.
        task = f"task_{number % TASKS}" if is_labelled else f"task_{number}"
        others = fields | {"labels": labels} if is_labelled else fields
        store.expect(task, **others)


def _milliseconds(ask: Callable[[], object]) -> float:
    begin = perf_counter()
    ask()
    return (perf_counter() - begin) * 1000


def report(times: dict[str, tuple[float, float, float]], rows: int) -> Table:
    """Return the table."""
    return Table(
        "Checks",
        f"Median milliseconds of `store.check` with {EXPECTATIONS} expectations on {rows:,} "
        "executions, and of a check, for one of them. A scrape of `store.metrics` includes a dry "
        "run.",
        ["what is expected", "check", "for each", "dry run", "metrics"],
        [
            [
                kind,
                f"{check:,.1f}",
                f"{check / EXPECTATIONS:,.2f}" if kind in KINDS else "",
                f"{dry:,.1f}",
                f"{metrics:,.1f}",
            ]
            for kind, (check, dry, metrics) in times.items()
        ],
    )
