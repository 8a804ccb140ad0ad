"""Partitions that expiry has detached, and that are still to be dropped.

Detaching and dropping are two transactions, because counting rows and deleting files must not keep
anybody waiting. A comment on the table says what is left to do, so that the next call does it if
this one is killed in between.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, String, bindparam, func, select, text
from sqlalchemy import table as sql_table

from jobhistory.database.partitions.catalog import Leaf
from jobhistory.database.partitions.due import content_of
from jobhistory.database.partitions.sql import identifier, literal, run
from jobhistory.database.revision import quoted_table
from jobhistory.database.transaction import Transaction
from jobhistory.schema import UTCDateTime

logger = logging.getLogger(__name__)

_ORIGIN = "jobhistory: was a partition of "
_DROP = ", all of whose rows have expired; the next 'jobhistory expire' drops it"
_ARCHIVE = ", all of whose rows have expired; to be archived in "
_COPY = ", copied from it; the next 'jobhistory expire' drops it"


@dataclass(frozen=True)
class DetachedTable:
    """A table that was a partition, and whose rows have all expired.

    Attributes:
        archive: where its rows are to be archived before it is dropped; `None` means nowhere.
        is_copy: whether its rows are copies, because a call was killed before it replaced a
            partition. Nobody needs them.
    """

    schema: str
    name: str
    oid: int
    archive: str | None = None
    is_copy: bool = False

    @property
    def sql(self) -> str:
        """The name for SQL."""
        return identifier(self.schema, self.name)


def mark_expired(table: str, parent: str, archive: str | None) -> str:
    """Return the statement that notes on a table that all of its rows have expired.

    Args:
        table: the name for SQL.
        parent: the table of which it was a partition, see `origin_of`.
        archive: the place of the archive that gets its rows first; without a password.
    """
    todo = _DROP if archive is None else f"{_ARCHIVE}{archive}"
    return f"COMMENT ON TABLE {table} IS {literal(f'{_ORIGIN}{parent}{todo}')}"


def mark_copy(table: str, parent: str) -> str:
    """Return the statement that notes that rows are copies, until they become a partition."""
    return f"COMMENT ON TABLE {table} IS {literal(f'{_ORIGIN}{parent}{_COPY}')}"


_ORIGIN_OF = text("""
SELECT quote_ident(nspname) || '.' || quote_ident(relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass(:name)
""").bindparams(bindparam("name", type_=String))

_MARKED = text("""
SELECT nspname, relname, CAST(pg_class.oid AS bigint) AS oid, description
FROM pg_description
    JOIN pg_class ON pg_class.oid = objoid AND relkind = 'r' AND NOT relispartition
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE classoid = CAST('pg_class' AS regclass) AND objsubid = 0
    AND starts_with(description, :origin)
    AND pg_class.oid IS DISTINCT FROM CAST(to_regclass(:history) AS oid)
    AND pg_has_role(relowner, 'USAGE')
ORDER BY relname, pg_class.oid
""").bindparams(bindparam("origin", type_=String), bindparam("history", type_=String))


def origin_of(connection: Connection, schema: str | None) -> str | None:
    """Return the name of the history table in marks; `None` if there is no such table."""
    name: str | None = connection.scalar(_ORIGIN_OF, {"name": quoted_table(connection, schema)})
    return name


def detached_tables(connection: Connection, schema: str | None) -> list[DetachedTable]:
    """Return the marked tables that this role may drop, in the order of their names."""
    if connection.dialect.name != "postgresql":
        return []
    parent = origin_of(connection, schema)
    if parent is None:
        return []
    origin = f"{_ORIGIN}{parent},"
    found = []
    names = {"origin": origin, "history": quoted_table(connection, schema)}
    for row in connection.execute(_MARKED, names):
        todo = "," + row.description.removeprefix(origin)
        archive = todo.removeprefix(_ARCHIVE) if todo.startswith(_ARCHIVE) else None
        found.append(DetachedTable(row.nspname, row.relname, row.oid, archive, todo == _COPY))
    return found


def _is_due(transaction: Transaction, table: DetachedTable) -> bool:
    """Return whether all rows of a marked table have expired, by the server's clock."""
    now: datetime = transaction.execute(select(func.now(type_=UTCDateTime))).scalar_one()
    leaf = Leaf(table.schema, table.name, table.oid, None, None)
    return content_of(transaction, leaf).is_due(now)


def lock_detached(transaction: Transaction, table: DetachedTable) -> bool:
    """Lock a marked table until the end of the transaction; return whether it may be dropped.

    Raises:
        DBAPIError: if another session uses it for longer than a second.
    """
    run(transaction.connection, "SET LOCAL lock_timeout = '1s'")
    if table not in detached_tables(transaction.connection, transaction.schema):
        return False
    run(transaction.connection, f"LOCK TABLE {table.sql} IN ACCESS EXCLUSIVE MODE")
    # Meanwhile, another session may have attached it again, as its owner wishes.
    if table not in detached_tables(transaction.connection, transaction.schema):
        return False
    if not table.is_copy and not _is_due(transaction, table):  # or used it, and detached it again
        logger.warning("expire() leaves %s: not all of its rows have expired", table.name)
        return False
    return True


def drop_detached(transaction: Transaction, table: DetachedTable) -> int:
    """Drop a marked table; return the number of its rows, or 0 if another session has dropped it.

    It locks nothing but this table.

    Raises:
        DBAPIError: if another session uses it for longer than a second, or if something depends on
            it.
    """
    if not lock_detached(transaction, table):
        return 0
    count = 0
    if not table.is_copy:
        rows = sql_table(table.name, schema=table.schema)
        counting = select(func.count()).select_from(rows)
        count = transaction.execute(counting, schema_translate_map={}).scalar_one()
    run(transaction.connection, f"DROP TABLE {table.sql}")
    return count
