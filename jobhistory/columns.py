"""Column types that mean the same on every database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TypeDecorator


class _JSONText(sqlite.JSON):
    """JSON in a TEXT column: in one that is declared JSON, SQLite turns a lone number into its own.

    That would lose the last digits of a large one.
    """


@compiles(_JSONText, "sqlite")
def _declare_json_text(type_: _JSONText, compiler: Any, **options: Any) -> str:
    return "TEXT"


# SQL NULL where there is nothing: a JSON null would be a value, and would fill partial indexes.
PortableJSON = (
    JSON(none_as_null=True)
    .with_variant(JSONB(none_as_null=True), "postgresql")
    .with_variant(_JSONText(none_as_null=True), "sqlite")
)
"""JSON text on SQLite, `JSONB` on PostgreSQL; Python's `None` is SQL's NULL on both."""


class UTCDateTime(TypeDecorator[datetime]):
    """An aware moment, returned in UTC to the microsecond; a naive one is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware moment into what the driver takes."""
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError(f"a naive datetime cannot be stored: {value!r}")
        # SQLite keeps text without an offset, so the offset must be UTC's before it is dropped.
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn what the driver returned into an aware moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
