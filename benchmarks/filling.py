"""A generator of histories of any size, with fifty frequent tasks and a rare one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from sqlalchemy import Engine, text

from jobhistory import migrate
from jobhistory.database.partitions.spans import first_id

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SPAN = timedelta(days=33)
"""The time that each history spans, so a larger one has more executions per day."""

RETENTION = timedelta(days=35)

RARE_TASK_EVERY = 100_000
"""One execution in this many is of the rare task. All of these are failures."""

# Of all rows, 3 % are failures, 0.1 % partial successes, and 0.005 % are still started. A row has
# about 700 bytes. An id begins with the time of the start, as `new_execution_id` makes it.
_FILL = """
INSERT INTO job_history (
    id, job_id, correlation_id, task_identifier, worker_id, status, attempt_number, payload,
    started_at, completed_at, queue_time_ms, execution_time_ms, error_type, error_message,
    error_stack, failed_steps, expires_at
)
SELECT
    (lpad(to_hex(microseconds / 1000), 12, '0') || '7'
        || lpad(to_hex(microseconds % 1000 * 4096 / 1000), 3, '0')
        || '8' || substr(hash, 1, 15))::uuid,
    'job-' || n, 'request-' || n / 3,
    CASE WHEN n % :rare = 7 THEN 'rare_task' ELSE 'task_' || n % 50 END,
    'worker-' || n % 8,
    CASE kind WHEN 0 THEN 'completed' WHEN 1 THEN 'failed' WHEN 2 THEN 'partial_success'
        ELSE 'started' END,
    1,
    jsonb_build_object('order', n, 'customer', jsonb_build_object('name', 'Ann Example',
        'address', '1 Example Street, Exampleton'), 'note',
        CASE WHEN :varied THEN
            (SELECT string_agg(md5(n || '.' || part), '') FROM generate_series(1, 8) AS part)
        ELSE repeat(hash, 8) END),
    started_at,
    CASE WHEN kind < 3 THEN started_at + took * interval '1 ms' END,
    n % 1000, CASE WHEN kind < 3 THEN took END,
    CASE WHEN kind = 1 THEN
        CASE WHEN n % 3 = 0 THEN 'ValueError' ELSE 'TimeoutError' END END,
    CASE WHEN kind = 1 THEN
        CASE WHEN n % 3 = 0 THEN 'no order ' || n ELSE 'no answer from 10.0.0.' || n % 250 END END,
    CASE WHEN kind = 1 THEN repeat('  File "app.py", line 12, in ship_order' || chr(10), 8) END,
    CASE WHEN kind = 2 THEN '["upload"]'::jsonb END,
    started_at + CAST(:retention AS interval)
FROM (
    SELECT *, (extract(epoch FROM started_at) * 1000000)::bigint AS microseconds
    FROM (
        SELECT
            n, md5(n::text) AS hash,
            CAST(:now AS timestamptz)
                - (CAST(:rows AS bigint) - n) * (CAST(:span AS interval) / :rows) AS started_at,
            CASE WHEN n % 20000 = 19 THEN 3 WHEN n % 1000 = 11 THEN 2
                WHEN n % 100 IN (7, 43, 81) THEN 1 ELSE 0 END AS kind,
            (n * 7919) % 5000 AS took
        FROM generate_series(CAST(:first AS bigint), :last) AS n
    ) AS numbered
) AS executions
"""


def fill(
    engine: Engine,
    rows: int,
    *,
    at_a_time: int = 500_000,
    is_queued: bool = False,
    now: datetime = NOW,
    retention: timedelta = RETENTION,
    starts: Sequence[datetime] = (),
    is_varied: bool = False,
) -> None:
    """Create the table, fill it, and then create its indexes, which is the fastest order.

    Args:
        now: the time at which the newest execution started.
        retention: how long after its start each execution expires.
        starts: the starts of all partitions but the first; none for a table without partitions.
        is_varied: whether payloads hold 256 random digits. Otherwise, they repeat 32 of them, which
            takes as much room in the table, but compresses well.
        is_queued: whether the executions wait to be folded. Otherwise, no statistics know them.
    """
    migrate.upgrade(engine, "jobhistory_0011")
    if starts:
        _partition(engine, starts)
    for first in range(1, rows + 1, at_a_time):
        with engine.begin() as connection:
            connection.execute(
                text(_FILL),
                {
                    "first": first,
                    "last": min(rows, first + at_a_time - 1),
                    "rows": rows,
                    "rare": RARE_TASK_EVERY,
                    "now": now,
                    "span": SPAN,
                    "retention": retention,
                    "varied": is_varied,
                },
            )
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL maintenance_work_mem = '1GB'"))
        migrate.upgrade(connection)
        if not is_queued:
            connection.execute(text("TRUNCATE job_history_ended"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) job_history"))


def _partition(engine: Engine, starts: Sequence[datetime]) -> None:
    """Replace the empty table by one with partitions, as `jobhistory db partition` makes them.

    That command would put all rows of a table that exists into the first partition.
    """
    bounds = ["MINVALUE", *(f"'{first_id(start)}'" for start in starts), "MAXVALUE"]
    statements = [
        "ALTER TABLE job_history RENAME TO job_history_plain",
        "CREATE TABLE job_history (LIKE job_history_plain INCLUDING DEFAULTS INCLUDING CONSTRAINTS "
        "INCLUDING STORAGE) PARTITION BY RANGE (id)",
        "DROP TABLE job_history_plain",
        "ALTER TABLE job_history ADD CONSTRAINT pk_job_history PRIMARY KEY (id)",
        *(
            f"CREATE TABLE job_history_{number} PARTITION OF job_history "
            f"FOR VALUES FROM ({low}) TO ({high}) WITH (fillfactor = 80)"
            for number, (low, high) in enumerate(pairwise(bounds))
        ),
    ]
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
