"""The SQL that writes starts and outcomes.

Statements that do not depend on criteria are built once, at import, and bound with parameters. What
index predicates name is written as it stands in them, never as a parameter: a prepared statement's
generic plan could not use the index otherwise.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    bindparam,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from jobhistory.database.functions import elapsed_ms, later
from jobhistory.database.statements.read import NEWEST_OF_ONE, STARTED
from jobhistory.execution.outcome import OUTCOME_COLUMNS, WORKER_LOST
from jobhistory.schema import COLUMNS, TABLE, HistoryRecord, UTCDateTime


def _of_key(columns: Any) -> list[ColumnElement[bool]]:
    """That a row is of an `ExecutionKey`, given as the parameters `key_job_id` and so on."""
    # It is the job that has few rows. As long as there are no statistics, PostgreSQL would look
    # through all of the worker's as well; an index on an expression is one that it has not got.
    no_index: ColumnElement[str] = literal_column("''")
    return [
        columns.job_id == bindparam("key_job_id"),
        columns.worker_id + no_index == bindparam("key_worker_id"),
        columns.correlation_id + no_index == bindparam("key_correlation_id"),
    ]


INSERT = insert(TABLE)

_ENDED_AT = bindparam("ended_at", type_=UTCDateTime())
_TIMES_OF_OUTCOME = {
    # What a caller's clock says may be earlier than the start; and not every caller took the time.
    "completed_at": later(_ENDED_AT, COLUMNS.started_at),
    "execution_time_ms": func.coalesce(
        bindparam("took_ms", type_=BigInteger()), elapsed_ms(COLUMNS.started_at, _ENDED_AT)
    ),
}

# FOR UPDATE makes the second of two callers wait for the first and then look again, so it takes the
# next started row, or none. Without it both would choose the same row, and the second miss.
FINISH = (
    update(TABLE)
    .where(
        COLUMNS.id
        == select(COLUMNS.id)
        .where(*_of_key(COLUMNS), COLUMNS.status == STARTED)
        .order_by(COLUMNS.started_at.desc().nulls_last(), COLUMNS.id.desc())
        .limit(1)
        .with_for_update()
        .correlate(None)
        .scalar_subquery()
    )
    .values(_TIMES_OF_OUTCOME)
    .returning(*COLUMNS)
)
"""Ends the newest started execution of a key.

Its parameters `ended_at` and `took_ms` are the outcome's times; those named as columns are the
values of other columns that it sets.
"""

_BY_ID = COLUMNS.id == bindparam("key_id")

FINISH_BY_ID = (
    update(TABLE)
    .where(_BY_ID, COLUMNS.status == STARTED)
    .values(_TIMES_OF_OUTCOME)
    .returning(*COLUMNS)
)
"""Ends the execution with an id if it is started; the rest is as with `FINISH`."""

_LOST = (COLUMNS.status == literal_column("'failed'")) & (
    COLUMNS.error_type == literal_column(f"'{WORKER_LOST}'")
)

REPLACE_LOST = update(TABLE).where(_BY_ID, _LOST).values(_TIMES_OF_OUTCOME).returning(*COLUMNS)
"""Replaces the outcome of the execution with an id, if it ended as lost; else as `FINISH`."""

FINISH_MANY = (
    update(TABLE)
    .where(_BY_ID, COLUMNS.status == STARTED)
    .values({name: bindparam(name) for name in OUTCOME_COLUMNS})
)
"""`FINISH_BY_ID` for many sets of parameters at once, which name every column of an outcome."""

FINISHED = (
    select(HistoryRecord)
    .where(*_of_key(HistoryRecord), HistoryRecord.status != STARTED)
    .order_by(*NEWEST_OF_ONE)
    .limit(1)
)
"""The newest ended execution of a key."""

FINISHED_AT = FINISHED.where(HistoryRecord.completed_at == bindparam("key_completed_at"))
"""The execution of a key that ended at a moment."""


FINISHED_BY_ID = select(HistoryRecord).where(
    HistoryRecord.id == bindparam("key_id"), HistoryRecord.status != STARTED
)
"""The execution with an id, if it has ended."""


_DIALECT_INSERTS: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


def _insert_or_end(dialect_insert: Any) -> Any:
    statement = dialect_insert(TABLE)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[COLUMNS.id],
        set_={name: new[name] for name in OUTCOME_COLUMNS}
        | {"completed_at": later(new.completed_at, COLUMNS.started_at)},
        where=((COLUMNS.status == STARTED) | _LOST)
        & (new.status != STARTED)
        & (COLUMNS.job_id == new.job_id)
        & (COLUMNS.task_identifier == new.task_identifier),
    )


INSERT_OR_FINISH = {name: _insert_or_end(insert_) for name, insert_ in _DIALECT_INSERTS.items()}
"""By dialect: inserts a row, or gives the row with its id its outcome, if that has none but lost.

To do so again changes nothing, whether the first time got through or not. Nothing happens, either,
if the row with its id is of another job or task.
"""

INSERT_NEW = {
    name: insert_(TABLE).on_conflict_do_nothing(index_elements=[COLUMNS.id])
    for name, insert_ in _DIALECT_INSERTS.items()
}
"""By dialect: inserts a row, unless there is one with its id."""
