"""The SQL of expiry, and the values that it uses.

On PostgreSQL, a batch deletes its rows by `ctid`, which is twice as fast as by id. A `ctid` is
unique within one table, but not across partitions or inheritance children. Therefore each table of
such a tree is a separate branch, with its own batches.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
    type_coerce,
)
from sqlalchemy.sql.dml import ReturningDelete

from jobhistory.database.statements.shards import delete_listed
from jobhistory.schema import TABLE, UTCDateTime


class Place(NamedTuple):
    """A position in the order of a time; with an id, in the order of the time and the id."""

    moment: datetime
    id: UUID | None = None

    def exact(self) -> Place:
        """Return a place with an id: this place, or the one before all rows of its time."""
        return self if self.id is not None else self._replace(id=UUID(int=0))


BEGINNING = Place(datetime.min.replace(tzinfo=UTC))
"""The place before all rows."""


@dataclass(frozen=True)
class Branch:
    """One table of the history, which can be a tree of partitions or inheritance children.

    Attributes:
        schema, name: the schema and the name of the table.
        oid: the object identifier of the table.
        parent: the object identifier of the table to which it is attached; `None` at the root.
        is_table: whether it is an ordinary table, as opposed to a view or a foreign table.
    """

    schema: str
    name: str
    oid: int
    parent: int | None
    is_table: bool


@dataclass(frozen=True)
class Expiry:
    """The plan of one call of `expire()`.

    Attributes:
        cutoff: the earlier of the store's clock and the database's.
        branches: the tables to delete from, in this order. `None` stands for the whole tree, from
            which rows are deleted by id.
        has_policies: whether row-level security can hide rows from the connection.
    """

    cutoff: datetime
    branches: tuple[Branch | None, ...] = (None,)
    has_policies: bool = False


class Deleted(NamedTuple):
    """The result of a batch.

    Attributes:
        found, deleted: the numbers of rows found and deleted.
        last: the place of the last row found.
        newest: the most recent start of the deleted rows.
    """

    found: int
    deleted: int
    last: Place | None
    newest: datetime | None = None


_earlier = func.least(bindparam("now", type_=UTCDateTime), func.now(), type_=UTCDateTime)

EARLIER = select(_earlier)
"""PostgreSQL: the earlier of the parameter `now` and the server's clock."""

# Grants and policies are those of each table; a partition does not inherit them from its parent.
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
"""PostgreSQL: the cutoff of an expiry, and the table `name` with all its descendants."""


def expiry_of(tree: Sequence[Any]) -> Expiry:
    """Return the plan of an expiry, from the rows of `TREE`."""
    root = tree[0]
    cutoff = UTCDateTime().process_result_value(root.cutoff, None)  # type: ignore[arg-type]
    assert cutoff is not None
    branches = {  # each table once, although it can inherit from several
        each.oid: Branch(each.nspname, each.relname, each.oid, each.parent, each.is_table)
        for each in tree
        if each.has_rows
    }
    # If statements name a partition, its own grants and policies apply and not the root table's.
    is_alone = len(tree) == 1
    by_name = is_alone or all(each.is_granted and not each.has_policies for each in tree)
    if not branches or not by_name:
        return Expiry(cutoff, has_policies=bool(root.has_policies))
    return Expiry(cutoff, tuple(branches.values()), bool(root.has_policies))


_EXPIRED = TABLE.c.expires_at <= bindparam("cutoff")

COUNT_EXPIRED = select(func.count()).select_from(TABLE).where(_EXPIRED)
"""The number of rows that have expired by `cutoff`."""


@lru_cache(maxsize=64)
def delete_expired(branch: Branch | None, *, exact: bool) -> Select[*tuple[Any, ...]]:
    """Return the statement that deletes one batch on PostgreSQL.

    It selects the number of rows found, the number of rows deleted, the time at which the last row
    expired, and with `exact` the id of that row.
    """
    rows, address = rows_of(branch)
    # Some plans run a plain subquery several times, which would delete more than one batch.
    # A CTE runs once.
    batch = expired_batch(branch, exact=exact).cte("expired_batch")
    deleted = only(delete(rows), rows, branch)
    if branch is None or not branch.is_table:
        # Several rows may have the same address here, so check that no live row is deleted. An
        # ordinary table does without the check, which is slow: expires_at is a row's last column.
        deleted = deleted.where(rows.c.expires_at <= bindparam("cutoff"))
    return delete_batch(batch, deleted, address, exact=exact)


def delete_batch(
    batch: CTE, delete_: Delete, address: ColumnElement[Any], *, exact: bool
) -> Select[*tuple[Any, ...]]:
    """Return the statement that deletes a batch of rows on PostgreSQL, see `delete_expired`.

    Args:
        batch: the `address` of each row, the `moment` that orders the rows, and with `exact` the
            `id`.
        delete_: the statement that deletes rows; it gets the condition that they are in the batch.
        address: the column that it compares with the addresses.
    """
    addresses = func.array(select(batch.c.address).scalar_subquery())
    is_in_batch = address == any_(addresses)
    started_at = literal_column("started_at", UTCDateTime)
    deleted = delete_.where(is_in_batch).returning(started_at.label("started_at")).cte("deleted")
    search = found_in(batch, exact=exact).subquery("search")
    newest = func.max(deleted.c.started_at).label("newest")
    result = select(func.count().label("deleted"), newest).select_from(deleted).subquery("result")
    found, *last = search.c
    # The division by zero makes the statement fail, which rolls back what it has deleted.
    zero, one = (literal_column(each, Integer) for each in "01")
    guarded = found.op("/")(case((result.c.deleted > found, zero), else_=one))
    return select(guarded, *result.c, *last).select_from(search.join(result, true()))


GUARD_STATE = "22012"
"""The sqlstate of `delete_expired` if it deletes more rows than it finds: division by zero."""


STARTED_AT_TEXT: ColumnElement[str] = type_coerce(TABLE.c.started_at, String)
"""What a deletion returns on other databases: starts as texts, of which only one is converted."""


def newest_of(texts: Collection[str]) -> datetime | None:
    """Return the most recent of the starts that a deletion on other databases returns."""
    if not texts:
        return None
    return datetime.fromisoformat(max(texts)).replace(tzinfo=UTC)


@lru_cache
def find_expired(*, exact: bool) -> Select[*tuple[Any, ...]]:
    """Return the statement that finds one batch on other databases.

    It selects the number of rows found and the last row, as `delete_expired` does.
    """
    return found_in(expired_batch(None, exact=exact).cte("expired_batch"), exact=exact)


@lru_cache
def find_in_shards(*, exact: bool) -> Select[*tuple[Any, ...]]:
    """Return the statement that finds one batch where Citus distributes the table.

    It selects the address, the time of expiry and the job of each row, and locks none.
    """
    return _expired(None, exact=exact).add_columns(TABLE.c.job_id)


DELETE_IN_SHARDS = delete_listed(_EXPIRED)
"""Deletes the rows that `find_in_shards` has found, if they have still expired."""


@lru_cache
def delete_found(*, exact: bool) -> ReturningDelete[str]:
    """Return the statement that deletes the rows that `find_expired` finds."""
    # A subquery suffices, because SQLite runs it once. With a CTE, Python's driver would not begin
    # a transaction.
    batch = expired_batch(None, exact=exact).subquery()
    return delete(TABLE).where(TABLE.c.id.in_(select(batch.c.address))).returning(STARTED_AT_TEXT)


@lru_cache(maxsize=64)
def first_expired(branch: Branch | None) -> Select[*tuple[Any, ...]]:
    """Return the statement that selects the first row of a batch: its time of expiry and its id."""
    batch = expired_batch(branch, exact=True).subquery()
    return select(batch.c.moment, batch.c.id)


def rows_of(branch: Branch | None) -> tuple[Any, ColumnElement[Any]]:
    """Return a table, and the column that addresses its rows."""
    if branch is None:
        return TABLE, TABLE.c.id
    columns: Any = (column("ctid"), column("id", Uuid()), column("expires_at", UTCDateTime()))
    rows = table(branch.name, *columns, schema=branch.schema)
    return rows, rows.c.ctid


def only(statement: Any, rows: Any, branch: Branch | None) -> Any:
    """Restrict a statement to the branch, because its descendants are separate branches."""
    if branch is None:
        return statement
    if isinstance(statement, Delete):
        return statement.with_hint("ONLY", rows, "postgresql")
    return statement.with_hint(rows, "ONLY", "postgresql")


def expired_batch(branch: Branch | None, *, exact: bool) -> Select[*tuple[Any, ...]]:
    """Return the statement that selects and locks a batch of rows.

    It selects the `address` of each row, the `moment` that orders the rows, and with `exact` the
    `id`.
    """
    # SQLite has no SKIP LOCKED, and SQLAlchemy omits it there. It is not needed, as only one
    # connection writes at a time.
    return _expired(branch, exact=exact).with_for_update(skip_locked=True)


def _expired(branch: Branch | None, *, exact: bool) -> Select[*tuple[Any, ...]]:
    rows, address = rows_of(branch)
    expires_at, id_ = rows.c.expires_at, rows.c.id
    low = bindparam("low_moment", type_=UTCDateTime)
    columns: list[Any] = [address.label("address"), expires_at.label("moment")] + (
        [id_] if exact else []
    )
    found: Select[*tuple[Any, ...]] = (
        only(select(*columns), rows, branch)
        # Without the place, each batch would scan the dead index entries that earlier ones left.
        .where(expires_at <= bindparam("cutoff"), expires_at >= low)
        .order_by(expires_at)
        .limit(bindparam("batch_size"))
    )
    if exact:
        low_id = bindparam("low_id", type_=Uuid)
        found = found.where(tuple_(expires_at, id_) > tuple_(low, low_id)).order_by(id_)
    if branch is not None and branch.parent is not None:
        found = found.where(_is_attached(branch, branch.parent))
    return found


def _is_attached(branch: Branch, parent: int) -> ColumnElement[bool]:
    """Return the condition that a branch is still attached.

    A detached partition belongs to the app.
    """
    inherits = table("pg_inherits", column("inhrelid"), column("inhparent"), schema="pg_catalog")
    return exists(
        select(literal_column("1")).where(
            inherits.c.inhrelid == literal_column(f"CAST({branch.oid:d} AS oid)"),
            inherits.c.inhparent == literal_column(f"CAST({parent:d} AS oid)"),
        )
    )


def found_in(batch: CTE, *, exact: bool) -> Select[*tuple[Any, ...]]:
    """Return the statement that counts the rows of a batch and selects the place of the last."""
    last: list[ColumnElement[Any]] = [func.max(batch.c.moment)]
    if exact:
        order = (batch.c.moment.desc(), batch.c.id.desc())
        last_id = select(batch.c.id).order_by(*order).limit(literal_column("1"))
        last.append(last_id.scalar_subquery())
    return select(func.count().label("found"), *last).select_from(batch)
