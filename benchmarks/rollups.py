"""Statistics from rollups and from rows, folding, and what feeding the queue adds to recording."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from time import perf_counter

from sqlalchemy import URL, Engine, text

from benchmarks.filling import NOW, SPAN, fill
from benchmarks.measuring import Table, in_turn, middle, new_database, new_engine, ratios
from benchmarks.peers import PAYLOAD
from benchmarks.recording import bulk
from jobhistory import HistoryStore, Job, create_store, migrate

DAY = {"from_": NOW - timedelta(days=1)}
YEAR = {"from_": NOW - timedelta(days=365)}
TASKS = 50

ALL, LAST_DAY, LAST_YEAR = "all history", "24 hours", f"a year of {TASKS} tasks"

# The executions of a year before those of the history. They have no rows any more.
_YEAR = """
INSERT INTO job_history_ended
    (task_identifier, status, is_stored, started_at, completed_at, queue_time_ms, execution_time_ms)
SELECT
    'task_' || n % :tasks,
    CASE WHEN n % 33 = 7 THEN 'failed' ELSE 'completed' END,
    true, started_at, started_at + took * interval '1 ms', n % 1000, took
FROM (
    SELECT
        n, (n * 7919) % 5000 AS took,
        CAST(:until AS timestamptz)
            - (n / :per_day) * interval '1 day' - (n % 3) * interval '1 hour' AS started_at
    FROM generate_series(CAST(1 AS bigint), CAST(:days AS bigint) * :per_day) AS n
) AS executions
"""

_DROP_TRIGGERS = "DROP FUNCTION {} CASCADE"
_FUNCTIONS = ("queue_inserted", "queue_inserted_many", "queue_updated")

_numbers = itertools.count()


def measure_reads(
    server: URL, rows: int, rounds: int, row_rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]], list[float]]:
    """Return milliseconds by window from rollups and from rows, and executions folded per s."""
    rollups: dict[str, list[float]] = {name: [] for name in (ALL, LAST_DAY, LAST_YEAR)}
    exact: dict[str, list[float]] = {name: [] for name in (ALL, LAST_DAY)}
    with ExitStack() as stack:
        url = stack.enter_context(new_database(server, "rollups"))
        engine = stack.enter_context(new_engine(url))
        fill(engine, rows, is_queued=True)
        store = stack.enter_context(create_store(url, clock=lambda: NOW))
        folded = _fold(store)
        year = stack.enter_context(new_database(server, "rollups_of_a_year"))
        year_engine = stack.enter_context(new_engine(year))
        _fill_year(year_engine, rows)
        year_store = stack.enter_context(create_store(year, clock=lambda: NOW))
        _fold(year_store)
        for database in (engine, year_engine):
            with database.connect() as connection:
                connection.execute(text("VACUUM (ANALYZE) job_history_rollup, job_history_ended"))
        reads: list[tuple[list[float], Callable[[], object]]] = [
            (rollups[ALL], store.stats),
            (rollups[LAST_DAY], lambda: store.stats(**DAY)),
            (rollups[LAST_YEAR], lambda: year_store.stats(**YEAR)),
            (exact[LAST_DAY], lambda: store.stats(**DAY, exact=True)),
            (exact[ALL], lambda: store.stats(exact=True)),
        ]
        for number in range(rounds + 1):
            for times, read in reads:
                if times in exact.values() and number > row_rounds:
                    continue
                begun = perf_counter()
                read()
                if number:
                    times.append((perf_counter() - begun) * 1000)
    return rollups, exact, folded


def _fold(store: HistoryStore) -> list[float]:
    """Fold the whole queue, and return the executions per second of each batch."""
    moments: list[tuple[int, float]] = [(0, perf_counter())]
    store.fold(progress=lambda folded: moments.append((folded, perf_counter())))
    return [
        (later - earlier) / (ended - begun)
        for (earlier, begun), (later, ended) in itertools.pairwise(moments)
        if later > earlier
    ]


def _fill_year(engine: Engine, rows: int) -> None:
    """Create a history of the last days, and queue the executions of a year before it."""
    fill(engine, min(rows, 100_000), is_queued=True)
    with engine.connect() as connection:
        connection.execute(
            text(_YEAR),
            {
                "tasks": TASKS,
                "until": NOW - SPAN,
                "days": 365 - SPAN.days,
                "per_day": min(2_000, rows // 100),
            },
        )


def measure_writes(server: URL, rounds: int, outcomes: int, many: int) -> dict[str, list[float]]:
    """Return the executions per second of each way by round, with triggers and without."""
    with ExitStack() as stack:
        stores, engines = {}, []
        for kind in ("with", "without"):
            url = stack.enter_context(new_database(server, f"{kind}_rollups"))
            engine = stack.enter_context(new_engine(url))
            migrate.upgrade(engine)
            if kind == "without":
                with engine.connect() as connection:
                    for name in _FUNCTIONS:
                        connection.execute(text(_DROP_TRIGGERS.format(f"job_history_{name}")))
            stores[kind] = stack.enter_context(create_store(url))
            engines.append(engine)
        speeds: dict[str, list[float]] = {
            f"{way}, {kind}": [] for way in ("outcome", "record_many") for kind in stores
        }
        for number in range(rounds + 1):
            for kind, store in stores.items():
                jobs = _start(store, outcomes)
                begun = perf_counter()
                for job in jobs:
                    store.record_completion(job, "worker-1", "request", 5)
                if number:
                    speeds[f"outcome, {kind}"].append(outcomes / (perf_counter() - begun))

        def clean() -> None:
            for engine in engines:
                with engine.connect() as connection:
                    connection.execute(text("TRUNCATE job_history, job_history_ended"))

        clean()
        ways = [
            (f"record_many, {kind}", lambda count, store=store: bulk(store, count), many)
            for kind, store in stores.items()
        ]
        return speeds | in_turn(ways, max(1, rounds // 4), clean)


def _start(store: HistoryStore, count: int) -> list[str]:
    jobs = [f"rollups-{number}" for number in itertools.islice(_numbers, count)]
    for job in jobs:
        store.record_start(Job(job, "ship_order", PAYLOAD), "worker-1", "request")
    return jobs


def report_reads(
    rollups: dict[str, list[float]], exact: dict[str, list[float]], rows: int
) -> Table:
    """Return the table of milliseconds from rollups and from rows."""
    targets = {ALL: "50", LAST_DAY: "20", LAST_YEAR: "20"}
    return Table(
        "Statistics",
        f"Median milliseconds of `stats` in a history of {rows:,} rows over {SPAN.days} days, with "
        "the minimum and maximum. Rows of the year before it have expired.",
        ["window", "from rollups", "target", "from rows", "rows / rollups"],
        [
            [
                name,
                middle(figures, ",.1f"),
                targets[name],
                middle(exact[name], ",.1f") if name in exact else "",
                f"{statistics.median(exact[name]) / statistics.median(figures):,.0f}"
                if name in exact
                else "",
            ]
            for name, figures in rollups.items()
        ],
    )


def report_writes(speeds: dict[str, list[float]], folded: list[float]) -> Table:
    """Return the table of what the queue costs, and of the speed of folding."""
    lines = [
        [
            way,
            middle(speeds[f"{way}, with"]),
            middle(ratios(speeds[f"{way}, without"], speeds[f"{way}, with"]), ".2f"),
            target,
        ]
        for way, target in (("outcome", "at most 1.05"), ("record_many", "at most 1.10"))
    ]
    return Table(
        "What rollups cost",
        "Executions per second, and the time with the triggers that feed the queue relative to "
        "the time without them; medians over the rounds, with the minimum and maximum. Folding "
        "adds to hours, days and months.",
        ["way", "executions/s", "time with / without", "target"],
        [*lines, ["fold", middle(folded), "", "at least 100,000/s"]],
    )
