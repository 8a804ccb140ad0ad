"""The SQL that reads the rows of a batch for an archive, and deletes them unless they have changed.

On PostgreSQL, a row is the one that was read if its version, `xmin`, is one of those that were. No
later version of any row has one of these, because its transaction had not committed then.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import (
    Select,
    String,
    any_,
    bindparam,
    cast,
    delete,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.types import UserDefinedType

from jobhistory.database.archived_rows import ArchivedColumn, Kind
from jobhistory.database.statements.expire import Branch, found_in, only, rows_of
from jobhistory.schema import UTCDateTime


class _Array(UserDefinedType[Any]):
    """An array of addresses."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **options: Any) -> str:
        return self.name


_VERSION: Any = literal_column("xmin")


def find_rows(batch: Select[*tuple[Any, ...]], *, exact: bool) -> Select[*tuple[Any, ...]]:
    """Return the statement that locks the rows of a batch on PostgreSQL.

    It selects their number, the place of the last, their addresses as the text of an array, and
    their versions, separated by commas.
    """
    found = batch.add_columns(cast(_VERSION, String).label("version")).cte("archived_batch")
    versions = select(found.c.version).distinct().subquery()
    return found_in(found, exact=exact).add_columns(
        cast(func.array_agg(found.c.address, type_=_Array("")), String).label("addresses"),
        select(func.string_agg(versions.c.version, literal_column("','")))
        .scalar_subquery()
        .label("versions"),
    )


@lru_cache(maxsize=64)
def delete_unchanged(branch: Branch | None) -> Select[*tuple[Any, ...]]:
    """Return the statement that deletes the rows at some addresses on PostgreSQL.

    It selects the number of rows deleted, the most recent start, and the number of those whose
    version is one of some. It skips rows that another session has locked.
    """
    rows, address = rows_of(branch)
    array = _Array("uuid[]" if branch is None else "tid[]")
    wanted = address == any_(cast(bindparam("addresses", type_=String), array))
    free = only(select(address), rows, branch).where(wanted).with_for_update(skip_locked=True)
    is_free = address == any_(func.array(free.scalar_subquery()))
    started_at = literal_column("started_at", UTCDateTime).label("started_at")
    version = cast(_VERSION, String).label("version")
    deleted = only(delete(rows), rows, branch).where(is_free).returning(started_at, version)
    gone = deleted.cte("deleted")
    read = func.string_to_array(bindparam("versions", type_=String), literal_column("','"))
    is_read = gone.c.version.in_(select(func.unnest(read)))
    unchanged = func.count().filter(is_read)
    return select(func.count(), func.max(gone.c.started_at), unchanged).select_from(gone)


def selected(columns: tuple[ArchivedColumn, ...], dialect: str, quote: Any) -> str:
    """Return the expressions that select columns as an archive reads them, for SQL.

    Ids are hexadecimal texts, and times are in UTC.

    Args:
        quote: the function that quotes a name.
    """
    forms = _POSTGRESQL if dialect == "postgresql" else _SQLITE
    return ", ".join(forms.get(each.kind, "{}").format(quote(each.name)) for each in columns)


_POSTGRESQL = {
    Kind.UUID: "encode(uuid_send({}), 'hex')",
    Kind.TIME: "{} AT TIME ZONE 'UTC'",
    Kind.JSON: "CAST({} AS text)",
    Kind.OTHER: "CAST({} AS text)",
}
_SQLITE = {
    Kind.OTHER: "CASE typeof({0}) WHEN 'blob' THEN hex({0}) ELSE CAST({0} AS TEXT) END",
}

ISO_DATES = text("SELECT set_config('datestyle', 'ISO', true)")
"""PostgreSQL: times are written in ISO 8601 until the end of the transaction."""

DURABLE = text("""
SELECT set_config('synchronous_commit', 'on', true)
WHERE current_setting('synchronous_commit') = 'off'
""")
"""PostgreSQL: this transaction survives a crash of the server once it is committed."""
