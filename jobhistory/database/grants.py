"""The privileges of a role on the tables other than the history, and those that it lacks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, cast, func, select
from sqlalchemy.dialects.postgresql import REGCLASS

from jobhistory.archive_schema import ARCHIVE_TABLES
from jobhistory.database.revision import quoted_table
from jobhistory.expectation_schema import EXPECTATION_TABLES
from jobhistory.rollup_schema import ROLLUP_TABLES
from jobhistory.schema import TABLE_NAME

_TABLES = (*ROLLUP_TABLES, *EXPECTATION_TABLES, *ARCHIVE_TABLES)
_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")


def missing_grants(connection: Connection, schema: str | None) -> tuple[str, ...]:
    """Return the statements that let this role use the other tables; without semicolons.

    None if the role may not write history, or if row-level security limits it: statistics count
    what all roles wrote. The tables must exist.
    """
    if connection.dialect.name != "postgresql":
        return ()
    history = quoted_table(connection, schema)
    home = history.removesuffix(TABLE_NAME)
    answer = connection.execute(
        select(
            func.has_table_privilege(cast(history, REGCLASS), "INSERT, UPDATE"),
            func.row_security_active(cast(history, REGCLASS)),
            func.quote_ident(func.current_user()),
            *(
                func.has_table_privilege(cast(home + table.name, REGCLASS), privilege)
                for table in _TABLES
                for privilege in _PRIVILEGES
            ),
        )
    ).one()
    may_write, is_limited, role, *granted = tuple[Any, ...](answer)
    if is_limited or not may_write:
        return ()
    held = iter(granted)
    lacking = {
        home + table.name: [privilege for privilege in _PRIVILEGES if not next(held)]
        for table in _TABLES
    }
    return tuple(
        f"GRANT {', '.join(privileges)} ON {table} TO {role}"
        for table, privileges in lacking.items()
        if privileges
    )
