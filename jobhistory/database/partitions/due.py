"""What expiry does with a partition: the rules, and the few rows that it reads to decide."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, and_, column, func, literal_column, or_, select, table

from jobhistory.database.partitions.catalog import Layout, Leaf
from jobhistory.database.partitions.spans import moment_of
from jobhistory.database.transaction import Transaction
from jobhistory.schema import UTCDateTime

MOST_SURVIVORS = 20_000
"""The number of rows that one swap copies at the most, because it compares them under a lock."""

_DUE_PER_SURVIVOR = 9
_SMALL = 1_000_000


class Fate(Enum):
    """What expiry does with a partition."""

    KEEP = auto()
    """Nothing: no row has expired."""

    DROP = auto()
    """Drop it: it is over, and all of its rows have expired."""

    WAIT = auto()
    """Nothing yet: soon it can be dropped, or nearly all of it can."""

    REWRITE = auto()
    """Copy the few rows that stay to a new partition, and drop it."""

    ROWS = auto()
    """Delete the expired rows in batches."""


@dataclass(frozen=True)
class Content:
    """The rows of a partition.

    Attributes:
        first, last: the least and the greatest time of expiry; `None` if no row has any.
        has_endless: whether a row never expires; `None` if there is no row.
    """

    first: datetime | None
    last: datetime | None
    has_endless: bool | None

    @property
    def is_empty(self) -> bool:
        """Whether there is no row."""
        return self.has_endless is None

    def is_due(self, cutoff: datetime) -> bool:
        """Whether every row has expired."""
        return not self.has_endless and (self.last is None or self.last <= cutoff)


@dataclass(frozen=True)
class Outlook:
    """What expiry does with a partition, and until when expired rows wait at the latest."""

    leaf: Leaf
    fate: Fate
    until: datetime | None = None


def is_over(leaf: Leaf, cutoff: datetime) -> bool:
    """Return whether the time of a partition lies in the past. That of the last one never does."""
    return leaf.upper is not None and moment_of(leaf.upper) <= cutoff


def span_of(layout: Layout, leaf: Leaf, cutoff: datetime) -> timedelta:
    """Return how long expired rows of a partition may wait: as long as a new partition lasts.

    Old partitions may be longer, because some take the place of those that are dropped.
    """
    widths = {each: width for each in layout.leaves if (width := _width(each))}
    new = [width for each, width in widths.items() if not is_over(each, cutoff)]
    span = max(new or widths.values(), default=timedelta(0))
    return min(span, widths.get(leaf, span))


def _width(leaf: Leaf) -> timedelta | None:
    if leaf.lower is None or leaf.upper is None:
        return None
    return moment_of(leaf.upper) - moment_of(leaf.lower)


def content_of(transaction: Transaction, leaf: Leaf) -> Content:
    """Return what a partition contains. Each value is a probe of the index on `expires_at`."""
    _, expires_at = _rows(leaf)
    first = select(func.min(expires_at)).scalar_subquery()
    last = select(func.max(expires_at)).scalar_subquery()
    # NULL comes first in this order. A condition could make the planner read all rows.
    has_endless = select(expires_at.is_(None)).order_by(expires_at.desc()).limit(1)
    return Content(*_one(transaction, select(first, last, has_endless.scalar_subquery())))


def newest_start(transaction: Transaction, leaf: Leaf) -> datetime | None:
    """Return the latest start of the executions of a partition."""
    rows, _ = _rows(leaf)
    newest: datetime | None = _one(transaction, select(func.max(rows.c.started_at)))[0]
    return newest


def count_due(transaction: Transaction, leaf: Leaf, cutoff: datetime) -> int:
    """Return how many rows of a partition have expired."""
    rows, expires_at = _rows(leaf)
    statement = select(func.count()).select_from(rows).where(expires_at <= cutoff)
    count: int = _one(transaction, statement)[0]
    return count


def count_all(transaction: Transaction, leaf: Leaf, limit: int) -> int:
    """Return the number of rows of a partition, or `limit` if there are more."""
    rows, _ = _rows(leaf)
    found: Any = select(literal_column("1")).select_from(rows).limit(limit).subquery()
    count: int = _one(transaction, select(func.count()).select_from(found))[0]
    return count


def outlook_of(
    transaction: Transaction, layout: Layout, leaf: Leaf, cutoff: datetime, *, by_partition: bool
) -> Outlook:
    """Return what an expiry does with a partition.

    Args:
        by_partition: whether rows may wait until all of a partition can be dropped.
    """
    content = content_of(transaction, leaf)
    over = is_over(leaf, cutoff)
    if content.is_empty and over and _takes_space(transaction, leaf):
        return Outlook(leaf, Fate.DROP)
    if content.first is None or content.last is None or content.first > cutoff:
        return Outlook(leaf, Fate.KEEP)
    span = span_of(layout, leaf, cutoff) if by_partition else timedelta(0)
    if leaf.upper is None or not span:
        return Outlook(leaf, Fate.ROWS)
    if over and content.is_due(cutoff):
        return Outlook(leaf, Fate.DROP)
    end = _End(transaction, leaf, cutoff, span)
    limit = content.first + span
    if (limit > cutoff or (over and end.is_nothing_due_soon())) and end.does_little_stay():
        if over and end.is_nothing_due_soon():
            return Outlook(leaf, Fate.REWRITE)
        is_dropped_at = limit if content.has_endless else max(content.last, moment_of(leaf.upper))
        return Outlook(leaf, Fate.WAIT, until=min(limit, is_dropped_at))
    return Outlook(leaf, Fate.ROWS)


def _takes_space(transaction: Transaction, leaf: Leaf) -> bool:
    """Return whether dropping an empty partition is of use. The first one is needed for imports."""
    if leaf.lower is not None:
        return True
    size = func.pg_relation_size(literal_column(f"CAST({leaf.oid:d} AS regclass)"))
    return bool(_one(transaction, select(size))[0] > _SMALL)


@dataclass(frozen=True)
class _End:
    """Questions about the end of a partition. Each reads a limited number of entries of an index.

    A row stays if it never expires, or not within a span.
    """

    transaction: Transaction
    leaf: Leaf
    cutoff: datetime
    span: timedelta

    def is_nothing_due_soon(self) -> bool:
        _, expires_at = _rows(self.leaf)
        return not self._count(and_(expires_at > self.cutoff, expires_at <= self._soon), 1)

    def does_little_stay(self) -> bool:
        """Return whether only a tenth of the rows stays, which can be copied."""
        _, expires_at = _rows(self.leaf)
        stays = or_(expires_at > self._soon, expires_at.is_(None))
        staying = self._count(stays, MOST_SURVIVORS + 1)
        if not 0 < staying <= MOST_SURVIVORS:
            return staying == 0
        others = staying * _DUE_PER_SURVIVOR
        return self._count(expires_at <= self._soon, others) == others

    @property
    def _soon(self) -> datetime:
        try:
            return self.cutoff + self.span
        except OverflowError:
            return datetime.max.replace(tzinfo=self.cutoff.tzinfo)

    def _count(self, criterion: ColumnElement[bool], limit: int) -> int:
        rows, _ = _rows(self.leaf)
        found: Any = select(literal_column("1")).select_from(rows).where(criterion).limit(limit)
        statement = select(func.count()).select_from(found.subquery())
        count: int = _one(self.transaction, statement)[0]
        return count


@lru_cache(maxsize=64)
def _rows(leaf: Leaf) -> tuple[Any, ColumnElement[datetime]]:
    columns: Any = (column("expires_at", UTCDateTime()), column("started_at", UTCDateTime()))
    rows = table(leaf.name, *columns, schema=leaf.schema)
    return rows, rows.c.expires_at


def _one(transaction: Transaction, statement: Any) -> Any:
    return transaction.execute(statement, schema_translate_map={}).one()
