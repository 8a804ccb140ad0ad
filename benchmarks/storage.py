"""The cost of an execution for the server: WAL bytes, and updates that change no index."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from uuid import uuid4

from psycopg.types.json import Jsonb
from sqlalchemy import URL, Engine, text

from benchmarks.filling import fill
from benchmarks.measuring import Table, middle, new_database, new_engine, ratios, raw
from benchmarks.peers import PAYLOAD
from jobhistory import Job, create_store

FAILURE_EVERY = 20

Recording = Callable[[URL, int, int], None]
Ways = dict[str, tuple[str, Recording]]
Figures = dict[str, list[list[float]]]

AT_ONCE = 50
"""The number of executions that run while others end."""

ADDITIONS = {
    "nothing": (0, 0),
    "a result of 250 bytes": (250, 0),
    "a result of 500 bytes": (500, 0),
    "a result of 1,000 bytes": (1000, 0),
    "a result of 2,000 bytes": (2000, 0),
    "a result of 8,000 bytes": (8000, 0),
    "log lines of 1 KiB": (0, 1024),
    "log lines of 16 KiB": (0, 16384),
}
"""The bytes of the result and of the log lines, by name."""

_logger = logging.getLogger("benchmarks.job")
_logger.setLevel(logging.INFO)

_COMMON_DESIGN = """
CREATE TABLE common_history (LIKE job_history);
ALTER TABLE common_history ADD PRIMARY KEY (id);
CREATE INDEX ON common_history (job_id);
CREATE INDEX ON common_history (correlation_id);
CREATE INDEX ON common_history (task_identifier);
CREATE INDEX ON common_history (started_at);
CREATE INDEX ON common_history (expires_at);
CREATE INDEX ON common_history (status, started_at);
INSERT INTO common_history SELECT gen_random_uuid(), {columns}
    FROM job_history
"""
_INSERT = """
INSERT INTO common_history (
    id, job_id, correlation_id, task_identifier, worker_id, status, attempt_number, payload,
    started_at, expires_at
) VALUES (%s, %s, %s, 'ship_order', 'worker-1', 'started', 1, %s, %s, %s)
"""
_END = """
UPDATE common_history SET status = %s, completed_at = %s, execution_time_ms = 5, error_type = %s,
    error_message = %s WHERE id = %s RETURNING *
"""


def record_ours(url: URL, count: int, first: int) -> None:
    """Record pairs of start and outcome with jobhistory. One in twenty is a failure."""
    with create_store(url) as store:
        for number in range(first, first + count):
            ids = (uuid4().hex, "worker-1", uuid4().hex)
            store.record_start(Job(ids[0], "ship_order", PAYLOAD), *ids[1:])
            if number % FAILURE_EVERY:
                store.record_completion(*ids, 5)
            else:
                store.record_failure(*ids, 5, "no answer")


def record_more(result_bytes: int, log_bytes: int) -> Recording:
    """Return a function that records completions with a result and log lines of these sizes."""

    def record(url: URL, count: int, first: int) -> None:
        with create_store(url) as store:
            for _ in range(count // AT_ONCE):
                with ExitStack() as running:
                    for _ in range(AT_ONCE):
                        job = Job(uuid4().hex, "ship_order", PAYLOAD)
                        tracker = store.track(job, "worker-1", log_tail=log_bytes or None)
                        execution = running.enter_context(tracker)
                        execution.set_result(_text(result_bytes) or None)
                    for _ in range(log_bytes // 100):
                        _logger.info(_text(52))  # a line of 100 bytes, for all of them

    return record


def _text(length: int) -> str:
    """Return text that hardly compresses, so that its size is what it seems."""
    return "".join(uuid4().hex for _ in range(length // 32 + 1))[:length]


def record_common(url: URL, count: int, first: int) -> None:
    """Record the same by hand, in the common design."""
    with raw(url) as connection:
        for number in range(first, first + count):
            now, id_ = datetime.now(UTC), uuid4()
            ids = (id_, uuid4().hex, uuid4().hex)
            connection.execute(_INSERT, (*ids, Jsonb(PAYLOAD), now, now), prepare=True)
            outcome = (
                ("completed", now, None, None)
                if number % FAILURE_EVERY
                else ("failed", now, "Error", "no answer")
            )
            connection.execute(_END, (*outcome, id_), prepare=True).fetchone()


def _updates(engine: Engine, table: str, at_least: int) -> tuple[int, int]:
    """Return the numbers of all updates and of heap-only updates of a table."""
    query = text("SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = :table")
    for _ in range(200):  # the server counts the updates of an ended session with some delay
        with engine.connect() as connection:
            every, hot = connection.execute(query, {"table": table}).one()
        if every >= at_least:
            return every, hot
        time.sleep(0.05)
    raise RuntimeError(f"the server has counted {every} updates of {table}, not {at_least}")


def measure(server: URL, rounds: int, pairs: int, rows: int) -> tuple[Figures, Figures]:
    """Return the WAL bytes per pair and the share of heap-only updates of each round.

    First by design, then by what an outcome adds to its row.
    """
    designs: Ways = {
        "jobhistory": ("job_history", record_ours),
        "the common design": ("common_history", record_common),
    }
    additions: Ways = {
        name: ("job_history", record_more(*sizes)) for name, sizes in ADDITIONS.items()
    }
    with ExitStack() as stack:
        url = stack.enter_context(new_database(server, "storage"))
        engine = stack.enter_context(new_engine(url))
        fill(engine, rows)
        with engine.connect() as connection:
            names = connection.scalars(
                text(
                    "SELECT attname FROM pg_attribute WHERE attrelid = 'job_history'::regclass "
                    "AND attnum > 1 ORDER BY attnum"
                )
            )
            connection.exec_driver_sql(_COMMON_DESIGN.format(columns=", ".join(names)))
            connection.execute(text("VACUUM (ANALYZE) common_history"))
        return (
            _measure(engine, designs, rounds, pairs),
            _measure(engine, additions, rounds, max(pairs // 4, AT_ONCE) // AT_ONCE * AT_ONCE),
        )


def _measure(engine: Engine, ways: Ways, rounds: int, pairs: int) -> Figures:
    figures: Figures = {name: [[], []] for name in ways}
    for number in range(rounds):
        for name, (table, record) in ways.items():
            seen = _updates(engine, table, 0)
            with engine.connect() as connection:
                # Start equally: the first change of a page after a checkpoint logs all of it.
                connection.execute(text("CHECKPOINT"))
                before = connection.scalar(text("SELECT pg_current_wal_insert_lsn()"))
            record(engine.url, pairs, number * pairs)
            with engine.connect() as connection:
                written = connection.scalar(
                    text("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), :before)"),
                    {"before": before},
                )
            updated = _updates(engine, table, seen[0] + pairs)
            wal, hot = figures[name]
            wal.append(float(written) / pairs)
            hot.append((updated[1] - seen[1]) / (updated[0] - seen[0]))
    return figures


def report_additions(figures: Figures) -> Table:
    """Return the table of WAL and heap-only updates by what an outcome adds to its row."""
    base = figures["nothing"][0]
    return Table(
        "What results and log lines add",
        f"Completions of {AT_ONCE} executions at a time, which add text that hardly compresses to "
        "their rows. An outcome is heap-only if the page has room for the row's new version. "
        "PostgreSQL stores long values apart.",
        ["an outcome adds", "WAL bytes per pair", "of nothing's", "heap-only updates"],
        [
            [name, middle(wal), middle(ratios(wal, base), ".2f"), f"{statistics.median(hot):.0%}"]
            for name, (wal, hot) in figures.items()
        ],
    )


def report(figures: Figures, rows: int) -> Table:
    """Return the table of WAL and heap-only updates by design."""
    base = figures["the common design"][0]
    return Table(
        "What an execution costs the server",
        f"Pairs of INSERT and UPDATE in a table with {rows:,} rows. Job and correlation ids are "
        f"random, and {1 / FAILURE_EVERY:.0%} of the pairs are failures. The common design has a "
        "random key and an index that contains the status.",
        ["design", "WAL bytes per pair", "of the common design's", "heap-only updates"],
        [
            [
                name,
                middle(wal),
                middle(ratios(wal, base), ".2f"),
                f"{statistics.median(hot):.1%}",
            ]
            for name, (wal, hot) in figures.items()
        ],
    )
