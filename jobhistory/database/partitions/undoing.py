"""From partitions back to a plain history table."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import BigInteger, Connection, Engine, bindparam, text

from jobhistory.database.partitions.attributes import read_attributes, read_incoming_keys
from jobhistory.database.partitions.catalog import Layout, Leaf
from jobhistory.database.partitions.cuts import drop_cut
from jobhistory.database.partitions.obstacles import refuse_obstacles
from jobhistory.database.partitions.settings import forget_settings
from jobhistory.database.partitions.sql import identifier, run_all, under_lock
from jobhistory.errors import LayoutNotChanged
from jobhistory.schema import TABLE_NAME

_SIZES = text("""
SELECT CAST(oid AS bigint), pg_relation_size(oid) FROM pg_class
WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = :oid)
""").bindparams(bindparam("oid", type_=BigInteger))

_COLUMNS = text("""
SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
WHERE attrelid = :oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
""").bindparams(bindparam("oid", type_=BigInteger))

# For each index of the table, that of a partition. An invalid index of the table has none.
_INDEXES = text("""
SELECT parent.relname AS name, leaf.relname AS old
FROM pg_index
    JOIN pg_class parent ON parent.oid = pg_index.indexrelid
    JOIN pg_inherits ON inhparent = parent.oid
    JOIN pg_class leaf ON leaf.oid = inhrelid
    JOIN pg_index of_leaf ON of_leaf.indexrelid = leaf.oid AND of_leaf.indrelid = :leaf
WHERE pg_index.indrelid = :oid
ORDER BY 1
""").bindparams(bindparam("oid", type_=BigInteger), bindparam("leaf", type_=BigInteger))

_KEYS = text("""
SELECT parent.conname AS name, leaf.conname AS old
FROM pg_constraint parent JOIN pg_constraint leaf ON leaf.conparentid = parent.oid
WHERE parent.conrelid = :oid AND parent.contype = 'f' AND leaf.conrelid = :leaf
    AND parent.conname <> leaf.conname
""").bindparams(bindparam("oid", type_=BigInteger), bindparam("leaf", type_=BigInteger))


def undo(bind: Engine | Connection, layout: Layout) -> None:
    """Make the largest partition the plain history table, with the rows of the others.

    It is one transaction, in which everybody who uses the table waits. It writes the rows of all
    partitions except the largest one.

    Raises:
        LayoutNotChanged: if something keeps the table from it. It works as before then.
    """
    if not layout.leaves:
        raise LayoutNotChanged("it has no partitions; drop it and call migrate.upgrade")

    def swap(connection: Connection) -> None:
        refuse_obstacles(connection, layout.oid)
        run_all(connection, _swap(connection, layout))
        forget_settings(connection, layout.schema)

    under_lock(bind, [layout.oid, *(leaf.oid for leaf in layout.leaves)], swap)


def _largest(connection: Connection, layout: Layout) -> Leaf:
    found = connection.execute(_SIZES, {"oid": layout.oid}).all()
    sizes: dict[int, int] = dict(found)
    return max(layout.leaves, key=lambda leaf: sizes.get(leaf.oid, 0))


def _swap(connection: Connection, layout: Layout) -> Iterator[str]:
    kept = _largest(connection, layout)
    parent, leaf = identifier(layout.schema, layout.name), identifier(kept.schema, kept.name)
    history = identifier(layout.schema, TABLE_NAME)
    oids = {"oid": layout.oid, "leaf": kept.oid}
    attributes = read_attributes(connection, layout.oid, history, replaced=kept.oid)
    incoming = read_incoming_keys(connection, layout.oid)
    columns = connection.execute(_COLUMNS, {"oid": layout.oid}).scalar_one()
    yield f"LOCK TABLE {parent} IN ACCESS EXCLUSIVE MODE"
    yield from incoming.drops
    yield drop_cut(leaf)
    yield f"ALTER TABLE {parent} DETACH PARTITION {leaf}"
    for table in (parent, leaf):  # its policies would hide rows
        yield f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"
    # The detached partition has lost the triggers of the table, so nothing is counted again.
    yield f"INSERT INTO {leaf} ({columns}) SELECT {columns} FROM {parent}"  # noqa: S608
    indexes = connection.execute(_INDEXES, oids).all()
    keys = connection.execute(_KEYS, oids).all()
    yield f"DROP TABLE {parent}"
    if kept.schema != layout.schema:
        yield f"ALTER TABLE {leaf} SET SCHEMA {identifier(layout.schema)}"
    moved = identifier(layout.schema, kept.name)
    yield f"ALTER TABLE {moved} RENAME TO {identifier(layout.name)}"
    for name, old in indexes:
        yield f"ALTER INDEX {identifier(layout.schema, old)} RENAME TO {identifier(name)}"
    for name, old in keys:
        yield (f"ALTER TABLE {history} RENAME CONSTRAINT {identifier(old)} TO {identifier(name)}")
    # Not that of the partition, which may say that expiry drops it.
    yield f"COMMENT ON TABLE {history} IS NULL"
    yield from attributes.triggers
    yield from attributes.others
    yield from attributes.access
    yield from incoming.adds
