"""Constraints on the ids of a table, so that it can become a partition without being read.

Such a constraint must not stay: at the time of its id, it would refuse all executions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from sqlalchemy import BigInteger, Connection, Engine, bindparam, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from jobhistory.database import exclusive
from jobhistory.database.driver_errors import sqlstate
from jobhistory.database.partitions.sql import run, under_lock
from jobhistory.errors import LayoutNotChanged

logger = logging.getLogger(__name__)

CUT_CONSTRAINT = "ck_job_history_partition_cut"
"""The name of the constraint, which exists only while the layout changes."""

_LEFTOVERS = text("""
SELECT CAST(CAST(conrelid AS regclass) AS text) AS name, CAST(conrelid AS bigint) AS oid
FROM pg_constraint
WHERE conname = :constraint AND (conrelid = :oid
    OR conrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = :oid))
ORDER BY 1
""").bindparams(bindparam("oid", type_=BigInteger), bindparam("constraint", CUT_CONSTRAINT))


def drop_cut(table: str) -> str:
    """Return the statement that drops the constraint, if it exists."""
    return f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {CUT_CONSTRAINT}"


def leftovers(connection: Connection, oid: int) -> list[str]:
    """Return the tables, for SQL, on which an interrupted change has left its constraint."""
    return list(connection.execute(_LEFTOVERS, {"oid": oid}).scalars())


def drop_leftovers(bind: Engine | Connection, oid: int) -> None:
    """Drop the constraint wherever an interrupted change has left it.

    No other session may be changing the layout: see `exclusive.changing_layout`.
    """
    with exclusive.transaction(bind) as connection:
        found = connection.execute(_LEFTOVERS, {"oid": oid}).all()
    for table, its_oid in found:
        _drop(bind, table, its_oid)


@contextmanager
def cut_at(
    bind: Engine | Connection, table: str, oid: int, lower: UUID | None, upper: UUID
) -> Iterator[None]:
    """Keep ids outside of a range out of a table, and prove it, for the block.

    It reads the whole table, beside writers. The block must drop the constraint; if it fails, the
    constraint is dropped here.
    """
    try:
        add = _add_cut(table, lower, upper)
        under_lock(bind, [oid], lambda connection: run(connection, add))
        with exclusive.transaction(bind) as connection:
            run(connection, f"ALTER TABLE {table} VALIDATE CONSTRAINT {CUT_CONSTRAINT}")
        yield
    except BaseException as error:
        if isinstance(bind, Engine):  # the caller of a connection rolls back
            _drop_or_tell(bind, table, oid)
        if isinstance(error, IntegrityError) and sqlstate(error) == "23514":
            raise LayoutNotChanged(
                f"an execution has an id that is not less than {upper}; try again"
            ) from error
        raise


def _add_cut(table: str, lower: UUID | None, upper: UUID) -> str:
    condition = f"id < '{upper}'" if lower is None else f"id >= '{lower}' AND id < '{upper}'"
    return (
        f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {CUT_CONSTRAINT}, "
        f"ADD CONSTRAINT {CUT_CONSTRAINT} CHECK ({condition}) NOT VALID"
    )


def _drop(bind: Engine | Connection, table: str, oid: int) -> None:
    under_lock(bind, [oid], lambda connection: run(connection, drop_cut(table)))


def _drop_or_tell(bind: Engine, table: str, oid: int) -> None:
    try:
        drop_leftovers(bind, oid)  # without a wait for a lock if it was not added
    except (SQLAlchemyError, LayoutNotChanged) as error:
        logger.error("run this before it refuses new executions: %s (%s)", drop_cut(table), error)
