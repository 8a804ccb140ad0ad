"""The partitions of the history table, as PostgreSQL's catalogs describe them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, String, bindparam, text

from jobhistory.database.revision import quoted_table


@dataclass(frozen=True)
class Leaf:
    """A partition that holds rows.

    Attributes:
        lower: the first id that belongs into it; `None` is MINVALUE.
        upper: the first id after it; `None` is MAXVALUE.
    """

    schema: str
    name: str
    oid: int
    lower: UUID | None
    upper: UUID | None


@dataclass(frozen=True)
class Layout:
    """The history table and its partitions.

    Attributes:
        leaves: the partitions in the order of their bounds, without those that are pending.
        pending: the partitions whose `DETACH CONCURRENTLY` was interrupted. Their rows exist, but
            no query of the history table finds them.
        is_owner: whether the role owns the table and all its partitions. It may be a member of the
            role that does.
        has_incoming_keys: whether foreign keys refer to the history table. A partition cannot be
            detached while they refer to its rows.
    """

    schema: str
    name: str
    oid: int
    leaves: tuple[Leaf, ...]
    pending: tuple[Leaf, ...]
    is_owner: bool
    has_incoming_keys: bool

    def before(self, leaf: Leaf) -> Leaf | None:
        """Return the partition whose range ends where that of another one begins."""
        return next((each for each in self.leaves if leaf.lower and each.upper == leaf.lower), None)


# PostgreSQL 13 has no column inhdetachpending, and a row in JSON has no member of that name then.
_LAYOUT = text("""
WITH parent AS (
    SELECT pg_class.oid, nspname, relname, relowner
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_class.oid = to_regclass(:name)
        AND relkind = 'p' AND pg_get_partkeydef(pg_class.oid) = 'RANGE (id)'
)
SELECT
    CAST(parent.oid AS bigint) AS parent_oid,
    parent.nspname AS parent_schema,
    parent.relname AS parent_name,
    pg_has_role(parent.relowner, 'USAGE')
        AND coalesce(pg_has_role(leaf.relowner, 'USAGE'), true) AS is_owner,
    EXISTS (
        SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = parent.oid
    ) AS has_incoming_keys,
    CAST(leaf.oid AS bigint) AS oid,
    home.nspname AS schema,
    leaf.relname AS name,
    leaf.relkind = 'r' AS is_table,
    pg_get_expr(leaf.relpartbound, leaf.oid) AS bound,
    coalesce(CAST(to_jsonb(link) ->> 'inhdetachpending' AS boolean), false) AS is_pending
FROM parent
    LEFT JOIN pg_inherits link ON link.inhparent = parent.oid
    LEFT JOIN pg_class leaf ON leaf.oid = link.inhrelid
    LEFT JOIN pg_namespace home ON home.oid = leaf.relnamespace
""").bindparams(bindparam("name", type_=String))

_BOUND = re.compile(
    r"FOR VALUES FROM \((?:MINVALUE|'(?P<lower>[^']+)')\) TO \((?:MAXVALUE|'(?P<upper>[^']+)')\)"
)


def read_layout(connection: Connection, schema: str | None) -> Layout | None:
    """Return the partitions of the history table.

    Returns:
        `None` if the table is not partitioned by RANGE (id), or if it has a DEFAULT partition or
        one that is not an ordinary table.
    """
    if connection.dialect.name != "postgresql":
        return None
    rows = connection.execute(_LAYOUT, {"name": quoted_table(connection, schema)}).all()
    if not rows:
        return None
    # A partition without a bound has been detached since the query began.
    found = [row for row in rows if row.bound is not None]
    leaves = [(_leaf(row), row.is_pending) for row in found]
    if any(leaf is None for leaf, _ in leaves):
        return None
    first = rows[0]
    return Layout(
        schema=first.parent_schema,
        name=first.parent_name,
        oid=first.parent_oid,
        leaves=_in_order([leaf for leaf, is_pending in leaves if leaf and not is_pending]),
        pending=_in_order([leaf for leaf, is_pending in leaves if leaf and is_pending]),
        is_owner=all(row.is_owner for row in rows),
        has_incoming_keys=first.has_incoming_keys,
    )


def _leaf(row: Any) -> Leaf | None:
    bound = _BOUND.fullmatch(row.bound)
    if bound is None or not row.is_table:
        return None
    lower, upper = (None if each is None else UUID(each) for each in bound.group("lower", "upper"))
    return Leaf(row.schema, row.name, row.oid, lower, upper)


def _in_order(leaves: Sequence[Leaf]) -> tuple[Leaf, ...]:
    return tuple(
        sorted(leaves, key=lambda leaf: (leaf.lower is not None, leaf.lower and leaf.lower.int))
    )
