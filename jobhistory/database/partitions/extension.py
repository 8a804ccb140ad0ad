"""More partitions for the time to come, and the end of interrupted changes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from jobhistory.database import exclusive
from jobhistory.database.driver_errors import sqlstate
from jobhistory.database.partitions.attributes import read_incoming_keys
from jobhistory.database.partitions.catalog import Layout, Leaf, read_layout
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
    leaf_name,
    newest_moment,
    spans,
)
from jobhistory.database.partitions.settings import Settings
from jobhistory.database.partitions.spans import first_id, moment_of
from jobhistory.database.partitions.sql import identifier, run, run_all, under_lock
from jobhistory.errors import LayoutNotChanged

logger = logging.getLogger(__name__)

_TRIES = 3


def finalize(bind: Engine | Connection, layout: Layout) -> None:
    """Finish each `DETACH CONCURRENTLY` that was interrupted.

    The partition is a separate table then. It belongs to whoever has detached it.
    """
    for leaf in layout.pending:
        with exclusive.transaction(bind) as connection:
            run(
                connection,
                f"ALTER TABLE {identifier(layout.schema, layout.name)} "
                f"DETACH PARTITION {identifier(leaf.schema, leaf.name)} FINALIZE",
            )
        logger.warning(
            "the table %s is detached from job_history: its DETACH CONCURRENTLY was interrupted; "
            "its executions are only in that table now",
            identifier(leaf.schema, leaf.name),
        )


def is_incomplete(layout: Layout, settings: Settings | None, now: datetime) -> bool:
    """Return whether `finalize` or `extend` has something to do."""
    if layout.pending or settings is None:
        return bool(layout.pending)
    if gaps_of(layout.leaves):
        return True
    lower = layout.leaves[-1].lower
    return lower is None or moment_of(lower) < end_of_ahead(now, settings.every, settings.ahead)


def extend(bind: Engine | Connection, schema: str | None, settings: Settings, now: datetime) -> int:
    """Create the partitions of the spans ahead of now that do not exist; return their number.

    It splits the last partition. No row moves, and at no moment an id lacks a partition. Writers
    wait briefly. If the last partition has rows, which happens if nobody has called this for long,
    a statement first reads these, beside them. It also fills gaps between partitions.

    The table must be partitioned by RANGE (id), and no partition may be pending.

    Raises:
        LayoutNotChanged: if a lock is not available.
    """
    created = 0
    for _ in range(_TRIES):
        with exclusive.transaction(bind) as connection:
            layout = _layout(connection, schema)
            gaps = gaps_of(layout.leaves)
        if gaps:
            created += _fill(bind, layout, gaps)
            continue
        try:
            return created + _split(bind, layout, settings, now)
        except IntegrityError as error:
            if sqlstate(error) != "23514":  # the first row of the last partition came just now
                raise
    raise LayoutNotChanged("others are changing it, too; try again")


def _layout(connection: Connection, schema: str | None) -> Layout:
    layout = read_layout(connection, schema)
    if layout is None:
        raise LayoutNotChanged("it is not partitioned by RANGE (id)")
    return layout


def gaps_of(leaves: Sequence[Leaf]) -> list[NewLeaf]:
    """Return the partitions without which some ids have none."""
    gaps = []
    at: UUID | None = None
    for leaf in leaves:
        if leaf.lower != at:
            gaps.append(NewLeaf(FIRST if at is None else leaf_name(moment_of(at)), at, leaf.lower))
        at = leaf.upper
    if at is not None or not leaves:
        gaps.append(NewLeaf(LAST, at, None))
    return gaps


def _fill(bind: Engine | Connection, layout: Layout, gaps: list[NewLeaf]) -> int:
    template = layout.leaves[-1].oid if layout.leaves else layout.oid

    def create(connection: Connection) -> None:
        created = create_leaves(connection, layout.oid, layout.schema, template, gaps)
        run_all(connection, [*created.before, *created.attaching])

    under_lock(bind, [layout.oid], create)
    return len(gaps)


def _split(bind: Engine | Connection, layout: Layout, settings: Settings, now: datetime) -> int:
    last = layout.leaves[-1]
    end = end_of_ahead(now, settings.every, settings.ahead)
    if last.lower is not None and moment_of(last.lower) >= end:
        return 0
    with exclusive.transaction(bind) as connection:
        newest = newest_moment(connection, identifier(last.schema, last.name))
    if newest is None and last.lower is not None:
        new = spans(moment_of(last.lower), end, settings.every)
        _shrink(bind, layout, new, first_id(end))
        return len(new)
    cut = first_cut(now, newest, settings.every)
    end = max(cut, end)
    new = [*spans(cut, end, settings.every), NewLeaf(LAST, first_id(end), None)]
    table = identifier(last.schema, last.name)
    with cut_at(bind, table, last.oid, last.lower, first_id(cut)):
        _bound(bind, layout, new, first_id(cut))
    return len(new)


def _shrink(bind: Engine | Connection, layout: Layout, new: list[NewLeaf], lower: UUID) -> None:
    """Let the last partition, which is empty, begin later, and create others before it."""
    parent, last = identifier(layout.schema, layout.name), layout.leaves[-1]
    leaf = identifier(last.schema, last.name)

    def swap(connection: Connection) -> None:
        created = create_leaves(connection, layout.oid, layout.schema, last.oid, new)
        run_all(connection, created.before)
        statements = [
            *_detach(parent, leaf),
            attach(parent, leaf, lower, None),
            *created.attaching,
        ]
        run_all(connection, statements)

    under_lock(bind, [layout.oid, last.oid], swap)


def _bound(bind: Engine | Connection, layout: Layout, new: list[NewLeaf], upper: UUID) -> None:
    """Let the last partition, which has rows, end at an id, and create others after it."""
    parent, last = identifier(layout.schema, layout.name), layout.leaves[-1]
    leaf = identifier(last.schema, last.name)

    def swap(connection: Connection) -> None:
        wanted = FIRST if last.lower is None else leaf_name(moment_of(last.lower))
        name = free_name(connection, last.schema, wanted)
        renamed = identifier(last.schema, name)
        keys = read_incoming_keys(connection, layout.oid)
        created = create_leaves(
            connection, layout.oid, layout.schema, last.oid, new, freed=last.name
        )
        run_all(connection, created.before)
        statements = [
            *keys.drops,
            *_detach(parent, leaf),
            f"ALTER TABLE {leaf} RENAME TO {identifier(name)}",
            attach(parent, renamed, last.lower, upper),
            drop_cut(renamed),
            *created.attaching,
            *keys.adds,
        ]
        run_all(connection, statements)

    under_lock(bind, [layout.oid, last.oid], swap)


def _detach(parent: str, leaf: str) -> list[str]:
    return [
        f"LOCK TABLE ONLY {parent}, ONLY {leaf} IN ACCESS EXCLUSIVE MODE",
        f"ALTER TABLE {parent} DETACH PARTITION {leaf}",
    ]
