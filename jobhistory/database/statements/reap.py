"""The SQL that ends executions whose worker is lost."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    UpdateBase,
    Uuid,
    bindparam,
    cast,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB

from jobhistory.database.functions import utc_text
from jobhistory.database.statements.read import (
    RUNNING_LONGEST_FIRST,
    RUNNING_SINCE,
    STARTED,
    criteria_of,
    deemed_frequent,
    one_of,
)
from jobhistory.database.statements.retention import with_expiry
from jobhistory.database.statements.shards import ARE_LISTED
from jobhistory.execution.outcome import WORKER_LOST, lost_message
from jobhistory.execution.retention import Retention
from jobhistory.execution.status import Status
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.lost import LostQuery
from jobhistory.schema import COLUMNS, TABLE, HistoryRecord, UTCDateTime


def reap_statements(
    lost: LostQuery, dialect: str, retention: Retention, *, by_status: bool
) -> tuple[Select[*tuple[Any, ...]], UpdateBase | None]:
    """Return the statement that finds a batch of started executions, and the one that ends them.

    On PostgreSQL the first statement does both, and the second is `None`. It returns the place of
    each execution found and all columns of the row, which are NULL if the row was not ended. It
    skips rows that another session has locked. On other databases, the second statement returns
    the ended rows.

    The parameters are `now`, and `after_started_at` and `after_id`, the place after which the batch
    begins.

    Args:
        retention: how long the ended executions are kept.
        by_status: whether to expect an index on `status`. Without it, the search goes by
            `started_at`, so that all batches together read history once.
    """
    found = _find(lost, by_status=by_status).with_for_update(skip_locked=True)
    # For the same reasons as in expiry: a CTE runs once, but SQLite's driver would not begin a
    # transaction for it.
    found_rows = found.cte("lost") if dialect == "postgresql" else found.subquery("lost")
    by_heartbeat = lost.heartbeat_before is not None
    since = COLUMNS.heartbeat_at if by_heartbeat else COLUMNS.started_at
    prefix, suffix = lost_message("\n", by_heartbeat=by_heartbeat).split("\n")
    message = literal(prefix) + utc_text(since) + literal(suffix)
    ended = _end(message, retention, COLUMNS.id.in_(select(found_rows.c.lost_id)))
    if dialect != "postgresql":
        return found, ended
    row = ended.cte("ended").c
    both = found_rows.outerjoin(row.id.table, row.id == found_rows.c.lost_id)
    order = (found_rows.c.lost_since, found_rows.c.lost_id)
    return select(*order, *row).select_from(both).order_by(*order), None


def find_in_shards(lost: LostQuery, *, by_status: bool) -> Select[*tuple[Any, ...]]:
    """Return the statement that finds a batch where Citus distributes the table.

    It locks no rows, which are in several databases. It also returns what `END_IN_SHARDS` and the
    message need of each row.
    """
    return _find(lost, by_status=by_status).add_columns(
        COLUMNS.job_id, COLUMNS.started_at, COLUMNS.heartbeat_at
    )


def end_in_shards(lost: LostQuery, retention: Retention) -> UpdateBase:
    """Return the statement that ends executions where Citus distributes the table.

    It leaves those that no longer count as lost, for example because of a heartbeat.

    The parameters are `now`, their `ids` and `job_ids`, and their `messages` by id: Citus refuses
    to compute a text from a time in an UPDATE.
    """
    messages = cast(bindparam("messages", type_=JSONB), JSONB)
    message = messages[cast(COLUMNS.id, String)].as_string()
    return _end(message, retention, *ARE_LISTED, *_criteria(lost))


def _find(lost: LostQuery, *, by_status: bool) -> Select[*tuple[Any, ...]]:
    place = (RUNNING_SINCE if by_status else COLUMNS.started_at, COLUMNS.id)
    after = (bindparam("after_started_at", type_=UTCDateTime), bindparam("after_id", type_=Uuid))
    return (
        select(COLUMNS.id.label("lost_id"), COLUMNS.started_at.label("lost_since"))
        .where(*_criteria(lost), COLUMNS.status == STARTED, tuple_(*place) > tuple_(*after))
        .order_by(*place)
        .limit(lost.query.limit)
    )


def _end(
    message: ColumnElement[str], retention: Retention, *conditions: ColumnElement[bool]
) -> UpdateBase:
    end = (
        update(TABLE)
        # Check the status again, because without row locks an outcome may arrive in between.
        .where(*conditions, COLUMNS.status == STARTED)
        .values(
            status=Status.FAILED,
            error_type=WORKER_LOST,
            error_message=message,
            completed_at=bindparam("now"),
        )
    )
    return with_expiry(end, retention, Status.FAILED).returning(*COLUMNS)


def started_of_task(query: HistoryQuery, dialect: str) -> Select[HistoryRecord]:
    """Return the statement that finds the started executions of a task, the oldest first.

    On SQLite, the index of the started ones finds them. The planner would prefer that of the tasks,
    and read the whole history of the task. On PostgreSQL, that is the way without an index on
    `status`.
    """
    of_task = one_of(HistoryRecord.task_identifier, query.task_identifier or ())
    return (
        select(HistoryRecord)
        .where(
            deemed_frequent(of_task) if dialect == "sqlite" else of_task,
            HistoryRecord.status == STARTED,
        )
        .order_by(*RUNNING_LONGEST_FIRST)
        .limit(query.limit)
    )


def _criteria(lost: LostQuery) -> list[ColumnElement[bool]]:
    criteria = criteria_of(lost.query)
    if lost.heartbeat_before is not None:  # never true without heartbeats
        criteria.append(COLUMNS.heartbeat_at <= lost.heartbeat_before)
    if lost.ids is not None:
        criteria.append(COLUMNS.id.in_(lost.ids))
    return criteria
