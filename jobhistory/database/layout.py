"""How the history table is laid out: the columns of its key, and whether Citus distributes it.

Most tables have the key `id` and are on one server. The layout of others is read once for each
engine. Recording calls need it only if a row with the same id may exist.
"""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Dialect, String, bindparam, func, text
from sqlalchemy.exc import DBAPIError

from jobhistory.database.driver_errors import sqlstate
from jobhistory.database.revision import quoted_table
from jobhistory.execution.outcome import OUTCOME_COLUMNS

DISTRIBUTED_BY = "job_id"
"""The column by which Citus may distribute the table."""


class Layout(NamedTuple):
    """The layout of the history table.

    Attributes:
        key: the columns of the unique index that finds an existing row: the id, and others that
            never change.
        distributed_by: the column by which Citus distributes the table; `None` if it does not.
    """

    key: tuple[str, ...] = ("id",)
    distributed_by: str | None = None

    @property
    def is_distributed(self) -> bool:
        """Whether the rows are in shards, which may be on several servers."""
        return self.distributed_by is not None

    @property
    def ids_are_unique(self) -> bool:
        """Whether the key alone prevents two rows with the same id."""
        return self.key == ("id",)


PLAIN = Layout()
"""The layout that `migrate.upgrade` creates."""

# Rows of a partitioned table move if a column of its key changes, so the key of such a table is no
# use to find a row that an outcome changes.
_CHANGING = frozenset(OUTCOME_COLUMNS)

HAS_CITUS = func.to_regclass("pg_catalog.pg_dist_partition").is_not(None)
"""The condition that the database has the extension Citus."""

_KEYS = text("""
SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL, array(
    SELECT CAST(attname AS text)
    FROM unnest(CAST(indkey AS int2[])) WITH ORDINALITY AS part (number, place)
        JOIN pg_catalog.pg_attribute ON attrelid = indrelid AND attnum = number
    WHERE place <= indnkeyatts
    ORDER BY place
)
FROM (SELECT to_regclass(:name) AS oid) AS history
    LEFT JOIN pg_catalog.pg_index
        ON indrelid = oid AND indisunique AND indisvalid AND indpred IS NULL AND indexprs IS NULL
ORDER BY indisprimary DESC NULLS LAST, indnatts, indexrelid
""").bindparams(bindparam("name", type_=String))

_DISTRIBUTED = text("""
SELECT column_to_column_name(logicalrelid, partkey)
FROM pg_catalog.pg_dist_partition
WHERE logicalrelid = CAST(to_regclass(:name) AS regclass) AND partmethod = 'h'
""").bindparams(bindparam("name", type_=String))

# Invalid ON CONFLICT columns, and what Citus does not support on a distributed table.
_OUTDATED_STATES = frozenset({"42P10", "0A000"})

_known: WeakKeyDictionary[Dialect, dict[str | None, Layout]] = WeakKeyDictionary()
"""By dialect, which engines that differ only in execution options share, and by schema."""


def layout_of(connection: Connection, schema: str | None) -> Layout:
    """Return the layout of the history table, which is read once for each engine."""
    if connection.dialect.name != "postgresql":
        return PLAIN
    layouts = _known.setdefault(connection.dialect, {})
    if schema not in layouts:
        layouts[schema] = read_layout(connection, schema)
    return layouts[schema]


def read_again(connection: Connection, schema: str | None) -> Layout:
    """Read the layout of the history table once more for an engine of PostgreSQL, and return it."""
    layout = read_layout(connection, schema)
    _known.setdefault(connection.dialect, {})[schema] = layout
    return layout


def read_layout(connection: Connection, schema: str | None) -> Layout:
    """Return the present layout of the history table on PostgreSQL."""
    name = {"name": quoted_table(connection, schema)}
    rows = connection.execute(_KEYS, name).all()
    keys = [tuple(key) for _, key in rows if "id" in key and _CHANGING.isdisjoint(key)]
    distributed_by = connection.scalar(_DISTRIBUTED, name) if rows[0][0] else None
    return Layout(keys[0] if keys else PLAIN.key, distributed_by)


def distributed_by(connection: Connection, schema: str | None) -> str | None:
    """Return the column by which Citus distributes the table now; `None` if it does not."""
    is_postgresql = connection.dialect.name == "postgresql"
    return read_layout(connection, schema).distributed_by if is_postgresql else None


def forget_outdated(dialect: Dialect, error: DBAPIError) -> bool:
    """Forget the layouts of an engine, by its dialect, if an error suggests that one has changed.

    Return whether one was ever read, so that the statement may succeed on a retry.
    """
    if sqlstate(error) not in _OUTDATED_STATES or dialect not in _known:
        return False
    _known[dialect] = {}  # kept, because calls at the same moment may have met the same error
    return True
