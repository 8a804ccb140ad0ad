"""From a plain history table to partitions, without moving a row.

The table becomes the first partition. A constraint proves beforehand that its rows belong there, so
attaching it reads none of them, and keeps its indexes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Connection, Engine, bindparam, text

from jobhistory.database import exclusive
from jobhistory.database.partitions.attributes import (
    Attributes,
    read_attributes,
    read_incoming_keys,
)
from jobhistory.database.partitions.cuts import cut_at, drop_cut
from jobhistory.database.partitions.leaves import (
    FIRST,
    LAST,
    NewLeaf,
    attach,
    create_leaves,
    end_of_ahead,
    first_cut,
    free_name,
    newest_moment,
    spans,
)
from jobhistory.database.partitions.obstacles import refuse_obstacles
from jobhistory.database.partitions.settings import Settings, write_settings
from jobhistory.database.partitions.spans import first_id
from jobhistory.database.partitions.sql import identifier, run_all, under_lock
from jobhistory.schema import TABLE_NAME

_LONGEST_NAME = 63

_INDEXES = text("""
SELECT relname, CAST(pg_class.oid AS bigint) FROM pg_index JOIN pg_class
ON pg_class.oid = indexrelid WHERE indrelid = :oid ORDER BY relname
""").bindparams(bindparam("oid", type_=BigInteger))

_TRIGGERS = text("""
SELECT tgname FROM pg_trigger WHERE tgrelid = :oid AND NOT tgisinternal ORDER BY tgname
""").bindparams(bindparam("oid", type_=BigInteger))


def convert(
    bind: Engine | Connection, schema: str, oid: int, settings: Settings, now: datetime
) -> int:
    """Make the history table, which is plain, the first partition; return their number.

    Writers wait twice, each time briefly. In between, a statement reads all rows, beside them.

    Raises:
        LayoutNotChanged: if something keeps the table from it. It works as before then.
    """
    history = identifier(schema, TABLE_NAME)
    with exclusive.transaction(bind) as connection:
        refuse_obstacles(connection, oid)
        cut = first_cut(now, newest_moment(connection, history), settings.every)
    with cut_at(bind, history, oid, None, first_id(cut)):
        end = max(cut, end_of_ahead(now, settings.every, settings.ahead))
        new = [*spans(cut, end, settings.every), NewLeaf(LAST, first_id(end), None)]

        def swap(connection: Connection) -> None:
            refuse_obstacles(connection, oid)
            created = create_leaves(connection, oid, schema, oid, new)
            run_all(connection, created.before)
            run_all(connection, _swap(connection, schema, oid, first_id(cut), created.attaching))
            write_settings(connection, schema, settings)

        under_lock(bind, [oid], swap)
    return 1 + len(new)


def _swap(
    connection: Connection, schema: str, oid: int, cut: UUID, attaching: list[str]
) -> list[str]:
    """Return the statements that put a new table in the place of the old one."""
    history = identifier(schema, TABLE_NAME)
    attributes = read_attributes(connection, oid, history)
    incoming = read_incoming_keys(connection, oid)
    name = free_name(connection, schema, FIRST)
    first = identifier(schema, name)
    triggers = connection.execute(_TRIGGERS, {"oid": oid}).scalars()
    return [
        f"LOCK TABLE ONLY {history} IN ACCESS EXCLUSIVE MODE",
        *incoming.drops,
        *(f"DROP TRIGGER {identifier(each)} ON {history}" for each in triggers),
        *_renamed_indexes(connection, schema, oid, name),
        f"ALTER TABLE {history} RENAME TO {identifier(name)}",
        f"CREATE TABLE {history} (LIKE {first} INCLUDING ALL EXCLUDING INDEXES) "
        "PARTITION BY RANGE (id)",
        drop_cut(history),
        *_dressed(attributes),
        attach(history, first, None, cut),
        drop_cut(first),
        *attaching,
        *incoming.adds,
    ]


def _dressed(attributes: Attributes) -> Iterator[str]:
    yield from attributes.indexes
    yield from attributes.keys
    yield from attributes.triggers
    yield from attributes.others
    yield from attributes.access


def _renamed_indexes(connection: Connection, schema: str, oid: int, leaf: str) -> Iterator[str]:
    suffix = leaf.removeprefix(TABLE_NAME)
    for name, index in connection.execute(_INDEXES, {"oid": oid}):
        new = f"{name}{suffix}"
        if len(new.encode()) > _LONGEST_NAME:
            new = f"{leaf}_{index}"
        yield f"ALTER INDEX {identifier(schema, name)} RENAME TO {identifier(new)}"
