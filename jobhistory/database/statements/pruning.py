"""The SQL that deletes old statistics by hour and by day."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, any_, bindparam, delete, func, literal_column
from sqlalchemy import select as select_

from jobhistory.rollup_schema import ROLLUP
from jobhistory.schema import UTCDateTime

_SPAN = ROLLUP.c.span == bindparam("of_span")
_OLD = ROLLUP.c.bucket < bindparam("kept_from", type_=UTCDateTime)


def _some(address: ColumnElement[Any]) -> Any:
    return (
        select_(address)
        .select_from(ROLLUP)
        .where(_SPAN, _OLD)
        .limit(bindparam("batch_size", type_=BigInteger))
    )


_ctid: ColumnElement[Any] = literal_column("ctid")
_rowid: ColumnElement[Any] = literal_column("rowid")
# Folding locks rollups in the order of their keys, and this does not. So it waits for none.
_unlocked = _some(_ctid).with_for_update(skip_locked=True).cte("old")
_addresses = func.array(select_(_unlocked.c.ctid).scalar_subquery())

DELETE_OLD: dict[str, Any] = {
    "postgresql": delete(ROLLUP).where(any_(_addresses) == _ctid),
    "sqlite": delete(ROLLUP).where(_rowid.in_(_some(_rowid).scalar_subquery())),
}
"""By dialect: deletes a batch of buckets of a span that start before `kept_from`.

On PostgreSQL, it skips those that another session has locked.
"""
