"""Comparison of the tables in a database with the model."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Dialect, MetaData, inspect, text
from sqlalchemy.exc import SAWarning
from sqlalchemy.sql.schema import RETAIN_SCHEMA

from jobhistory.database.layout import distributed_by
from jobhistory.database.running_index import INDEX_NAME
from jobhistory.execution.status import Status
from jobhistory.rollup_schema import ENDED, TRIGGERS
from jobhistory.schema import RUNNING_ON_SQLITE, TABLE_NAME, Base

_STATUS_CHECK = "ck_job_history_status"

_ALL_TABLES = tuple(Base.metadata.tables)

_TRIGGERS = {
    "postgresql": "SELECT tgname, CASE"
    " WHEN tgenabled NOT IN ('O', 'A') THEN 'is disabled'"  # 'R' fires only on a replica
    " WHEN strpos(prosrc, ' INTO ' || quote_ident(nspname) || '.') = 0"
    " THEN 'writes to another schema' END"
    " FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
    " JOIN pg_namespace ON pg_namespace.oid = relnamespace"
    " JOIN pg_proc ON pg_proc.oid = tgfoid"
    " WHERE NOT tgisinternal AND relname = :table AND nspname = :schema ORDER BY tgname",
    "sqlite": "SELECT name, NULL FROM {schema}.sqlite_master"
    " WHERE type = 'trigger' AND tbl_name = :table ORDER BY name",
}


class Comparison(NamedTuple):
    """The result of comparing the tables with the model.

    Attributes:
        differences: the parts of the model that are missing or defined differently.
        additions: the parts of the tables that are not in the model, such as an app's index.
    """

    differences: tuple[str, ...]
    additions: tuple[str, ...]


def compare(
    connection: Connection, schema: str | None, *, tables: Collection[str] = _ALL_TABLES
) -> Comparison:
    """Compare some of the tables with the model. Reads only the catalogs.

    The history table must exist. The triggers on it are compared if the tables of
    statistics are, and if Citus does not distribute it, which is an addition: its triggers are
    dropped then.
    """
    differences: list[str] = []
    additions: list[str] = []
    with warnings.catch_warnings():
        # The app's columns and indexes may be of kinds that SQLAlchemy cannot reflect.
        warnings.simplefilter("ignore", SAWarning)
        found = _found_by_alembic(connection, schema, tables)
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
    wanted = TRIGGERS[connection.dialect.name] if ENDED.name in tables else ()
    if (column := distributed_by(connection, schema)) is not None:
        wanted = ()
        additions.append(f"distribution by {column}, without triggers: statistics read rows")
    _compare_triggers(connection, schema, wanted, differences, additions)
    return Comparison(tuple(differences), tuple(additions))


def comparison_options(
    connection: Connection, schema: str | None, tables: Collection[str] = _ALL_TABLES
) -> dict[str, Any]:
    """Return Alembic's options for comparing the library's tables and nothing else."""
    own_schema = None if schema == connection.dialect.default_schema_name else schema

    def include_name(name: str | None, type_: str, parents: Any) -> bool:
        if type_ == "schema":
            return name == own_schema
        if type_ == "index":  # only a migration knows whether the server may have this one
            return name != INDEX_NAME
        return type_ != "table" or name in tables

    target = MetaData(naming_convention=Base.metadata.naming_convention)
    for name in tables:
        table = Base.metadata.tables[name]
        copied = table.to_metadata(target, schema=own_schema or RETAIN_SCHEMA)
        if connection.dialect.name != "sqlite":
            copied.indexes -= {each for each in copied.indexes if each.name == RUNNING_ON_SQLITE}
    return {"target_metadata": target, "include_schemas": True, "include_name": include_name}


def _found_by_alembic(
    connection: Connection, schema: str | None, tables: Collection[str]
) -> list[tuple[str, Any]]:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    options = comparison_options(connection, schema, tables)
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
    kind, _, table, name, _, found, wanted = modification
    column = _of_table(name, table)
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
    what = kind.partition("_")[2]
    if what == "column":
        return f"column {_of_table(item.name, item.table.name)}"
    return f"{what if what in ('table', 'index') else 'constraint'} {_name(item)}"


def _of_table(column: str, table: str) -> str:
    return column if table == TABLE_NAME else f"{table}.{column}"


def _name(item: Any) -> str:
    # On SQLite, unique constraints may be unnamed.
    return item.name or f"({', '.join(item.columns.keys())})"


def _compare_triggers(
    connection: Connection,
    schema: str | None,
    wanted: Collection[str],
    differences: list[str],
    additions: list[str],
) -> None:
    dialect = connection.dialect
    own_schema = schema or dialect.default_schema_name or ""
    quoted = dialect.identifier_preparer.quote(own_schema)
    statement = text(_TRIGGERS[dialect.name].format(schema=quoted))
    parameters = {"table": TABLE_NAME}
    if dialect.name == "postgresql":
        parameters["schema"] = own_schema
    found = {row[0]: row[1] for row in connection.execute(statement, parameters)}
    for name in wanted:
        damage = found.get(name, "is missing")
        if damage is not None:
            differences.append(f"trigger {name} {damage}")
    ours = TRIGGERS[dialect.name]
    additions += [f"trigger {name}" for name in found if name not in ours]
