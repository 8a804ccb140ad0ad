"""The SQL that ends executions whose worker is lost."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    UpdateBase,
    Uuid,
    bindparam,
    literal,
    select,
    tuple_,
    update,
)

from jobhistory.database.functions import utc_text
from jobhistory.database.statements.read import RUNNING_SINCE, STARTED, criteria_of
from jobhistory.execution.outcome import WORKER_LOST, lost_message
from jobhistory.execution.status import Status
from jobhistory.query.lost import LostQuery
from jobhistory.schema import COLUMNS, TABLE, UTCDateTime


def reap_statements(
    lost: LostQuery, dialect: str, *, by_status: bool
) -> tuple[Select[*tuple[Any, ...]], UpdateBase | None]:
    """Return the statement that finds a batch of started executions, and the one that ends them.

    On PostgreSQL the first statement does both, and the second is `None`. It returns the place of
    each execution found and all columns of the row, which are NULL if the row was not ended. It
    skips rows that another session has locked. On other databases, the second statement returns
    the ended rows.

    The parameters are `now`, and `after_started_at` and `after_id`, the place after which the batch
    begins.

    Args:
        by_status: whether to expect an index on `status`. Without it, the search goes by
            `started_at`, so that all batches together read history once.
    """
    place = (RUNNING_SINCE if by_status else COLUMNS.started_at, COLUMNS.id)
    after = (bindparam("after_started_at", type_=UTCDateTime), bindparam("after_id", type_=Uuid))
    found = (
        select(COLUMNS.id.label("lost_id"), COLUMNS.started_at.label("lost_since"))
        .where(*_criteria(lost), COLUMNS.status == STARTED, tuple_(*place) > tuple_(*after))
        .order_by(*place)
        .limit(lost.query.limit)
        .with_for_update(skip_locked=True)
    )
    # For the same reasons as in expiry: a CTE runs once, but SQLite's driver would not begin a
    # transaction for it.
    found_rows = found.cte("lost") if dialect == "postgresql" else found.subquery("lost")
    by_heartbeat = lost.heartbeat_before is not None
    since = COLUMNS.heartbeat_at if by_heartbeat else COLUMNS.started_at
    prefix, suffix = lost_message("\n", by_heartbeat=by_heartbeat).split("\n")
    ended = (
        update(TABLE)
        # Check the status again, because without row locks an outcome may arrive in between.
        .where(COLUMNS.id.in_(select(found_rows.c.lost_id)), COLUMNS.status == STARTED)
        .values(
            status=Status.FAILED,
            error_type=WORKER_LOST,
            error_message=literal(prefix) + utc_text(since) + literal(suffix),
            completed_at=bindparam("now"),
        )
        .returning(*COLUMNS)
    )
    if dialect != "postgresql":
        return found, ended
    row = ended.cte("ended").c
    both = found_rows.outerjoin(row.id.table, row.id == found_rows.c.lost_id)
    order = (found_rows.c.lost_since, found_rows.c.lost_id)
    return select(*order, *row).select_from(both).order_by(*order), None


def _criteria(lost: LostQuery) -> list[ColumnElement[bool]]:
    criteria = criteria_of(lost.query)
    if lost.heartbeat_before is not None:  # never true without heartbeats
        criteria.append(COLUMNS.heartbeat_at <= lost.heartbeat_before)
    return criteria
