"""Statements that psycopg prepares and executes itself, because SQLAlchemy takes twice as long.

SQLAlchemy compiles each of them once, its pool provides the connection, and errors are its own. Its
events on statements do not occur, so only engines of the library run statements like this.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Connection, Dialect, Engine, Enum

from jobhistory.database.driver_errors import as_sqlalchemy_errors
from jobhistory.database.driver_values import for_driver
from jobhistory.schema import COLUMNS, JSON_COLUMNS, HistoryRecord, UTCDateTime, loaded_record

Row = dict[str, Any]


class _Prepared(NamedTuple):
    text: str
    constants: Row
    json_names: list[str]


class PreparedStatements:
    """The prepared statements of one engine and schema. Thread-safe.

    An engine qualifies if its driver is psycopg, for threads, and each of its statements is a
    transaction.
    """

    _log = logging.getLogger("sqlalchemy.engine.Engine")

    def __init__(self, dialect: Dialect, schema: str | None) -> None:
        self._dialect = dialect
        self._schema = schema
        self._statements: dict[Any, _Prepared] = {}
        # psycopg reads the values of the other types.
        self._readers: dict[str, Callable[[Any], Any]] = {
            column.key: read
            for column in COLUMNS
            if isinstance(column.type, (Enum, UTCDateTime))
            and (read := column.type.dialect_impl(dialect).result_processor(dialect, None))
        }
        self._names = [column.key for column in COLUMNS]

    @classmethod
    def of(cls, engine: Engine, schema: str | None) -> PreparedStatements | None:
        """Return the prepared statements of an engine of the library, if it qualifies."""
        dialect = engine.dialect
        is_suitable = dialect.driver == "psycopg" and not dialect.is_async
        return cls(dialect, schema) if is_suitable else None

    @property
    def are_usable(self) -> bool:
        """Whether psycopg may execute statements. Only SQLAlchemy writes them to its log."""
        return not self._log.isEnabledFor(logging.INFO)

    def write(self, connection: Connection, statement: Any, parameters: Row) -> int:
        """Execute a statement that writes rows, and return their number."""
        count: int = self._execute(connection, statement, parameters).rowcount
        return count

    def returned(
        self, connection: Connection, statement: Any, parameters: Row
    ) -> HistoryRecord | None:
        """Execute a statement that returns at most one row, with all columns; return its record."""
        found = self._execute(connection, statement, parameters).fetchone()
        if found is None:
            return None
        row = dict(zip(self._names, found, strict=True))
        for name, read in self._readers.items():
            row[name] = read(row[name])
        return loaded_record(row.items())

    def _execute(self, connection: Connection, statement: Any, parameters: Row) -> Any:
        key = (statement, *parameters)
        prepared = self._statements.get(key) or self._prepare(key, statement, parameters)
        values = parameters | prepared.constants
        for name in prepared.json_names:
            values[name] = for_driver(values[name])
        driver: Any = connection.connection.driver_connection
        with as_sqlalchemy_errors(connection, prepared.text):
            return driver.execute(prepared.text, values, prepare=True)

    def _prepare(self, key: object, statement: Any, parameters: Row) -> _Prepared:
        options: dict[str, Any] = {}
        if self._schema is not None:
            translate_map = {None: self._schema}
            options = {"schema_translate_map": translate_map, "render_schema_translate": True}
        compiled = statement.compile(dialect=self._dialect, column_keys=list(parameters), **options)
        constants = {
            name: value for name, value in compiled.params.items() if name not in parameters
        }
        names = [name for name in parameters if name in JSON_COLUMNS]
        self._statements[key] = _Prepared(str(compiled), constants, names)
        return self._statements[key]
