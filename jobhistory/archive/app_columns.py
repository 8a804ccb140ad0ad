"""Columns that the app has added, whose values an archive has as text."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import text
from sqlalchemy.types import UserDefinedType

from jobhistory.database.partitions.sql import identifier
from jobhistory.database.transaction import Transaction

_GENERATED = re.compile(r"\s*GENERATED ALWAYS$", re.IGNORECASE)
_ON_POSTGRESQL = text("""
SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
""")
_ON_SQLITE = text("SELECT name, type FROM pragma_table_xinfo(:table) ORDER BY cid")


def types_of(transaction: Transaction, table: str) -> dict[str, str]:
    """Return the type of each column of a table in the schema of the history, as in SQL.

    SQLAlchemy does not know all of them, such as composite types.
    """
    if transaction.dialect == "sqlite":
        found = transaction.execute(_ON_SQLITE, {"table": table})
        return {name: _GENERATED.sub("", type_) for name, type_ in found}
    schema = () if transaction.schema is None else (transaction.schema,)
    found = transaction.execute(_ON_POSTGRESQL, {"table": identifier(*schema, table)})
    return {row[0]: row[1] for row in found}


class AppType(UserDefinedType[Any]):
    """A type of the app's. SQLite gets values as an archive has them, and stores bytes as such."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **options: Any) -> str:
        """Return the type as in SQL."""
        return self.name

    def bind_processor(self, dialect: Any) -> Any:
        """Return the conversion of values."""
        return _bytes_of if "BLOB" in self.name.upper() else None


def _bytes_of(value: Any) -> Any:
    """Return the bytes that hexadecimal digits stand for; other texts stay."""
    try:
        return bytes.fromhex(value) if isinstance(value, str) else value
    except ValueError:
        return value
