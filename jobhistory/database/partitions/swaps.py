"""Swaps of partitions: short transactions in which the table is locked, and never has a hole.

Whoever writes or reads history waits for such a transaction, and it waits for them: at the most
`LOCK_TIMEOUT`, because everybody who comes later waits behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import text

from jobhistory.database.partitions.attributes import read_attributes
from jobhistory.database.partitions.catalog import Layout, Leaf, read_layout
from jobhistory.database.partitions.cuts import CUT_CONSTRAINT, drop_cut
from jobhistory.database.partitions.detached import mark_expired, origin_of
from jobhistory.database.partitions.due import content_of, newest_start
from jobhistory.database.partitions.leaves import bounds, free_name, storage_of
from jobhistory.database.partitions.spans import moment_of
from jobhistory.database.partitions.sql import LOCK_TIMEOUT, identifier, run, run_all
from jobhistory.database.transaction import Transaction

_LONGEST_LOOK = "100ms"


class HasChanged(Exception):
    """A partition is not any more what it was when the swap was planned. Nothing is done."""


def lock(transaction: Transaction, layout: Layout, leaves: Sequence[Leaf]) -> None:
    """Lock the history table and some of its partitions until the end of the transaction.

    Raises:
        HasChanged: if a partition has been detached or has other bounds.
        DBAPIError: if others use them for too long.
    """
    names = [name_of(leaf) for leaf in leaves]
    # This lock keeps no reader or writer waiting. While PostgreSQL waits for it, it cancels an
    # autovacuum after a second, which it does not do while it waits for the locks below. Sessions
    # that swap the same partitions wait for each other here.
    connection = transaction.connection
    run(connection, "SET LOCAL lock_timeout = '2s'")
    for name in names:
        run(connection, f"LOCK TABLE {name} IN SHARE UPDATE EXCLUSIVE MODE")
    run(connection, f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    # In the order in which statements lock them, so that nobody deadlocks.
    for name in (name_of(layout), *names):
        run(connection, f"LOCK TABLE ONLY {name} IN ACCESS EXCLUSIVE MODE")
    # From now on, others wait. To look at an index can take long if its rows were just deleted.
    run(connection, f"SET LOCAL statement_timeout = '{_LONGEST_LOOK}'")
    current = read_layout(transaction.connection, transaction.schema)
    if current is None or current.oid != layout.oid or not {*leaves} <= {*current.leaves}:
        raise HasChanged


def name_of(table: Layout | Leaf) -> str:
    """Return the name of the history table or of a partition, for SQL."""
    return identifier(table.schema, table.name)


def read_committed(transaction: Transaction) -> None:
    """Make each statement of the transaction see what others have committed before it.

    A snapshot that is older than the lock would miss rows. Call it first.
    """
    level = transaction.execute(text("SHOW transaction_isolation")).scalar_one()
    if level != "read committed":
        run(transaction.connection, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED")


def detach_due(
    transaction: Transaction,
    layout: Layout,
    leaves: Sequence[Leaf],
    cutoff: datetime,
    archive: str | None,
) -> datetime | None:
    """Detach neighbouring partitions whose rows have all expired, and mark them.

    The partition before them takes their range. If there is none, a new one does.

    Returns:
        the latest start of their executions.

    Raises:
        HasChanged: if a row has not expired, or if the partitions have changed.
    """
    read_committed(transaction)
    before = layout.before(leaves[0])
    new = create_table(transaction, layout, "until", leaves) if before is None else None
    parent = origin_of(transaction.connection, transaction.schema) or layout.name
    _look(transaction, leaves, cutoff)  # so that it is fast when others wait
    lock(transaction, layout, [*([before] if before else []), *leaves])
    starts = _look(transaction, leaves, cutoff)
    statements = retire(layout, leaves, starts, parent, archive)
    if before is not None:
        table = name_of(before)
        statements += [detach(layout, before), *attach(layout, table, before, leaves[-1])]
    elif new is not None:
        statements += attach(layout, new, leaves[0], leaves[-1])
    swap(transaction, statements)
    return max((each for each in starts if each is not None), default=None)


def _look(
    transaction: Transaction, leaves: Sequence[Leaf], cutoff: datetime
) -> list[datetime | None]:
    """Return the latest start in each partition; `None` if it is empty.

    Raises:
        HasChanged: if a row has not expired.
    """
    contents = [content_of(transaction, leaf) for leaf in leaves]
    if not all(each.is_due(cutoff) for each in contents):
        raise HasChanged
    return [
        None if content.is_empty else newest_start(transaction, leaf)
        for leaf, content in zip(leaves, contents, strict=True)
    ]


def retire(
    layout: Layout,
    leaves: Sequence[Leaf],
    starts: Sequence[datetime | None],
    parent: str,
    archive: str | None,
) -> list[str]:
    """Return the statements that detach partitions, and mark them as completely expired.

    Args:
        starts: the latest start in each; `None` if it is empty, so that nothing is to be archived.
    """
    statements = []
    for leaf, start in zip(leaves, starts, strict=True):
        place = None if start is None else archive
        statements += [detach(layout, leaf), mark_expired(name_of(leaf), parent, place)]
    return statements


def swap(transaction: Transaction, statements: Sequence[str]) -> None:
    """Change partitions in one round trip."""
    run(transaction.connection, "SET LOCAL statement_timeout = 0")
    run_all(transaction.connection, statements)


def create_table(
    transaction: Transaction, layout: Layout, infix: str, leaves: Sequence[Leaf]
) -> str:
    """Create an empty table that can take the place of partitions; return its name for SQL."""
    end = leaves[-1].upper
    assert end is not None
    connection = transaction.connection
    base = f"{layout.name}_{infix}_{moment_of(end):%Y%m%d}"
    name = identifier(layout.schema, free_name(connection, layout.schema, base))
    storage = storage_of(connection, leaves[-1].oid)
    run(connection, f"CREATE TABLE {name} (LIKE {name_of(layout)} INCLUDING ALL) {storage}")
    attributes = read_attributes(connection, layout.oid, name)
    settings = [each for each in attributes.others if not each.startswith("COMMENT")]
    run_all(connection, [*attributes.access, *settings])
    return name


def detach(layout: Layout, leaf: Leaf) -> str:
    """Return the statement that detaches a partition.

    In the same transaction, another must take its range.
    """
    return f"ALTER TABLE {name_of(layout)} DETACH PARTITION {name_of(leaf)}"


def attach(layout: Layout, table: str, first: Leaf, last: Leaf) -> list[str]:
    """Return the statements that make a table a partition.

    It gets the range from the start of one partition to the end of another one. PostgreSQL reads
    the rows of the table first, unless it has a check, see `add_check`.
    """
    return [
        f"ALTER TABLE {name_of(layout)} ATTACH PARTITION {table} "
        + bounds(first.lower, last.upper),
        drop_cut(table),
    ]


def add_check(transaction: Transaction, table: str, first: Leaf, last: Leaf) -> None:
    """Add a check of the bounds to a table, without reading its rows.

    Raises:
        DBAPIError: if others use the table for too long.
    """
    parts = [
        f"id {sign} '{bound}'"
        for sign, bound in ((">=", first.lower), ("<", last.upper))
        if bound is not None
    ]
    run(transaction.connection, f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    run(
        transaction.connection,
        f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {CUT_CONSTRAINT}, "
        f"ADD CONSTRAINT {CUT_CONSTRAINT} CHECK ({' AND '.join(parts)}) NOT VALID",
    )


def validate_check(transaction: Transaction, table: str) -> None:
    """Let PostgreSQL read the rows of a table, so that attaching it does without. Others go on."""
    run(transaction.connection, f"ALTER TABLE {table} VALIDATE CONSTRAINT {CUT_CONSTRAINT}")


def drop_check(transaction: Transaction, table: str) -> None:
    """Drop the check again.

    Raises:
        DBAPIError: if others use the table for too long.
    """
    run(transaction.connection, f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
    run(transaction.connection, drop_cut(table))
