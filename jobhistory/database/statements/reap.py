"""The SQL that ends executions whose worker is lost."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
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
from jobhistory.database.statements.read import STARTED, criteria_of
from jobhistory.execution.outcome import WORKER_LOST, lost_message
from jobhistory.execution.status import Status
from jobhistory.query.criteria import HistoryQuery
from jobhistory.schema import COLUMNS, TABLE, UTCDateTime


def reap_statements(
    query: HistoryQuery, dialect: str
) -> tuple[Select[*tuple[Any, ...]], UpdateBase | None]:
    """Return what finds a batch of started executions, and what ends them as lost.

    On PostgreSQL the first does both: it returns the place of each execution that it found, and all
    columns of its row, which are null if the row could not be ended. Executions that somebody else
    is about to end are skipped. Elsewhere the second returns the rows that it ended.

    The parameters are the moment, `now`, and the place behind which the batch begins,
    `after_started_at` and `after_id`.
    """
    place = (COLUMNS.started_at, COLUMNS.id)
    after = (bindparam("after_started_at", type_=UTCDateTime), bindparam("after_id", type_=Uuid))
    found = (
        select(COLUMNS.id.label("lost_id"), COLUMNS.started_at.label("lost_since"))
        .where(*criteria_of(query), COLUMNS.status == STARTED, tuple_(*place) > tuple_(*after))
        .order_by(*place)
        .limit(query.limit)
        .with_for_update(skip_locked=True)
    )
    # As with expiry, a CTE where rows are locked, and none for SQLite's driver.
    lost = found.cte("lost") if dialect == "postgresql" else found.subquery("lost")
    before, behind = lost_message("\n").split("\n")
    ended = (
        update(TABLE)
        # Looked at again, as an outcome may have come between the two on a database without locks.
        .where(COLUMNS.id.in_(select(lost.c.lost_id)), COLUMNS.status == STARTED)
        .values(
            status=Status.FAILED,
            error_type=WORKER_LOST,
            error_message=literal(before) + utc_text(COLUMNS.started_at) + literal(behind),
            completed_at=bindparam("now"),
        )
        .returning(*COLUMNS)
    )
    if dialect != "postgresql":
        return found, ended
    row = ended.cte("ended").c
    both = lost.outerjoin(row.id.table, row.id == lost.c.lost_id)
    order = (lost.c.lost_since, lost.c.lost_id)
    return select(*order, *row).select_from(both).order_by(*order), None
