"""Comparison of the history table in a database with the model."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Dialect, MetaData, inspect, text
from sqlalchemy.exc import SAWarning
from sqlalchemy.sql.schema import RETAIN_SCHEMA

from jobhistory.database.running_index import INDEX_NAME
from jobhistory.execution.status import Status
from jobhistory.schema import TABLE_NAME, Base

_STATUS_CHECK = "ck_job_history_status"

_TRIGGERS = {
    "postgresql": "SELECT tgname FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
    " JOIN pg_namespace ON pg_namespace.oid = relnamespace"
    " WHERE NOT tgisinternal AND relname = :table AND nspname = :schema ORDER BY tgname",
    "sqlite": "SELECT name FROM {schema}.sqlite_master"
    " WHERE type = 'trigger' AND tbl_name = :table ORDER BY name",
}


class Comparison(NamedTuple):
    """The result of comparing the table with the model.

    Attributes:
        differences: the parts of the model that the table lacks or defines differently.
        additions: the parts of the table that are not in the model, such as an app's index.
    """

    differences: tuple[str, ...]
    additions: tuple[str, ...]


def compare(connection: Connection, schema: str | None) -> Comparison:
    """Compare the history table, which must exist, with the model. Reads only the catalogs."""
    differences: list[str] = []
    additions: list[str] = []
    with warnings.catch_warnings():
        # The app's columns and indexes may be of kinds that SQLAlchemy cannot reflect.
        warnings.simplefilter("ignore", SAWarning)
        found = _found_by_alembic(connection, schema)
        _compare_constraints(connection, schema, differences, additions)
        differences += _other_predicates(connection, schema)
    replaced = {_name(item) for kind, item in found if kind == "remove_index"}
    missing = {_name(item) for kind, item in found if kind == "add_index"}
    for kind, item in found:
        if kind == "modify":
            differences += _modifications(item, connection.dialect)
        elif kind.startswith("add_"):
            state = "differs" if kind == "add_index" and _name(item) in replaced else "is missing"
            differences.append(f"{_described(kind, item)} {state}")
        elif kind == "remove_column" and _refuses_rows(item):
            differences.append(f"column {item.name} is NOT NULL and has no default")
        elif not (kind == "remove_index" and _name(item) in missing):
            additions.append(_described(kind, item))
    additions += [f"trigger {name}" for name in _triggers(connection, schema)]
    return Comparison(tuple(differences), tuple(additions))


def comparison_options(connection: Connection, schema: str | None) -> dict[str, Any]:
    """Return Alembic's options for comparing the history table and nothing else."""
    own_schema = None if schema == connection.dialect.default_schema_name else schema

    def include_name(name: str | None, type_: str, parents: Any) -> bool:
        if type_ == "schema":
            return name == own_schema
        if type_ == "index":  # only a migration knows whether the server may have this one
            return name != INDEX_NAME
        return type_ != "table" or name == TABLE_NAME

    target = MetaData(naming_convention=Base.metadata.naming_convention)
    Base.metadata.tables[TABLE_NAME].to_metadata(target, schema=own_schema or RETAIN_SCHEMA)
    return {"target_metadata": target, "include_schemas": True, "include_name": include_name}


def _found_by_alembic(connection: Connection, schema: str | None) -> list[tuple[str, Any]]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    options = comparison_options(connection, schema)
    context = MigrationContext.configure(connection, opts=options)
    found: list[tuple[str, Any]] = []
    for difference in compare_metadata(context, options["target_metadata"]):
        if isinstance(difference, list):  # the modifications of one column
            found += [("modify", modification) for modification in difference]
        elif not difference[0].endswith("_comment"):
            found.append((difference[0], difference[-1]))
    return found


def _compare_constraints(
    connection: Connection, schema: str | None, differences: list[str], additions: list[str]
) -> None:
    """Compare the primary key and the CHECK constraints, which Alembic ignores."""
    inspector = inspect(connection)
    key = inspector.get_pk_constraint(TABLE_NAME, schema=schema)["constrained_columns"]
    if "id" not in key:  # the key of a partitioned table has more columns
        differences.append("the primary key is missing")
    checks = {
        check["name"]: check["sqltext"]
        for check in inspector.get_check_constraints(TABLE_NAME, schema=schema)
    }
    condition = checks.pop(_STATUS_CHECK, None)
    if condition is None:
        differences.append(f"constraint {_STATUS_CHECK} is missing")
    else:
        refused = [repr(s.value) for s in Status if f"'{s.value}'" not in condition]
        if refused:
            differences.append(f"constraint {_STATUS_CHECK} refuses {', '.join(refused)}")
    additions += [f"constraint {name or text}" for name, text in checks.items()]


def _other_predicates(connection: Connection, schema: str | None) -> Iterable[str]:
    """Compare the predicates of partial indexes, which Alembic ignores."""
    dialect = connection.dialect.name

    def condition(options: Any) -> str:
        where = options.get(f"{dialect}_where")
        # PostgreSQL adds parentheses.
        return "" if where is None else re.sub(r"[()\s]", "", str(where)).lower()

    found = {
        index["name"]: condition(index.get("dialect_options", {}))
        for index in inspect(connection).get_indexes(TABLE_NAME, schema=schema)
    }
    for index in Base.metadata.tables[TABLE_NAME].indexes:
        wanted = condition(index.dialect_kwargs)
        if found.get(index.name, wanted) != wanted:
            yield f"index {index.name} has another predicate"


def _modifications(modification: Any, dialect: Dialect) -> Iterable[str]:
    kind, _, _, column, _, found, wanted = modification
    if kind == "modify_nullable":
        yield f"column {column} is {'nullable' if found else 'NOT NULL'}"
    elif kind == "modify_type":
        yield (
            f"column {column} is {found.compile(dialect=dialect)} "
            f"instead of {wanted.compile(dialect=dialect)}"
        )
    elif kind != "modify_comment":
        yield f"column {column} differs"


def _refuses_rows(column: Column[Any]) -> bool:
    return not column.nullable and column.server_default is None and column.identity is None


def _described(kind: str, item: Any) -> str:
    what = {"column": "column", "index": "index"}.get(kind.partition("_")[2], "constraint")
    return f"{what} {_name(item)}"


def _name(item: Any) -> str:
    # On SQLite, unique constraints may be unnamed.
    return item.name or f"({', '.join(item.columns.keys())})"


def _triggers(connection: Connection, schema: str | None) -> Iterable[str]:
    dialect = connection.dialect
    own_schema = schema or dialect.default_schema_name or ""
    quoted = dialect.identifier_preparer.quote(own_schema)
    statement = text(_TRIGGERS[dialect.name].format(schema=quoted))
    parameters = {"table": TABLE_NAME}
    if dialect.name == "postgresql":
        parameters["schema"] = own_schema
    return connection.scalars(statement, parameters).all()
