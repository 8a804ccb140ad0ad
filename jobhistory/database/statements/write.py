"""The SQL that writes starts and outcomes.

Statements that do not depend on criteria are built once, at import. Values that index predicates
contain are literals and not parameters, because the generic plan of a prepared statement could not
use the index otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Select,
    String,
    Update,
    bindparam,
    func,
    insert,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from jobhistory.database.functions import elapsed_ms, later, unforeseen, with_label
from jobhistory.database.layout import PLAIN
from jobhistory.database.statements.read import NEWEST_OF_ONE, STARTED, deemed_frequent
from jobhistory.execution.outcome import OUTCOME_COLUMNS, WORKER_LOST
from jobhistory.schema import COLUMNS, TABLE, HistoryRecord, UTCDateTime

_KEY_JOB_ID: BindParameter[str] = bindparam("key_job_id")


def _of_key(columns: Any, *conditions: ColumnElement[bool]) -> list[ColumnElement[bool]]:
    """Return the conditions that match an `ExecutionKey`, with parameters such as `key_job_id`."""
    # A job usually has few executions, but that of a cron job may have all. Then only the newest
    # ones are read, because the planner does not know that the rest of the conditions are rare.
    return [
        columns.job_id == _KEY_JOB_ID,
        deemed_frequent(
            columns.worker_id == bindparam("key_worker_id"),
            columns.correlation_id == bindparam("key_correlation_id"),
            *conditions,
        ),
    ]


_ONE: ColumnElement[int] = literal_column("1")

INSERT = insert(TABLE)

_ENDED_AT = bindparam("ended_at", type_=UTCDateTime())
_TIMES_OF_OUTCOME = {
    # The caller's clock may be behind, but an end is never before the start.
    "completed_at": later(_ENDED_AT, COLUMNS.started_at),
    "execution_time_ms": func.coalesce(
        bindparam("took_ms", type_=BigInteger()), elapsed_ms(COLUMNS.started_at, _ENDED_AT)
    ),
}

OF_JOB: ColumnElement[bool] = COLUMNS.job_id == _KEY_JOB_ID
"""The condition for the job `key_job_id`.

Where Citus distributes the table by job, a statement with it is executed on one server. It is in
every statement whose caller knows the job.
"""

# FOR UPDATE makes the second of two concurrent callers wait for the first and check the row again.
# Then it takes the next started row, or none. Without FOR UPDATE, both would select the same row,
# and the second would update nothing.
FINISH = (
    update(TABLE)
    .where(
        OF_JOB,
        COLUMNS.id
        == select(COLUMNS.id)
        .where(*_of_key(COLUMNS, COLUMNS.status == STARTED))
        .order_by(COLUMNS.started_at.desc().nulls_last(), COLUMNS.id.desc())
        .limit(_ONE)
        .with_for_update()
        .correlate(None)
        .scalar_subquery(),
    )
    .values(_TIMES_OF_OUTCOME)
    .returning(*COLUMNS)
)
"""Ends the newest started execution with a key.

The parameters `ended_at` and `took_ms` are the times of the outcome. Parameters with the names of
columns set these columns.
"""

# Where the table has partitions, one plan for all ids then reads only one of them. PostgreSQL would
# plan for each id anew, because the estimate of a plan for all ids is the sum over all partitions.
_KEY_ID: ColumnElement[Any] = unforeseen(bindparam("key_id", type_=COLUMNS.id.type))
_BY_ID = COLUMNS.id == _KEY_ID

FINISH_BY_ID = (
    update(TABLE)
    .where(_BY_ID, COLUMNS.status == STARTED)
    .values(_TIMES_OF_OUTCOME)
    .returning(*COLUMNS)
)
"""Ends the execution with an id if it is started; otherwise like `FINISH`."""

FINISH_ROW = FINISH_BY_ID.where(OF_JOB)
"""Ends the execution with an id and a job; otherwise like `FINISH_BY_ID`."""

HEARTBEAT = update(TABLE).where(_BY_ID, OF_JOB, COLUMNS.status == STARTED)
"""Sets the columns that are parameters, if the execution with an id and a job is started."""


def exchange_label(name: str) -> Update:
    """Return a statement that replaces one label of an execution, by its id and its job.

    It does so only if the execution has ended.

    The parameters `old_label` and `new_label` are texts, or NULL for no label. On PostgreSQL, the
    second of two concurrent callers waits for the first and checks the row again.
    """
    old, new = (bindparam(each, type_=String()) for each in ("old_label", "new_label"))
    return (
        update(TABLE)
        .where(
            _BY_ID,
            OF_JOB,
            COLUMNS.status != STARTED,
            COLUMNS.labels[name].as_string().is_not_distinct_from(old),
        )
        .values(labels=with_label(COLUMNS.labels, literal(name), new))
    )


_WORKER_LOST: ColumnElement[Any] = literal_column(f"'{WORKER_LOST}'")
LOST = (COLUMNS.status == literal_column("'failed'")) & (COLUMNS.error_type == _WORKER_LOST)
"""The condition that a row has the outcome of a lost worker."""

REPLACE_LOST = (
    update(TABLE).where(_BY_ID, OF_JOB, LOST).values(_TIMES_OF_OUTCOME).returning(*COLUMNS)
)
"""Replaces the outcome of the execution with an id and a job if its worker was presumed lost.

Otherwise like `FINISH`.
"""

FINISH_MANY = (
    update(TABLE)
    .where(_BY_ID, OF_JOB, COLUMNS.status == STARTED)
    .values({name: bindparam(name) for name in OUTCOME_COLUMNS})
)
"""`FINISH_ROW` for an executemany(). Each set of parameters has all columns of an outcome."""


def _finished(*conditions: ColumnElement[bool]) -> Select[HistoryRecord]:
    of_key = _of_key(HistoryRecord, HistoryRecord.status != STARTED, *conditions)
    return select(HistoryRecord).where(*of_key).order_by(*NEWEST_OF_ONE).limit(_ONE)


FINISHED = _finished()
"""Selects the newest ended execution with a key."""

FINISHED_AT = _finished(HistoryRecord.completed_at == bindparam("key_completed_at"))
"""Selects the execution with a key that ended at a given time."""

FINISHED_BY_ID = select(HistoryRecord).where(
    HistoryRecord.id == _KEY_ID, HistoryRecord.status != STARTED
)
"""Selects the execution with an id, if it has ended."""

FINISHED_ROW = FINISHED_BY_ID.where(HistoryRecord.job_id == _KEY_JOB_ID)
"""Selects the execution with an id and a job, if it has ended."""

_DIALECT_INSERTS: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


def insert_or_finish(
    dialect: str, set_: Callable[[Any], dict[str, Any]], key: tuple[str, ...] = PLAIN.key
) -> Any:
    """Return a statement that inserts a row, or writes its outcome into the row with its key.

    The existing row keeps its outcome, unless its worker was presumed lost and the new outcome is
    real. It also stays unchanged if it belongs to another job or task. The statement is idempotent,
    so it is safe to retry after an error that leaves open whether it succeeded.

    Args:
        set_: called with the columns of the new row; returns other values to set, by column.
        key: the columns of the key, see `Layout`.
    """
    statement = _DIALECT_INSERTS[dialect](TABLE)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[COLUMNS[name] for name in key],
        set_={name: new[name] for name in OUTCOME_COLUMNS}
        | {
            "completed_at": later(new.completed_at, COLUMNS.started_at),
            "progress": func.coalesce(new.progress, COLUMNS.progress),
        }
        | set_(new),
        where=((COLUMNS.status == STARTED) | (LOST & new.error_type.is_distinct_from(_WORKER_LOST)))
        & (new.status != STARTED)
        & (COLUMNS.job_id == new.job_id)
        & (COLUMNS.task_identifier == new.task_identifier),
    )


@lru_cache
def insert_unless_exists(dialect: str, key: tuple[str, ...]) -> Any:
    """Return a statement that inserts a row, unless a row with its key exists."""
    statement = _DIALECT_INSERTS[dialect](TABLE)
    return statement.on_conflict_do_nothing(index_elements=[COLUMNS[name] for name in key])
