"""The tables of statistics that outlive the rows of the history, and the triggers that feed them.

An execution enters the queue `job_history_ended` when it ends, by a trigger, so in the statement
that writes its outcome, whoever executes it. Folding moves it from there to `job_history_rollup`.
Deleting a row of the history changes neither.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    Text,
    event,
    false,
    true,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import ExecutableDDLElement

from jobhistory.execution.outcome import WORKER_LOST
from jobhistory.sanitize.truncate import NAME_LENGTH
from jobhistory.schema import TABLE, TABLE_NAME, Base, UTCDateTime
from jobhistory.statistics.measures import COUNTS, LAST_TIMES

BULK_SETTING = "jobhistory.bulk"
"""The setting of PostgreSQL that is `on` in a transaction which inserts many ended rows.

A trigger then feeds all rows of a statement at once, which takes less time than a trigger for each.
"""

ENDED = Table(
    f"{TABLE_NAME}_ended",
    Base.metadata,
    Column("task_identifier", String(NAME_LENGTH), nullable=False),
    Column("status", String(32), nullable=False),
    Column("will_retry", Boolean),
    Column("is_lost", Boolean, nullable=False, server_default=false()),
    Column("is_stored", Boolean, nullable=False, server_default=true()),
    Column("weight", SmallInteger, nullable=False, server_default="1"),
    Column("started_at", UTCDateTime, nullable=False),
    Column("completed_at", UTCDateTime),
    Column("queue_time_ms", BigInteger),
    Column("execution_time_ms", BigInteger),
)
"""The queue of executions that have ended and are not folded yet. It has no key and no order.

`weight` is 1, or -1 in the first row of a pair that corrects an outcome which was counted before.
`is_lost` is whether the worker was presumed lost, and `is_stored` whether the history has a row.
"""


def _time_columns(name: str) -> list[Column[Any]]:
    return [
        Column(f"{name}_sum", BigInteger, nullable=False, server_default="0"),
        Column(f"{name}_max", BigInteger),
        Column(f"{name}s", LargeBinary),
    ]


ROLLUP = Table(
    f"{TABLE_NAME}_rollup",
    Base.metadata,
    Column("span", String(5), primary_key=True),
    Column("task_identifier", String(NAME_LENGTH), primary_key=True),
    Column("bucket", UTCDateTime, primary_key=True),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in COUNTS),
    *(Column(name, UTCDateTime) for name in LAST_TIMES),
    *_time_columns("execution_time"),
    *_time_columns("queue_time"),
)
"""The statistics of a task in a bucket of time, for each `Span`.

An execution belongs to the bucket of its start. `execution_times` and `queue_times` are histograms
as `Histogram.to_bytes` writes them.
"""

# A read of all tasks in a window. The key serves those of one task, and the writes.
Index(f"ix_{TABLE_NAME}_rollup_bucket", ROLLUP.c.span, ROLLUP.c.bucket)

STATE = Table(
    f"{TABLE_NAME}_state",
    Base.metadata,
    Column("name", String(NAME_LENGTH), primary_key=True),
    Column("value", Text, nullable=False),
)
"""What maintenance has done, by name, as JSON."""

ROLLUP_TABLES = (ENDED, ROLLUP, STATE)

for _table in ROLLUP_TABLES:
    _table.add_is_dependent_on(TABLE)  # so that the triggers are created last

TRIGGERS = {
    "postgresql": tuple(
        f"{TABLE_NAME}_{name}" for name in ("inserted", "inserted_many", "updated")
    ),
    "sqlite": tuple(f"{TABLE_NAME}_{name}" for name in ("corrected", "ended", "inserted")),
}
"""The names of the triggers on the history table, by dialect."""

_FUNCTIONS = ("queue_inserted", "queue_inserted_many", "queue_updated")
_COLUMNS = """
        task_identifier, status, will_retry, is_lost, weight,
        started_at, completed_at, queue_time_ms, execution_time_ms
    """
_IS_CORRECTED = """NEW.status <> OLD.status
        OR NEW.will_retry IS {distinct} OLD.will_retry
        OR NEW.error_type IS {distinct} OLD.error_type
        OR NEW.task_identifier <> OLD.task_identifier
        OR NEW.started_at <> OLD.started_at"""
_CORRECTED_COLUMNS = "status, will_retry, error_type, task_identifier, started_at"


def _counted(row: str) -> str:
    """Return the values of an execution that has ended and counts for the first time."""
    return f"""{_kind(row)}, 1,
        {row}.started_at, {row}.completed_at, {row}.queue_time_ms, {row}.execution_time_ms"""


def _uncounted(row: str) -> str:
    """Return the values that take back a count. Times are never taken out of a histogram."""
    return f"""{_kind(row)}, -1,
        {row}.started_at, NULL, NULL, NULL"""


def _corrected(new: str, old: str) -> str:
    """Return the values of an execution that counted before, with the times that are new."""
    return f"""{_kind(new)}, 1,
        {new}.started_at, {new}.completed_at,
        CASE WHEN {old}.queue_time_ms IS NULL THEN {new}.queue_time_ms END,
        CASE WHEN {old}.execution_time_ms IS NULL THEN {new}.execution_time_ms END"""


def _kind(row: str) -> str:
    return f"""
        {row}.task_identifier, {row}.status, {row}.will_retry,
        coalesce({row}.error_type = '{WORKER_LOST}', false)"""


# The functions run as their owner, so a role that may write history needs no grants on the queue.
# Hence they have a fixed search path. The trigger of updates has no condition, because PostgreSQL
# would parse it for each statement, which takes longer than the function.
_POSTGRESQL = f"""
DO $do$
DECLARE
    home text := (
        SELECT quote_ident(nspname) || '.'
        FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = CAST($name${{home}}{TABLE_NAME}$name$ AS regclass)
    );
    intro text := ' RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
        'SET search_path = pg_catalog, pg_temp AS ';
    each record;
BEGIN
    FOR each IN SELECT * FROM (VALUES
        ('queue_inserted()', $body$BEGIN
    QUEUE VALUES ({_counted("NEW")});
    RETURN NULL;
END$body$),
        ('queue_inserted_many()', $body$BEGIN
    QUEUE SELECT{_counted("added")}
    FROM added WHERE added.status <> 'started';
    RETURN NULL;
END$body$),
        ('queue_updated()', $body$BEGIN
    IF OLD.status = 'started' THEN
        IF NEW.status <> 'started' THEN
            QUEUE VALUES ({_counted("NEW")});
        END IF;
    ELSIF {_IS_CORRECTED.format(distinct="DISTINCT FROM")} THEN
        QUEUE VALUES ({_uncounted("OLD")});
        IF NEW.status <> 'started' THEN
            QUEUE VALUES ({_corrected("NEW", "OLD")});
        END IF;
    END IF;
    RETURN NULL;
END$body$)) AS functions (name, body)
    LOOP
        EXECUTE 'CREATE OR REPLACE FUNCTION ' || home || '{TABLE_NAME}_' || each.name || intro
            || quote_literal(replace(each.body, 'QUEUE',
                'INSERT INTO ' || home || '{ENDED.name} ({_COLUMNS})'));
        EXECUTE 'REVOKE ALL ON FUNCTION ' || home || '{TABLE_NAME}_' || each.name || ' FROM PUBLIC';
    END LOOP;
    FOR each IN SELECT * FROM (VALUES
        ('inserted', 'INSERT', $when$FOR EACH ROW WHEN (
            NEW.status <> 'started' AND current_setting('{BULK_SETTING}', true)
                IS DISTINCT FROM 'on')$when$),
        ('inserted_many', 'INSERT', $when$REFERENCING NEW TABLE AS added FOR EACH STATEMENT
            WHEN (current_setting('{BULK_SETTING}', true) = 'on')$when$),
        ('updated', 'UPDATE OF {_CORRECTED_COLUMNS}',
            'FOR EACH ROW')
    ) AS triggers (name, event, condition)
    LOOP
        EXECUTE 'DROP TRIGGER IF EXISTS {TABLE_NAME}_' || each.name
            || ' ON ' || home || '{TABLE_NAME}';  -- so that this also repairs
        EXECUTE 'CREATE TRIGGER {TABLE_NAME}_' || each.name || ' AFTER ' || each.event
            || ' ON ' || home || '{TABLE_NAME} ' || each.condition
            || ' EXECUTE FUNCTION ' || home || '{TABLE_NAME}_queue_' || each.name || '()';
    END LOOP;
END $do$"""  # noqa: S608

_QUEUE = f"INSERT INTO {ENDED.name} ({_COLUMNS})"
_SQLITE = (
    f"""
CREATE TRIGGER {{home}}{TABLE_NAME}_inserted AFTER INSERT ON {TABLE_NAME}
WHEN NEW.status <> 'started'
BEGIN
    {_QUEUE} VALUES ({_counted("NEW")});
END""",  # noqa: S608
    f"""
CREATE TRIGGER {{home}}{TABLE_NAME}_ended AFTER UPDATE OF status ON {TABLE_NAME}
WHEN OLD.status = 'started' AND NEW.status <> 'started'
BEGIN
    {_QUEUE} VALUES ({_counted("NEW")});
END""",
    f"""
CREATE TRIGGER {{home}}{TABLE_NAME}_corrected
AFTER UPDATE OF {_CORRECTED_COLUMNS} ON {TABLE_NAME}
WHEN OLD.status <> 'started' AND (
        {_IS_CORRECTED.format(distinct="NOT")}
    )
BEGIN
    {_QUEUE} VALUES ({_uncounted("OLD")});
    {_QUEUE} SELECT{_corrected("NEW", "OLD")}
        WHERE NEW.status <> 'started';
END""",
)

# `create_all` also adds these tables to a history that an earlier version made.
_QUEUE_HISTORY = f"""
INSERT INTO {{home}}{ENDED.name} ({_COLUMNS})
SELECT{_counted(TABLE_NAME)}
FROM {{home}}{TABLE_NAME} WHERE status <> 'started'"""

# Folding deletes rows of the queue, which has no key: without this, a publication of all tables
# would refuse it.
_REPLICA_IDENTITY = f"ALTER TABLE {{home}}{ENDED.name} REPLICA IDENTITY FULL"


class _RollupDDL(ExecutableDDLElement):
    """A statement with `{home}`, the schema and a dot if there is one."""

    def __init__(self, sql: str) -> None:
        self.sql = sql


@compiles(_RollupDDL)
def _with_names(ddl: Any, compiler: Any, **options: Any) -> str:
    queue: str = compiler.preparer.format_table(ddl.target)
    home = queue.removesuffix(ENDED.name)
    sql: str = ddl.sql.replace("{home}", home)
    return sql


def _on(moment: str, sql: str, dialect: str) -> None:
    ddl = _RollupDDL(sql).execute_if(dialect=dialect)
    event.listen(ENDED, moment, ddl, propagate=True)


for _sql in (_REPLICA_IDENTITY, _POSTGRESQL, _QUEUE_HISTORY):
    _on("after_create", _sql, "postgresql")
for _sql in (*_SQLITE, _QUEUE_HISTORY):
    _on("after_create", _sql, "sqlite")
for _name in _FUNCTIONS:
    _drop = f"DROP FUNCTION IF EXISTS {{home}}{TABLE_NAME}_{_name}() CASCADE"
    _on("after_drop", _drop, "postgresql")
for _name in TRIGGERS["sqlite"]:
    _on("after_drop", f"DROP TRIGGER IF EXISTS {{home}}{_name}", "sqlite")
