"""The SQL of expiry, and the values that it works with.

On PostgreSQL, a batch finds its rows by `ctid`, which is twice as fast as by id. A `ctid` is unique
in one table only, not across the partitions or the inheritance children of a table. So each table
of such a tree is named and expires by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Delete,
    Integer,
    Select,
    String,
    Uuid,
    any_,
    bindparam,
    case,
    column,
    delete,
    exists,
    func,
    literal_column,
    select,
    table,
    text,
    true,
    tuple_,
)

from jobhistory.schema import TABLE, UTCDateTime


class Place(NamedTuple):
    """A place in the order of a moment; with an id, in the order of the moment and the id."""

    moment: datetime
    id: UUID | None = None

    def exact(self) -> Place:
        """Return the place before all rows of the moment, in the order with the id."""
        return self if self.id is not None else self._replace(id=UUID(int=0))


BEGINNING = Place(datetime.min.replace(tzinfo=UTC))
"""The place before all rows."""


@dataclass(frozen=True)
class Branch:
    """One table of the tree of partitions or inheritance children that history can be.

    Attributes:
        schema, name: the table's name in the database.
        oid: its object identifier.
        parent: that of the table it is attached to; `None` at the root.
        is_table: whether it is a table and not, say, a view or a foreign table.
    """

    schema: str
    name: str
    oid: int
    parent: int | None
    is_table: bool


@dataclass(frozen=True)
class Expiry:
    """What one call of `expire()` works on.

    Attributes:
        cutoff: the earlier of the store's clock and the database's.
        branches: the tables to delete from, one after the other. `None` is the whole tree at once,
            by ids.
        has_policies: whether row-level security can hide rows from the connection.
    """

    cutoff: datetime
    branches: tuple[Branch | None, ...] = (None,)
    has_policies: bool = False


class Deleted(NamedTuple):
    """What became of a batch: how many rows it found and deleted, and the last row it found."""

    found: int
    deleted: int
    last: Place | None


_earlier = func.least(bindparam("now", type_=UTCDateTime), func.now(), type_=UTCDateTime)

EARLIER = select(_earlier)
"""PostgreSQL: the earlier of the moment `now` and the server's clock."""

# A partition need not grant what its parent does, and has its own policies.
TREE = text("""
WITH RECURSIVE tree (oid, parent) AS (
    SELECT CAST(to_regclass(:name) AS oid), CAST(NULL AS oid)
    UNION
    SELECT inhrelid, inhparent FROM pg_inherits JOIN tree ON inhparent = tree.oid
)
SELECT
    least(:now, now()) AS cutoff, nspname, relname, tree.oid, tree.parent,
    relkind <> 'p' AS has_rows, relkind = 'r' AS is_table,
    row_security_active(tree.oid) AS has_policies,
    has_schema_privilege(relnamespace, 'USAGE')
        AND has_table_privilege(tree.oid, 'SELECT')
        AND has_table_privilege(tree.oid, 'DELETE')
        AND has_any_column_privilege(tree.oid, 'UPDATE') AS is_granted
FROM tree
    LEFT JOIN pg_class ON pg_class.oid = tree.oid
    LEFT JOIN pg_namespace ON pg_namespace.oid = relnamespace
ORDER BY tree.parent IS NOT NULL, relname, tree.oid
""").bindparams(bindparam("now", type_=UTCDateTime), bindparam("name", type_=String))
"""PostgreSQL: the cutoff of an expiry, and the table `name` with all tables below it."""


def expiry_of(tree: Sequence[Any]) -> Expiry:
    """Return what to work on, from the rows of `TREE`."""
    root = tree[0]
    cutoff = UTCDateTime().process_result_value(root.cutoff, None)  # type: ignore[arg-type]
    assert cutoff is not None
    branches = {  # each once, as a table can inherit from several
        each.oid: Branch(each.nspname, each.relname, each.oid, each.parent, each.is_table)
        for each in tree
        if each.has_rows
    }
    # Under another name, other grants and policies would apply than those of the table.
    is_alone = len(tree) == 1
    by_name = is_alone or all(each.is_granted and not each.has_policies for each in tree)
    if not branches or not by_name:
        return Expiry(cutoff, has_policies=bool(root.has_policies))
    return Expiry(cutoff, tuple(branches.values()), bool(root.has_policies))


_EXPIRED = TABLE.c.expires_at <= bindparam("cutoff")

COUNT_EXPIRED = select(func.count()).select_from(TABLE).where(_EXPIRED)
"""How many rows have expired at the moment `cutoff`."""


@lru_cache(maxsize=64)
def delete_expired(branch: Branch | None, *, exact: bool) -> Select[*tuple[Any, ...]]:
    """PostgreSQL: delete one batch; return how many rows it found and deleted.

    It also selects the moment at which the last one expired, and if `exact` its id.
    """
    rows, address = _rows(branch)
    # A CTE, unlike a plain subquery, runs once whatever the plan; else more than a batch could go.
    doomed = _doomed(branch, rows, address, exact=exact).cte("doomed")
    addresses = func.array(select(doomed.c.address).scalar_subquery())
    gone = _only(delete(rows), rows, branch).where(address == any_(addresses))
    if branch is None or not branch.is_table:
        # Addresses need not be unique, and none may cost a live row. It takes time, as the column
        # is the last one of a row.
        gone = gone.where(rows.c.expires_at <= bindparam("cutoff"))
    gone = gone.returning(literal_column("1")).cte("gone")
    batch = _found(doomed, exact=exact).subquery("batch")
    result = select(func.count().label("deleted")).select_from(gone).subquery("result")
    found, *last = batch.c
    # Divided by zero the statement fails, and with it all that it has deleted is rolled back.
    zero, one = (literal_column(each, Integer) for each in "01")
    guarded = found.op("/")(case((result.c.deleted > found, zero), else_=one))
    return select(guarded, result.c.deleted, *last).select_from(batch.join(result, true()))


GUARD_STATE = "22012"
"""The error of `delete_expired` if it deletes more rows than it found: a division by zero."""


@lru_cache
def find_expired(*, exact: bool) -> Select[*tuple[Any, ...]]:
    """Elsewhere: how many rows a batch finds, and the last one, as `delete_expired` has them."""
    return _found(_doomed(None, *_rows(None), exact=exact).cte("doomed"), exact=exact)


@lru_cache
def delete_found(*, exact: bool) -> Delete:
    """Elsewhere: delete the rows that `find_expired` finds."""
    # SQLite runs the subquery once. Python's driver begins no transaction for a CTE.
    doomed = _doomed(None, *_rows(None), exact=exact).subquery()
    return delete(TABLE).where(TABLE.c.id.in_(select(doomed.c.address)))


@lru_cache(maxsize=64)
def first_expired(branch: Branch | None) -> Select[*tuple[Any, ...]]:
    """The first row of a batch, as the moment at which it expired and its id."""
    doomed = _doomed(branch, *_rows(branch), exact=True).subquery()
    return select(doomed.c.expires_at, doomed.c.id)


def _rows(branch: Branch | None) -> tuple[Any, ColumnElement[Any]]:
    """Return a table, and the column by which its rows are found."""
    if branch is None:
        return TABLE, TABLE.c.id
    columns: Any = (column("ctid"), column("id", Uuid()), column("expires_at", UTCDateTime()))
    rows = table(branch.name, *columns, schema=branch.schema)
    return rows, rows.c.ctid


def _only(statement: Any, rows: Any, branch: Branch | None) -> Any:
    """Leave out the tables below a branch, which are branches themselves."""
    if branch is None:
        return statement
    if isinstance(statement, Delete):
        return statement.with_hint("ONLY", rows, "postgresql")
    return statement.with_hint(rows, "ONLY", "postgresql")


def _doomed(
    branch: Branch | None, rows: Any, address: ColumnElement[Any], *, exact: bool
) -> Select[*tuple[Any, ...]]:
    # SQLite has no SKIP LOCKED, and SQLAlchemy leaves it out there: its writers queue anyway.
    expires_at, id_ = rows.c.expires_at, rows.c.id
    low = bindparam("low_moment", type_=UTCDateTime)
    columns: list[Any] = [address.label("address"), expires_at] + ([id_] if exact else [])
    found: Select[*tuple[Any, ...]] = (
        _only(select(*columns), rows, branch)
        # The place spares each batch the dead rows that those before it left in the index.
        .where(expires_at <= bindparam("cutoff"), expires_at >= low)
        .order_by(expires_at)
        .limit(bindparam("batch_size"))
        .with_for_update(skip_locked=True)
    )
    if exact:
        low_id = bindparam("low_id", type_=Uuid)
        found = found.where(tuple_(expires_at, id_) > tuple_(low, low_id)).order_by(id_)
    if branch is not None and branch.parent is not None:
        found = found.where(_is_attached(branch, branch.parent))
    return found


def _is_attached(branch: Branch, parent: int) -> ColumnElement[bool]:
    """That a branch is still part of history: a detached partition is the app's own."""
    inherits = table("pg_inherits", column("inhrelid"), column("inhparent"), schema="pg_catalog")
    return exists(
        select(literal_column("1")).where(
            inherits.c.inhrelid == literal_column(f"CAST({branch.oid:d} AS oid)"),
            inherits.c.inhparent == literal_column(f"CAST({parent:d} AS oid)"),
        )
    )


def _found(doomed: CTE, *, exact: bool) -> Select[*tuple[Any, ...]]:
    """How many rows a batch has found, and the place of the last one."""
    last: list[ColumnElement[Any]] = [func.max(doomed.c.expires_at)]
    if exact:
        order = (doomed.c.expires_at.desc(), doomed.c.id.desc())
        last_id = select(doomed.c.id).order_by(*order).limit(literal_column("1"))
        last.append(last_id.scalar_subquery())
    return select(func.count().label("found"), *last).select_from(doomed)
