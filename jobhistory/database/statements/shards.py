"""The SQL for rows in the shards of Citus, which no statement can find, lock and change at once.

Batches are found first, and then changed by their ids and jobs.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, String, any_, bindparam, delete, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.dml import ReturningDelete

from jobhistory.schema import COLUMNS, TABLE, PlainUuid

ARE_LISTED: tuple[ColumnElement[bool], ...] = (
    COLUMNS.id == any_(bindparam("ids", type_=ARRAY(PlainUuid))),
    COLUMNS.job_id == any_(bindparam("job_ids", type_=ARRAY(String))),
)
"""The conditions for the rows with these `ids` and `job_ids`."""


def delete_listed(*conditions: ColumnElement[bool]) -> ReturningDelete[datetime]:
    """Return a statement that deletes the rows with these `ids` and `job_ids`.

    It returns their starts.

    Args:
        conditions: those by which they were found. No lock keeps others from changing the rows
            meanwhile.
    """
    return delete(TABLE).where(*ARE_LISTED, *conditions).returning(COLUMNS.started_at)


TAKE_TURNS = text("""
SELECT pg_advisory_xact_lock(
    hashtextextended('jobhistory.delete', CAST(CAST(to_regclass(:name) AS oid) AS bigint))
)
""").bindparams(bindparam("name", type_=String))
"""Makes calls that delete batches wait for each other, because they cannot skip locked rows."""
