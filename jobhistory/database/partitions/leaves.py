"""New partitions, as statements."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Connection, String, bindparam, text

from jobhistory.database.partitions.attributes import read_attributes
from jobhistory.database.partitions.cuts import drop_cut
from jobhistory.database.partitions.spans import Every, first_id, moment_of, next_start
from jobhistory.database.partitions.sql import identifier
from jobhistory.database.running_index import escaped
from jobhistory.errors import LayoutNotChanged
from jobhistory.schema import TABLE_NAME

FIRST = f"{TABLE_NAME}_p_first"
LAST = f"{TABLE_NAME}_p_last"

# Room on each page for the new versions of rows, which heap-only updates need.
_STORAGE = "fillfactor = 80"

_OPTIONS = text("""
SELECT array_to_string(array(
    SELECT format('%s = %L', option_name, option_value) FROM pg_options_to_table(history.reloptions)
    UNION ALL
    SELECT format('toast.%s = %L', option_name, option_value)
    FROM pg_class toast, pg_options_to_table(toast.reloptions)
    WHERE toast.oid = history.reltoastrelid
), ', '), (
    SELECT quote_ident(spcname) FROM pg_tablespace WHERE pg_tablespace.oid = reltablespace
)
FROM pg_class history WHERE oid = :oid
""").bindparams(bindparam("oid", type_=BigInteger))


_EXISTS = text("SELECT to_regclass(:name) IS NOT NULL").bindparams(bindparam("name", type_=String))

_NEWEST = "SELECT id FROM {} ORDER BY id DESC LIMIT 1"

_PLACE = "\x01"
"""Stands for the name of a partition. No other name has this character."""

_LEAF_NAME = re.compile(rf"{TABLE_NAME}_p(_first|_last|\d{{8}})(_\d+)?")
_MOST_AT_ONCE = 70

_DAY = timedelta(days=1)
_FARTHEST = timedelta(days=366)


class NewLeaf(NamedTuple):
    """A partition to create, with its bounds; `None` is MINVALUE or MAXVALUE."""

    name: str
    lower: UUID | None
    upper: UUID | None


def storage_of(connection: Connection, oid: int) -> str:
    """Return the options of a table and its tablespace, for `CREATE TABLE`."""
    options, tablespace = connection.execute(_OPTIONS, {"oid": oid}).one()
    place = f" TABLESPACE {tablespace}" if tablespace else ""
    return f"WITH ({options or _STORAGE}){place}"


def leaf_name(start: datetime) -> str:
    """Return the name of the partition that begins at a time."""
    return f"{TABLE_NAME}_p{start:%Y%m%d}"


class Creation(NamedTuple):
    """Statements that create partitions.

    Attributes:
        before: nobody waits for these.
        attaching: these make the new tables partitions.
    """

    before: list[str]
    attaching: list[str]


def is_name_of_leaf(name: str) -> bool:
    """Return whether a table has a name that this library gives to partitions."""
    return _LEAF_NAME.fullmatch(name) is not None


def end_of_ahead(now: datetime, every: Every, ahead: int) -> datetime:
    """Return the end of the last of so many spans after the one of now."""
    end = next_start(now, every)
    for _ in range(ahead):
        end = next_start(end, every)
    return end


def starts_between(start: datetime, end: datetime, every: Every) -> list[datetime]:
    """Return the start of each span from a time, which need not be a start, up to another one."""
    starts = []
    while start < end:
        starts.append(start)
        start = next_start(start, every)
    return starts


def first_cut(now: datetime, newest: datetime | None, every: Every) -> datetime:
    """Return the first start of a span more than a day ahead of now, and after all executions.

    Raises:
        LayoutNotChanged: if an execution is said to start more than a year after now.
    """
    latest = max(now + _DAY, newest or now)
    if latest > now + _FARTHEST:
        raise LayoutNotChanged(
            f"the greatest id of an execution has a time in {latest.year}, and all executions "
            "until then would be in one partition; delete those whose id is greater than "
            f"{first_id(now + _FARTHEST)}"
        )
    return next_start(latest, every)


def bounds(lower: UUID | None, upper: UUID | None) -> str:
    """Return the bounds of a partition, for SQL."""
    start = "MINVALUE" if lower is None else f"'{lower}'"
    end = "MAXVALUE" if upper is None else f"'{upper}'"
    return f"FOR VALUES FROM ({start}) TO ({end})"


def attach(parent: str, leaf: str, lower: UUID | None, upper: UUID | None) -> str:
    """Return the statement that makes a table a partition."""
    return f"ALTER TABLE {parent} ATTACH PARTITION {leaf} {bounds(lower, upper)}"


def spans(start: datetime, end: datetime, every: Every) -> list[NewLeaf]:
    """Return the partitions from a time up to another one.

    If nobody has created partitions for very long, the first of them has many spans, because each
    partition that a statement touches takes locks, of which a server has not many.
    """
    starts = starts_between(start, end, every)
    starts[1:] = starts[1:][-_MOST_AT_ONCE:]
    ends = [*starts[1:], end]
    return [
        NewLeaf(leaf_name(each), first_id(each), first_id(until))
        for each, until in zip(starts, ends, strict=True)
    ]


def create_leaves(
    connection: Connection,
    parent: int,
    schema: str,
    template: int,
    new: Iterable[NewLeaf],
    *,
    freed: str | None = None,
) -> Creation:
    """Return the statements that create partitions, and those that attach them.

    A partition is first created like the history table, before anybody has to wait, and then
    attached. That also passes open readers, which `PARTITION OF` does not.

    Args:
        parent: the table whose owner, privileges and policies the partitions get.
        template: the table whose storage they get.
        freed: the name of a table that is renamed between creating and attaching.
    """
    storage = storage_of(connection, template)
    attributes = read_attributes(connection, parent, _PLACE)
    settings = [each for each in attributes.others if not each.startswith("COMMENT")]
    history = identifier(schema, TABLE_NAME)
    creation = Creation([], [])
    for each in new:
        name = free_name(connection, schema, each.name)
        leaf = identifier(schema, name)
        creation.before.append(f"CREATE TABLE {leaf} (LIKE {history} INCLUDING ALL) {storage}")
        creation.before.append(drop_cut(leaf))
        dressing = (*attributes.access, *settings)
        creation.before.extend(statement.replace(_PLACE, leaf) for statement in dressing)
        if each.name == freed != name:
            creation.attaching.append(f"ALTER TABLE {leaf} RENAME TO {identifier(each.name)}")
            leaf = identifier(schema, each.name)
        creation.attaching.append(attach(history, leaf, each.lower, each.upper))
    return creation


def free_name(connection: Connection, schema: str, name: str) -> str:
    """Return a name for a table, with a number if another one has it, as one that was detached."""
    found, number = name, 1
    while connection.execute(_EXISTS, {"name": identifier(schema, found)}).scalar_one():
        number += 1
        found = f"{name}_{number}"
    return found


def newest_moment(connection: Connection, table: str) -> datetime | None:
    """Return the time of the greatest id in a table; `None` if it has no rows."""
    newest = connection.execute(text(_NEWEST.format(escaped(table)))).scalar()
    return None if newest is None else moment_of(UUID(str(newest)))
