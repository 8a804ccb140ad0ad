"""Rows on their way to an archive: their columns, and their values as the database gives them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Connection,
    Float,
    Integer,
    String,
    Uuid,
    inspect,
)
from sqlalchemy.types import TypeEngine

from jobhistory.database.transaction import Transaction
from jobhistory.schema import COLUMNS, JSON_COLUMNS, TABLE_NAME, PlainUuid, UTCDateTime


class Kind(Enum):
    """The kind of the values of a column, which decides its type in an archive."""

    UUID = "uuid"
    TIME = "time"
    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    JSON = "json"
    TEXT = "text"
    OTHER = "other"
    """A type of the app's, whose values are archived as the database writes them.

    So are times: those of PostgreSQL may be infinite, or in a year that Arrow cannot write.
    """


@dataclass(frozen=True)
class ArchivedColumn:
    """A column of the history table."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class RawRows:
    """Rows as the database gives them.

    Attributes:
        columns: the columns, in the order of the values.
        csv: the rows as CSV, in which nothing stands for NULL, and `""` for an empty text; `None`
            if `values` has them.
        values: the values of each row.
    """

    columns: tuple[ArchivedColumn, ...]
    csv: bytes | None = None
    values: Sequence[Sequence[Any]] = ()


_KINDS: tuple[tuple[type[TypeEngine[Any]], Kind], ...] = (
    (BigInteger, Kind.INTEGER),
    (Integer, Kind.INTEGER),
    (Float, Kind.FLOAT),
    (Boolean, Kind.BOOLEAN),
    (String, Kind.TEXT),
)
_ADDED_KINDS: tuple[tuple[type[TypeEngine[Any]], Kind], ...] = (
    *_KINDS,
    (Uuid, Kind.UUID),
    (JSON, Kind.JSON),
)
_OWN_KINDS = ((PlainUuid, Kind.UUID), (UTCDateTime, Kind.TIME), *_KINDS)


def _own_kind(name: str) -> Kind:
    type_ = COLUMNS[name].type
    if name in JSON_COLUMNS:
        return Kind.JSON
    return next((kind for class_, kind in _OWN_KINDS if isinstance(type_, class_)), Kind.TEXT)


OWN_COLUMNS = tuple(ArchivedColumn(column.name, _own_kind(column.name)) for column in COLUMNS)
"""The columns of the model."""

_OWN_NAMES = frozenset(column.name for column in OWN_COLUMNS)


def columns_of(
    transaction: Transaction, table: str = TABLE_NAME, schema: str | None = None
) -> tuple[ArchivedColumn, ...]:
    """Return the columns of a table: those of the model, and those that the app has added.

    Args:
        schema: that of the table; `None` means that of the history.
    """
    schema = transaction.schema if schema is None else schema
    found = inspect(transaction.connection).get_columns(table, schema=schema)
    added = [
        ArchivedColumn(column["name"], _added_kind(column["type"], transaction.connection))
        for column in found
        if column["name"] not in _OWN_NAMES
    ]
    return (*OWN_COLUMNS, *added)


def _added_kind(type_: TypeEngine[Any], connection: Connection) -> Kind:
    if connection.dialect.name != "postgresql":
        return Kind.OTHER  # a column of SQLite may hold values of any type
    return next((kind for class_, kind in _ADDED_KINDS if isinstance(type_, class_)), Kind.OTHER)
