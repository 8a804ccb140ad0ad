"""The cost of an execution for the server: WAL bytes, and updates that change no index."""

from __future__ import annotations

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


def measure(server: URL, rounds: int, pairs: int, rows: int) -> dict[str, list[list[float]]]:
    """Return, by design, the WAL bytes per pair and the share of heap-only updates, by round."""
    designs: dict[str, tuple[str, Callable[[URL, int, int], None]]] = {
        "jobhistory": ("job_history", record_ours),
        "the common design": ("common_history", record_common),
    }
    wal: dict[str, list[float]] = {name: [] for name in designs}
    hot: dict[str, list[float]] = {name: [] for name in designs}
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
        for number in range(rounds):
            for name, (table, record) in designs.items():
                seen = _updates(engine, table, 0)
                with engine.connect() as connection:
                    # Start equally: the first change of a page after a checkpoint logs all of it.
                    connection.execute(text("CHECKPOINT"))
                    before = connection.scalar(text("SELECT pg_current_wal_insert_lsn()"))
                record(url, pairs, number * pairs)
                with engine.connect() as connection:
                    written = connection.scalar(
                        text("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), :before)"),
                        {"before": before},
                    )
                updated = _updates(engine, table, seen[0] + pairs)
                wal[name].append(float(written) / pairs)
                hot[name].append((updated[1] - seen[1]) / (updated[0] - seen[0]))
    return {name: [wal[name], hot[name]] for name in designs}


def report(figures: dict[str, list[list[float]]], rows: int) -> Table:
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
