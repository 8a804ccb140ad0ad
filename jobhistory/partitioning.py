"""Partitions of the history table, on PostgreSQL: for histories of many millions of rows.

The table is partitioned by ranges of execution ids, which begin with the time of the start. So a
partition is a span of time, and `expire` can drop one instead of deleting its rows. All else stays
as it is: the primary key, the indexes, foreign keys, triggers and privileges, and the migrations.

Every function takes an `Engine` or a `Connection`. With a connection, it works in the connection's
transaction, and others wait until that ends, so prefer an engine. Each is safe to repeat after it
was interrupted. The functions are thread-safe, except for calls that share a connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, get_args

from sqlalchemy import Connection, Engine, String, bindparam, text

from jobhistory._runtime.clock import in_utc, utc_now
from jobhistory.database import exclusive
from jobhistory.database.layout import distributed_by
from jobhistory.database.partitions import conversion, extension, undoing
from jobhistory.database.partitions.attributes import validate_keys
from jobhistory.database.partitions.catalog import Layout, read_layout
from jobhistory.database.partitions.cuts import drop_leftovers, leftovers
from jobhistory.database.partitions.leaves import NewLeaf, newest_moment
from jobhistory.database.partitions.settings import Settings, read_settings, write_settings
from jobhistory.database.partitions.spans import Every as Every
from jobhistory.database.partitions.spans import moment_of, next_start
from jobhistory.database.partitions.sql import identifier, run
from jobhistory.database.revision import connected, quoted_table, refuse_outdated
from jobhistory.errors import InvalidInput, LayoutNotChanged, check_count
from jobhistory.schema import TABLE_NAME

_FIND = text("""
SELECT nspname, CAST(pg_class.oid AS bigint), relkind = 'p'
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE pg_class.oid = to_regclass(:name)
""").bindparams(bindparam("name", type_=String))


_FIRST_SETTINGS = Settings("week", 4)
_MOST_AHEAD = 60


class _Table(NamedTuple):
    schema: str
    oid: int
    is_partitioned: bool

    @property
    def quoted(self) -> str:
        return identifier(self.schema, TABLE_NAME)


@dataclass(frozen=True)
class Partitions:
    """How the history table is partitioned.

    Attributes:
        every: the length of a partition: `"day"`, `"week"` or `"month"`; `None` if it is not known.
        count: the number of partitions.
        until: the time at which the last partition begins, which has no end.
        created: the number of partitions that the call has created.
        warnings: what is wrong. `partition` repairs it.
    """

    every: Every | None
    count: int
    until: datetime | None
    created: int = 0
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return how the table is partitioned, for JSON."""
        return {
            "every": self.every,
            "partitions": self.count,
            "until": self.until and self.until.isoformat(),
            "created": self.created,
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        if not self.count:
            return "not partitioned"
        by = f"by {self.every}" if self.every else "by ranges of ids"
        until = f", until {self.until:%Y-%m-%d}" if self.until else ""
        return f"partitioned {by}, {self.count} partitions{until}"


def partition(
    bind: Engine | Connection,
    *,
    every: Every | None = None,
    ahead: int | None = None,
    schema: str | None = None,
    now: datetime | None = None,
) -> Partitions:
    """Partition the history table, or create the next partitions; return how it is partitioned.

    Call it again from time to time, for example each day: it creates the next partitions, and
    updates the planner's statistics of the table, which autovacuum does not.

    A plain table becomes the first partition. No row moves. Recording goes on meanwhile: writers
    wait twice, each time a fraction of a second. In between, one statement reads the whole table.
    On PostgreSQL, the role must own the table and have CREATE on its schema.

    Args:
        every: the length of a partition: `"day"`, `"week"` or `"month"`. Few partitions are fast:
            each read of one job looks into all of them. `None` means that of the last call, or a
            week at the first.
        ahead: how many partitions exist ahead of time. `None` means that of the last call, or 4.
        now: the present time, for tests; the default is the clock's.

    Raises:
        InvalidInput: if `every` or `ahead` cannot be used.
        SchemaOutOfDate: if the table is missing or not up to date.
        LayoutNotChanged: if the database is not PostgreSQL, if something keeps the table from being
            partitioned, such as a view that reads it, if Citus distributes it, or if others have
            kept it locked.
    """
    if every not in (None, *get_args(Every)):
        raise InvalidInput("every", every, "is not a length; pass 'day', 'week' or 'month'")
    if ahead is not None:
        check_count(ahead, "ahead", most=_MOST_AHEAD, example=4)
    moment = utc_now() if now is None else in_utc(now, "now")
    _refuse_others(bind, schema)
    with exclusive.changing_layout(bind):
        with exclusive.transaction(bind) as connection:
            if distributed_by(connection, schema) is not None:
                raise LayoutNotChanged(
                    "Citus distributes job_history, and does not take what creates partitions; "
                    "new executions go to the last one, if there are partitions"
                )
            table = _find(connection, schema)
            layout = _layout(connection, table, schema) if table.is_partitioned else None
            last = read_settings(connection, table.schema) or _FIRST_SETTINGS
        settings = Settings(every or last.every, last.ahead if ahead is None else ahead)
        if layout is None:
            created = conversion.convert(bind, table.schema, table.oid, settings, moment)
        else:
            extension.finalize(bind, layout)
            drop_leftovers(bind, table.oid)
            created = extension.extend(bind, schema, settings, moment)
            with exclusive.transaction(bind) as connection:
                write_settings(connection, table.schema, settings)
        _finish(bind, schema)
    with connected(bind) as connection:
        return _describe(connection, schema, moment, created)


def undo(bind: Engine | Connection, *, schema: str | None = None) -> None:
    """Make the history table a plain one again.

    The largest partition becomes the table, and the rows of all others move into it. Meanwhile, in
    one transaction, everybody who reads or writes history waits. If the table is plain, nothing
    happens. The role must own the table.

    Raises:
        SchemaOutOfDate: if the table is missing or not up to date.
        LayoutNotChanged: as `partition`.
    """
    _refuse_others(bind, schema)
    with exclusive.changing_layout(bind):
        with exclusive.transaction(bind) as connection:
            table = _find(connection, schema)
            layout = _layout(connection, table, schema) if table.is_partitioned else None
        if layout is None:
            drop_leftovers(bind, table.oid)
        else:
            extension.finalize(bind, layout)
            undoing.undo(bind, layout)
        _finish(bind, schema)


def partitions_of(
    bind: Engine | Connection, *, schema: str | None = None, now: datetime | None = None
) -> Partitions:
    """Return how the history table is partitioned; the count is 0 if it is plain.

    The role needs SELECT on the table. The table must exist.
    """
    moment = utc_now() if now is None else in_utc(now, "now")
    with connected(bind) as connection:
        return _describe(connection, schema, moment)


def _refuse_others(bind: Engine | Connection, schema: str | None) -> None:
    with connected(bind) as connection:
        if connection.dialect.name != "postgresql":
            raise LayoutNotChanged("SQLite has no partitions")
        refuse_outdated(connection, schema=schema)


def _find(connection: Connection, schema: str | None) -> _Table:
    name = quoted_table(connection, schema)
    return _Table(*connection.execute(_FIND, {"name": name}).one())


def _layout(connection: Connection, table: _Table, schema: str | None) -> Layout:
    layout = read_layout(connection, schema)
    if layout is None:
        raise LayoutNotChanged(
            f"{table.quoted} is partitioned in another way than by RANGE (id), or has a DEFAULT "
            "partition or partitions that are partitioned"
        )
    if not layout.is_owner:
        raise LayoutNotChanged("this role does not own the table and all its partitions")
    return layout


def _finish(bind: Engine | Connection, schema: str | None) -> None:
    """Do what follows a change of the layout, and may have been interrupted before."""
    with exclusive.transaction(bind) as connection:
        table = _find(connection, schema)
    validate_keys(bind, table.oid)
    with exclusive.transaction(bind) as connection:
        run(connection, f"ANALYZE {table.quoted}")  # autovacuum does not do that to a parent


def _describe(
    connection: Connection, schema: str | None, now: datetime, created: int = 0
) -> Partitions:
    layout = read_layout(connection, schema)
    if layout is None:
        table = _find(connection, schema) if connection.dialect.name == "postgresql" else None
        left = leftovers(connection, table.oid) if table else []
        return Partitions(None, 0, None, warnings=_warnings_of_leftovers(left))
    settings = read_settings(connection, layout.schema)
    last = layout.leaves[-1] if layout.leaves else None
    until = moment_of(last.lower) if last is not None and last.lower is not None else None
    warnings = [
        f"{identifier(each.schema, each.name)} is half detached, which hides its executions"
        for each in layout.pending
    ]
    warnings += [
        f"executions that start {_range_of(gap)} have no partition, and are refused"
        for gap in extension.gaps_of(layout.leaves)
        if not layout.pending  # which leave gaps, too
    ]
    table_name = identifier(layout.schema, layout.name)
    newest = newest_moment(connection, table_name)
    if until is None or (newest is not None and newest >= until):
        warnings.append("executions have reached the last partition, which has no end")
    elif until <= next_start(now, settings.every if settings else "day"):
        warnings.append(f"the partitions end at {until:%Y-%m-%d}, except the last one")
    return Partitions(
        settings.every if settings else None,
        len(layout.leaves),
        until,
        created,
        (*warnings, *_warnings_of_leftovers(leftovers(connection, layout.oid))),
    )


def _range_of(gap: NewLeaf) -> str:
    lower, upper = (each and f"{moment_of(each):%Y-%m-%d}" for each in (gap.lower, gap.upper))
    if lower is None:
        return "at any time" if upper is None else f"before {upper}"
    return f"from {lower} on" if upper is None else f"from {lower} to {upper}"


def _warnings_of_leftovers(tables: list[str]) -> tuple[str, ...]:
    return tuple(f"{each} will refuse new executions: a change was interrupted" for each in tables)
