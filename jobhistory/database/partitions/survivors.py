"""Partitions of which few rows stay: copied to a new partition, which then takes their place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import text

from jobhistory.database.partitions import swaps
from jobhistory.database.partitions.catalog import Layout, Leaf
from jobhistory.database.partitions.detached import mark_copy, origin_of
from jobhistory.database.partitions.due import newest_start
from jobhistory.database.partitions.sql import literal, run
from jobhistory.database.running_index import escaped
from jobhistory.database.transaction import Transaction

_STAYS = "expires_at IS NULL OR expires_at > CAST(:cutoff AS timestamptz)"

# Every change of a row changes one of these two columns.
_VERSIONS = "count(*), sum(hashtextextended(concat(jobhistory_ctid, ',', jobhistory_xmin), 0))"

# One statement, so that it sees one state of the table.
_COPY = f"""
WITH stays AS MATERIALIZED (
    SELECT CAST(ctid AS text) AS jobhistory_ctid, CAST(xmin AS text) AS jobhistory_xmin, *
    FROM ONLY LEAF
    WHERE {_STAYS}
), copied AS (
    INSERT INTO COPIES (COLUMNS) OVERRIDING SYSTEM VALUE SELECT COLUMNS FROM stays
)
SELECT {_VERSIONS} FROM stays
"""  # noqa: S608

_REMOVE = f"""
WITH removed AS (
    DELETE FROM ONLY LEAF WHERE {_STAYS}
    RETURNING CAST(ctid AS text) AS jobhistory_ctid, CAST(xmin AS text) AS jobhistory_xmin
)
SELECT {_VERSIONS} FROM removed
"""  # noqa: S608

_COLUMNS = """
SELECT quote_ident(attname) FROM pg_attribute
WHERE attrelid = CAST(:oid AS oid) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum
"""

_ARE_SURVIVORS = """
SELECT coalesce(obj_description(CAST(:oid AS oid), 'pg_class') = :mark, false)
"""
_LONGEST_REMOVAL = "1s"
_MARK = "jobhistory: the rows of other partitions that have not expired"


class Copied(NamedTuple):
    """A table with the rows that stay, and their versions by partition."""

    table: str
    versions: list[tuple[int, Any]]


def copy_survivors(
    transaction: Transaction, layout: Layout, leaves: Sequence[Leaf], cutoff: datetime
) -> Copied:
    """Copy the rows of neighbouring partitions that have not expired to a new table."""
    connection = transaction.connection
    table = swaps.create_table(transaction, layout, "kept", leaves)
    run(connection, mark_copy(table, origin_of(connection, transaction.schema) or layout.name))
    columns = ", ".join(_execute(transaction, _COLUMNS, oid=layout.oid).scalars())
    copy = _COPY.replace("COLUMNS", escaped(columns)).replace("COPIES", escaped(table))
    versions = [
        tuple(_execute(transaction, _on(leaf, copy), cutoff=cutoff).one()) for leaf in leaves
    ]
    swaps.add_check(transaction, table, leaves[0], leaves[-1])
    swaps.validate_check(transaction, table)
    return Copied(table, versions)


def replace_by_copy(
    transaction: Transaction,
    layout: Layout,
    leaves: Sequence[Leaf],
    copied: Copied,
    cutoff: datetime,
    archive: str | None,
) -> datetime | None:
    """Let the copy take the place of the partitions, detach these, and mark them.

    They keep only rows that have expired.

    Returns:
        the latest start of these.

    Raises:
        HasChanged: if a row that stays has changed since it was copied.
    """
    swaps.read_committed(transaction)
    parent = origin_of(transaction.connection, transaction.schema) or layout.name
    swaps.lock(transaction, layout, leaves)
    run(transaction.connection, f"SET LOCAL statement_timeout = '{_LONGEST_REMOVAL}'")
    for leaf, versions in zip(leaves, copied.versions, strict=True):
        removed = _execute(transaction, _on(leaf, _REMOVE), cutoff=cutoff).one()
        if tuple(removed) != versions:
            raise swaps.HasChanged
    starts = [newest_start(transaction, leaf) for leaf in leaves]
    statements = swaps.retire(layout, leaves, starts, parent, archive)
    statements += swaps.attach(layout, copied.table, leaves[0], leaves[-1])
    statements.append(f"COMMENT ON TABLE {copied.table} IS {literal(_MARK)}")
    swaps.swap(transaction, statements)
    return max((each for each in starts if each is not None), default=None)


def are_survivors(transaction: Transaction, leaf: Leaf) -> bool:
    """Return whether a partition was made from such rows."""
    found: bool = _execute(transaction, _ARE_SURVIVORS, oid=leaf.oid, mark=_MARK).scalar_one()
    return found


def _on(leaf: Leaf, sql: str) -> str:
    return sql.replace("LEAF", escaped(swaps.name_of(leaf)))


def _execute(transaction: Transaction, sql: str, **parameters: Any) -> Any:
    return transaction.execute(text(sql), parameters)
