"""SQL as text, with its values, for people to read and to run elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import Dialect
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.base import PGCompiler
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler

from jobhistory.database.binds import READING, engine_of
from jobhistory.database.functions import FINGERPRINT
from jobhistory.database.statements.pages import count_of, records_of
from jobhistory.database.statements.read import WITH_ID
from jobhistory.database.statements.reports import failures_of, stats_of, workers_of
from jobhistory.query.criteria import HistoryQuery
from jobhistory.query.cursor import Cursor
from jobhistory.query.reports import Count, FailureGroup, TaskStats, WorkerActivity
from jobhistory.schema import HistoryRecord

_FROM_ROWS = (
    "-- This reads rows. jobhistory reads its statistics where it can, which takes less time.\n"
)


class _Written(SQLCompiler):
    def render_literal_bindparam(
        self, bindparam: Any, *arguments: Any, given: Any = None, **options: Any
    ) -> str:
        # SQLAlchemy 2.0 does not set the parameters within functions of our own.
        if given and bindparam.value is None and bindparam.key in given:
            options["render_literal_value"] = given[bindparam.key]
        write: Any = super().render_literal_bindparam
        return str(write(bindparam, *arguments, **options))


class _PostgreSQL(_Written, PGCompiler):
    def render_literal_value(self, value: Any, type_: Any) -> str:
        if isinstance(value, str) and (not _is_plain(value) or "\\" in value):
            # What a backslash means in a plain literal is a setting. Here it is not.
            return f"E'{''.join(map(_escaped, value))}'"
        literal: str = super().render_literal_value(value, type_)  # type: ignore[no-untyped-call]
        return literal


class _SQLite(_Written, SQLiteCompiler):
    def render_literal_value(self, value: Any, type_: Any) -> str:
        if isinstance(value, str) and not _is_plain(value):
            quote = super().render_literal_value
            parts = (
                quote("".join(chars), type_)
                if is_plain
                else " || ".join(f"char({ord(char)})" for char in chars)
                for is_plain, chars in groupby(value, _is_plain_char)
            )
            return f"({' || '.join(parts)})"
        return super().render_literal_value(value, type_)


def _is_plain(text: str) -> bool:
    # In SQL, SQLAlchemy writes a schema in place of a text that begins with "__[".
    return text.isprintable() and "__[" not in text


def _is_plain_char(char: str) -> bool:
    return char.isprintable() and char != "["


def _escaped(char: str) -> str:
    if char == "'":
        return "''"
    if char == "\\":
        return "\\\\"
    return char if _is_plain_char(char) else f"\\U{ord(char):08x}"


_DIALECTS: dict[str, Dialect] = {
    # With named parameters, because for others SQLAlchemy doubles each percent sign.
    "postgresql": postgresql.dialect(paramstyle="named"),  # type: ignore[no-untyped-call]
    "sqlite": sqlite.dialect(paramstyle="named"),
}
_DIALECTS["postgresql"].statement_compiler = _PostgreSQL
_DIALECTS["sqlite"].statement_compiler = _SQLite


class WrittenSql:
    """A history that answers nothing, and keeps the SQL that would as text.

    A store on it writes the SQL of its methods.

    Args:
        dialect: the name of the database's dialect.
        schema: the schema that holds the table; `None` for the connection's default.

    Attributes:
        text: the SQL of the last question; `None` if it only works on connections of the library.
    """

    def __init__(self, dialect: str, schema: str | None) -> None:
        self.text: str | None = None
        self._dialect = dialect
        self._schema = schema

    def get(self, id_: UUID) -> HistoryRecord | None:
        """Write the SQL for the record with an id."""
        self._write(WITH_ID, {"key_id": id_})
        return None

    def find(self, query: HistoryQuery, after: Cursor | None = None) -> list[HistoryRecord]:
        """Write the SQL for the records that match the criteria."""
        self._write(*records_of(query, after))
        return []

    def count(self, query: HistoryQuery, cap: int | None, now: datetime | None = None) -> Count:
        """Write the SQL for the number of rows that match the criteria, up to a cap."""
        self._write(*count_of(query, cap), comment="" if now is None else _FROM_ROWS)
        return Count(0)

    def stats(
        self, query: HistoryQuery, bucket: timedelta | None, now: datetime | None = None
    ) -> list[TaskStats]:
        """Write the SQL for the statistics of each task, from rows."""
        comment = "" if now is None else _FROM_ROWS
        self._write(stats_of(query, bucket, self._dialect), comment=comment)
        return []

    def failure_groups(
        self, query: HistoryQuery, known_for: timedelta | None = None
    ) -> list[FailureGroup]:
        """Write the SQL for the groups of failures."""
        self._write(failures_of(query, known_for))
        return []

    def workers(self, query: HistoryQuery) -> list[WorkerActivity]:
        """Write the SQL for what each worker did."""
        self._write(workers_of(query, self._dialect))
        return []

    def _write(
        self, statement: Any, parameters: dict[str, Any] | None = None, comment: str = ""
    ) -> None:
        schema: dict[str, Any] = {}
        if self._schema is not None:
            schema["schema_translate_map"] = {None: self._schema}
            schema["render_schema_translate"] = True
        given = parameters or {}
        compiled = statement.params(given).compile(
            dialect=_DIALECTS[self._dialect],
            compile_kwargs={"literal_binds": True, "given": given},
            **schema,
        )
        is_portable = FINGERPRINT not in compiled.string
        self.text = f"{comment}{compiled.string};" if is_portable else None


def dialect_of(session_factory: Callable[[], Session] | None) -> str | None:
    """Return the name of the dialect of a store's database; `None` for a store in memory."""
    if session_factory is None:
        return None
    engine = engine_of(session_factory)
    if engine is not None:
        return engine.dialect.name
    with session_factory() as session:
        return session.get_bind(**READING).dialect.name
