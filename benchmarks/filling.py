"""A generator of histories of any size, with fifty frequent tasks and a rare one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text

from jobhistory import migrate

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SPAN = timedelta(days=33)
"""The time that each history spans, so a larger one has more executions per day."""

RARE_TASK_EVERY = 100_000
"""One execution in this many is of the rare task. All of these are failures."""

# Of all rows, 3 % are failures, 0.1 % partial successes, and 0.005 % are still started. A row has
# about 700 bytes.
_FILL = """
INSERT INTO job_history (
    id, job_id, correlation_id, task_identifier, worker_id, status, attempt_number, payload,
    started_at, completed_at, queue_time_ms, execution_time_ms, error_type, error_message,
    error_stack, failed_steps, expires_at
)
SELECT
    (lpad(to_hex((extract(epoch FROM started_at) * 1000)::bigint), 12, '0') || '7'
        || substr(hash, 1, 3) || '8' || substr(hash, 4, 15))::uuid,
    'job-' || n, 'request-' || n / 3,
    CASE WHEN n % :rare = 7 THEN 'rare_task' ELSE 'task_' || n % 50 END,
    'worker-' || n % 8,
    CASE kind WHEN 0 THEN 'completed' WHEN 1 THEN 'failed' WHEN 2 THEN 'partial_success'
        ELSE 'started' END,
    1,
    jsonb_build_object('order', n, 'customer', jsonb_build_object('name', 'Ann Example',
        'address', '1 Example Street, Exampleton'), 'note', repeat(hash, 8)),
    started_at,
    CASE WHEN kind < 3 THEN started_at + took * interval '1 ms' END,
    n % 1000, CASE WHEN kind < 3 THEN took END,
    CASE WHEN kind = 1 THEN
        CASE WHEN n % 3 = 0 THEN 'ValueError' ELSE 'TimeoutError' END END,
    CASE WHEN kind = 1 THEN
        CASE WHEN n % 3 = 0 THEN 'no order ' || n ELSE 'no answer from 10.0.0.' || n % 250 END END,
    CASE WHEN kind = 1 THEN repeat('  File "app.py", line 12, in ship_order' || chr(10), 8) END,
    CASE WHEN kind = 2 THEN '["upload"]'::jsonb END,
    started_at + interval '35 days'
FROM (
    SELECT
        n, md5(n::text) AS hash,
        CAST(:now AS timestamptz) - (CAST(:rows AS bigint) - n) * (CAST(:span AS interval) / :rows)
            AS started_at,
        CASE WHEN n % 20000 = 19 THEN 3 WHEN n % 1000 = 11 THEN 2
            WHEN n % 100 IN (7, 43, 81) THEN 1 ELSE 0 END AS kind,
        (n * 7919) % 5000 AS took
    FROM generate_series(CAST(:first AS bigint), :last) AS n
) AS executions
"""


def fill(engine: Engine, rows: int, *, at_a_time: int = 500_000) -> None:
    """Create the table, fill it, and then create its indexes, which is the fastest order."""
    migrate.upgrade(engine, "jobhistory_0011")
    for first in range(1, rows + 1, at_a_time):
        with engine.begin() as connection:
            connection.execute(
                text(_FILL),
                {
                    "first": first,
                    "last": min(rows, first + at_a_time - 1),
                    "rows": rows,
                    "rare": RARE_TASK_EVERY,
                    "now": NOW,
                    "span": SPAN,
                },
            )
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL maintenance_work_mem = '1GB'"))
        migrate.upgrade(connection)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE) job_history"))
