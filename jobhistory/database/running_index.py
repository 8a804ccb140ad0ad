"""The index that finds running executions on PostgreSQL, and its maintenance.

It is a BRIN index on `status`, which keeps the least and the greatest status of each range of
pages. `started` is the greatest of all, so the index tells which ranges may hold running
executions. From PostgreSQL 16 on, such an index does not prevent heap-only updates.

The summary of a range only widens: after an execution has started in it, the range counts as
holding running executions until it is summarized again. `VACUUM` summarizes new ranges. It does not
summarize those in which new rows have taken the space of expired ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, String, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY

from jobhistory.schema import TABLE_NAME

INDEX_NAME = "ix_job_history_status"

_MINIMUM_SERVER = (16,)

# Small ranges, because a search reads whole ranges, but also all summaries. Among 10 million rows,
# 500 of which run, 8 pages are faster than 4 and 16. Autovacuum summarizes full ranges.
_CREATE = """
CREATE INDEX {concurrently} IF NOT EXISTS {name} ON {table}
USING brin (status) WITH (pages_per_range = 8, autosummarize = on)
"""

RANGES_PER_STATEMENT = 1000
"""8,000 pages of a table, that is 64 MB."""

_INDEXES = text("""
WITH RECURSIVE tree (oid) AS (
    SELECT CAST(to_regclass(:name) AS oid)
    UNION
    SELECT inhrelid FROM pg_inherits JOIN tree ON inhparent = tree.oid
)
SELECT
    indexrelid,
    pg_relation_size(indrelid) / CAST(current_setting('block_size') AS int) AS pages,
    coalesce((
        SELECT CAST(option_value AS int) FROM pg_options_to_table(pg_class.reloptions)
        WHERE option_name = 'pages_per_range'
    ), 128) AS pages_per_range
FROM tree
    JOIN pg_index ON indrelid = tree.oid AND indnatts = 1 AND indisvalid
    JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0] AND attname = 'status'
    JOIN pg_class ON pg_class.oid = indexrelid AND relkind = 'i'
    JOIN pg_am ON pg_am.oid = relam AND amname = 'brin'
ORDER BY indexrelid
""").bindparams(bindparam("name", type_=String))

_IS_PARTITIONED = text(
    "SELECT relkind = 'p' FROM pg_class WHERE oid = to_regclass(:name)"
).bindparams(bindparam("name", type_=String))

# The functions of a row are called from left to right.
_SUMMARIZE = text("""
SELECT count(brin_desummarize_range(CAST(:index AS oid), first)),
    count(brin_summarize_range(CAST(:index AS oid), first))
FROM unnest(:firsts) AS first
""").bindparams(bindparam("index", type_=BigInteger), bindparam("firsts", type_=ARRAY(BigInteger)))


class RunningIndex(NamedTuple):
    """The index of one table or partition."""

    oid: int
    pages: int
    pages_per_range: int

    @property
    def ranges(self) -> range:
        """The first page of each range."""
        return range(0, self.pages, self.pages_per_range)


def escaped(name: str) -> str:
    """Return a quoted name for `text()`, which would read a colon as the start of a parameter."""
    return name.replace(":", "\\:")


def is_supported(connection: Any) -> bool:
    """Return whether the index does no harm on this server."""
    dialect = connection.dialect
    return bool(dialect.name == "postgresql" and dialect.server_version_info >= _MINIMUM_SERVER)


def find_indexes(connection: Any, table: str) -> list[RunningIndex]:
    """Return the indexes on the history table, by its quoted name, and on its partitions."""
    rows = connection.execute(_INDEXES, {"name": table}).all()
    return [RunningIndex(*row) for row in rows]


def ensure(connection: Any, table: str, *, concurrently: bool) -> list[RunningIndex]:
    """Return the indexes of the table, by its quoted name, and of its partitions.

    If there is none, create it. To create it concurrently, the connection must be in AUTOCOMMIT
    mode; the call then also replaces an invalid index that a broken attempt left behind.
    """
    found = find_indexes(connection, table)
    if found:
        return found
    is_partitioned = connection.execute(_IS_PARTITIONED, {"name": table}).scalar_one()
    if concurrently and not is_partitioned:
        schema = table.removesuffix(TABLE_NAME)
        drop = f"DROP INDEX CONCURRENTLY IF EXISTS {escaped(schema)}{INDEX_NAME}"
        connection.execute(text(drop))
    word = "CONCURRENTLY" if concurrently and not is_partitioned else ""
    create = _CREATE.format(concurrently=word, name=INDEX_NAME, table=escaped(table))
    connection.execute(text(create))
    return find_indexes(connection, table)


def summarize(connection: Any, index: RunningIndex, ranges: Iterable[int]) -> None:
    """Replace the summaries of ranges. The role must own the index.

    Searches by other sessions read the whole range until its new summary exists.
    """
    connection.execute(_SUMMARIZE, {"index": index.oid, "firsts": list(ranges)})
