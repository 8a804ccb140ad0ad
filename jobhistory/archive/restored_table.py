"""The table into which archived executions are restored."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    Column,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    bindparam,
    column,
    inspect,
    select,
    table,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from jobhistory.archive.app_columns import AppType, types_of
from jobhistory.archive_schema import RESTORED_NAME
from jobhistory.database.csv_copy import DRIVERS, copy_csv
from jobhistory.database.partitions.sql import identifier
from jobhistory.database.running_index import escaped
from jobhistory.database.transaction import Transaction
from jobhistory.errors import InvalidInput
from jobhistory.sanitize.json_text import JsonText
from jobhistory.schema import COLUMN_NAMES, COLUMNS, JSON_COLUMNS, TABLE_NAME, Base

if TYPE_CHECKING:
    import pyarrow as pa

_COPIED = f"{TABLE_NAME}_copied"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")  # leaves room for the name of the index
_COUNTED = {"preserve_rowcount": True}
_WHY_NOT = (
    "would count its executions in the statistics once more, and expire would remove them again; "
    f"restore into a table of its own, such as {RESTORED_NAME!r}"
)
_IS_PART = text("""
SELECT EXISTS (
    SELECT FROM pg_inherits
    WHERE inhrelid = to_regclass(:name) AND inhparent = to_regclass(:history)
)
""").bindparams(bindparam("name", type_=String), bindparam("history", type_=String))


class RestoredTable:
    """A table with the columns of the history, a primary key, and an index by start.

    It has no triggers, so its rows do not count in statistics, and nothing expires them.

    Args:
        name: its name, in the schema of the history.

    Raises:
        InvalidInput: if the name cannot be used, or is that of a table of the library.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidInput(
                "into", name, f"is not the name of a table; write it like {RESTORED_NAME!r}"
            )
        if name.lower() in Base.metadata.tables:
            raise InvalidInput("into", name, _why_not(name))
        self._name = name
        self._table = _table(name, {})

    def create(self, transaction: Transaction) -> None:
        """Create the table if there is none, with the columns that the app has added to history.

        Raises:
            InvalidInput: if there is one that lacks a column of the history, or a unique key, or
                that is a part of the history.
        """
        if _is_part_of_history(transaction, self._name):
            raise InvalidInput("into", self._name, f"is a part of {TABLE_NAME} and {_WHY_NOT}")
        found = inspect(transaction.connection)
        exists = found.has_table(self._name, schema=transaction.schema)
        types = types_of(transaction, self._name if exists else TABLE_NAME)
        if missing := [name for name in COLUMN_NAMES if name not in types]:
            remedy = f"is a table without the column {missing[0]!r} of the history; name another"
            raise InvalidInput("into", self._name, remedy)
        if exists and not _is_unique(found, self._name, transaction.schema):
            remedy = (
                "is a table without a primary key or unique index on id alone, so executions "
                "could be there twice; add one, or name a table that does not exist"
            )
            raise InvalidInput("into", self._name, remedy)
        added = {name: AppType(type_) for name, type_ in types.items() if name not in COLUMN_NAMES}
        self._table = _table(self._name, added)
        if not exists:
            transaction.execute(CreateTable(self._table))
            for index in self._table.indexes:
                transaction.execute(CreateIndex(index))

    def insert(self, transaction: Transaction, rows: pa.RecordBatch) -> int:
        """Insert the rows whose ids are not there yet, and return their number.

        Columns that the rows lack become NULL. Those that the table lacks are left out.

        Raises:
            InvalidInput: if PostgreSQL's driver cannot do it.
        """
        rows = rows.select([name for name in rows.schema.names if name in self._table.c])
        if transaction.dialect == "sqlite":
            values = [_values(row) for row in rows.to_pylist()]
            insert: Any = sqlite.insert(self._table).on_conflict_do_nothing()
            return _count(transaction.execute(insert, values, **_COUNTED))
        return self._copy(transaction, rows)

    def _copy(self, transaction: Transaction, rows: pa.RecordBatch) -> int:
        """Insert rows by COPY, which reads values of any type, but cannot skip ids."""
        from jobhistory.archive.csv_text import csv_of  # which needs pyarrow

        connection = transaction.connection
        if connection.dialect.driver not in DRIVERS:
            remedy = f"cannot restore an archive; use one of {', '.join(sorted(DRIVERS))}"
            raise InvalidInput("driver", connection.dialect.driver, remedy)
        names = rows.schema.names
        schema = () if transaction.schema is None else (transaction.schema,)
        selected, target = ", ".join(map(identifier, names)), identifier(*schema, self._name)
        create = (  # the names are quoted
            f"CREATE TEMPORARY TABLE {_COPIED} ON COMMIT DROP AS "  # noqa: S608
            f"SELECT {selected} FROM {target} WITH NO DATA"
        )
        transaction.execute(text(escaped(create)))
        copied = table(_COPIED, *(column(name) for name in names), schema="pg_temp")
        copy_csv(connection, _COPIED, csv_of(rows))
        insert = postgresql.insert(self._table).from_select(names, select(copied))
        return _count(transaction.execute(insert.on_conflict_do_nothing(), **_COUNTED))


def _table(name: str, added: dict[str, Any]) -> Table:
    """Return a table with the columns of the history, and others, of which it has the types."""
    columns = [Column(each.name, each.type, nullable=each.nullable) for each in COLUMNS]
    others = [Column(other, type_) for other, type_ in added.items()]
    restored = Table(name, MetaData(), *columns, *others, PrimaryKeyConstraint("id"))
    Index(f"ix_{name}_started_at", restored.c.started_at, restored.c.id)
    return restored


def _is_unique(found: Any, name: str, schema: str | None) -> bool:
    """Return whether no two rows of a table can have the same id."""
    keys = [found.get_pk_constraint(name, schema)["constrained_columns"]]
    keys += [each["column_names"] for each in found.get_unique_constraints(name, schema)]
    for index in found.get_indexes(name, schema):
        options = index.get("dialect_options", {})
        is_partial = any(option.endswith("_where") for option in options)
        if index["unique"] and not is_partial:
            keys.append(index["column_names"])
    return ["id"] in keys


def _is_part_of_history(transaction: Transaction, name: str) -> bool:
    """Return whether a table is a partition of the history, or inherits from it."""
    if transaction.dialect != "postgresql":
        return False
    schema = () if transaction.schema is None else (transaction.schema,)
    names = {"name": identifier(*schema, name), "history": identifier(*schema, TABLE_NAME)}
    found: bool = transaction.execute(_IS_PART, names).scalar_one()
    return found


def _why_not(name: str) -> str:
    if name.lower() == TABLE_NAME:
        return _WHY_NOT
    return f"is a table of the library; restore into another, such as {RESTORED_NAME!r}"


def _count(inserted: Any) -> int:
    count: int = inserted.rowcount
    return count


def _values(row: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a row as a transaction takes them."""
    for name, value in row.items():
        if value is None:
            continue
        if name in JSON_COLUMNS:
            row[name] = JsonText(value)
        elif name in ("id", "parent_id"):
            row[name] = UUID(bytes=value)
    return row
