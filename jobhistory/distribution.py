"""Distributing the history table over several servers, with the extension Citus of PostgreSQL.

The functions take an `Engine` or a `Connection`, as those of `jobhistory.migrate` do.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, Row, String, bindparam, text

from jobhistory import migrate
from jobhistory.database import exclusive
from jobhistory.database.layout import DISTRIBUTED_BY, read_layout
from jobhistory.database.revision import connected, quoted_table
from jobhistory.database.running_index import escaped
from jobhistory.errors import InvalidInput, JobHistoryError
from jobhistory.rollup_schema import TRIGGERS

_KEY = "pk_job_history"

_NAME = bindparam("name", type_=String)

_FOUND = text("""
SELECT
    EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') AS has_citus,
    EXISTS (
        SELECT FROM pg_inherits JOIN pg_class ON pg_class.oid = inhparent
        WHERE inhparent = history.oid AND relkind <> 'p'
    ) AS has_children,
    array(
        SELECT CAST(conrelid AS regclass) || '.' || conname FROM pg_constraint
        WHERE contype = 'f' AND confrelid = history.oid AND conparentid = 0 ORDER BY 1
    ) AS foreign_keys,
    array(
        SELECT CAST(tgname AS text) FROM pg_trigger
        WHERE tgrelid = history.oid AND NOT tgisinternal AND tgname <> ALL (:ours) ORDER BY 1
    ) AS triggers,
    array(
        SELECT CAST(relname AS text) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = history.oid AND indisunique AND NOT indisprimary AND NOT EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = indrelid AND attnum = ANY (indkey) AND attname = :column
        ) ORDER BY 1
    ) AS unique_indexes,
    (
        SELECT quote_ident(conname) FROM pg_constraint
        WHERE contype = 'p' AND conrelid = history.oid
    ) AS key
FROM (SELECT to_regclass(:name) AS oid) AS history
""").bindparams(_NAME)

_DISTRIBUTE = text("SELECT create_distributed_table(:name, :column)").bindparams(_NAME)
_TRUNCATE = text("SELECT truncate_local_data_after_distributing_table(:name)").bindparams(_NAME)


def distribute(bind: Engine | Connection, *, schema: str | None = None) -> bool:
    """Let Citus distribute the history table by `job_id`; return whether that was still to do.

    The primary key becomes (`id`, `job_id`), because an index cannot be unique across servers by
    other columns. The triggers that feed statistics are dropped, because Citus refuses them: from
    then on, statistics are computed from rows. The other tables stay on the coordinator.

    Run it on the coordinator, as the owner of the table. It is one transaction, and moves all rows:
    calls that record wait meanwhile. The number of shards is the setting `citus.shard_count`.

    Raises:
        InvalidInput: if `bind` is not of PostgreSQL.
        SchemaOutOfDate: if the tables are missing or outdated.
        JobHistoryError: if there is no Citus in the database, or if it cannot distribute the table:
            because of foreign keys to it, triggers, unique indexes or inheritance.
    """
    with connected(bind) as connection:
        if connection.dialect.name != "postgresql":
            raise InvalidInput(
                "bind", connection.dialect.name, "has no Citus; pass an engine of PostgreSQL"
            )
    migrate.check(bind, schema=schema)
    with exclusive.changing_layout(bind), exclusive.transaction(bind) as connection:
        layout = read_layout(connection, schema)
        if layout.distributed_by == DISTRIBUTED_BY:
            return False
        if layout.distributed_by is not None:
            raise JobHistoryError(
                f"Citus distributes job_history by {layout.distributed_by}: call "
                "undistribute_table('job_history') first"
            )
        _distribute(connection, schema)
        return True


def _refuse(found: Row[Any]) -> None:
    if not found.has_citus:
        raise JobHistoryError(
            "this database has no Citus: add citus to shared_preload_libraries, run CREATE "
            "EXTENSION citus here and on the workers, and citus_add_node('host', 5432) for each"
        )
    if found.has_children:
        raise JobHistoryError(
            "tables inherit from job_history, and Citus distributes only plain and partitioned "
            "tables: move their rows to it and drop them"
        )
    for things, remedy in (
        (found.foreign_keys, "refer to job_history(id), which is no longer unique then; drop them"),
        (found.triggers, "are triggers, which Citus does not execute in its shards; drop them"),
        (found.unique_indexes, f"are unique without {DISTRIBUTED_BY}; drop them or add it"),
    ):
        if things:
            raise JobHistoryError(
                f"job_history cannot be distributed: {', '.join(things)} {remedy}"
            )


def _distribute(connection: Connection, schema: str | None) -> None:
    name = quoted_table(connection, schema)
    values = {"name": name, "column": DISTRIBUTED_BY, "ours": list(TRIGGERS["postgresql"])}
    found = connection.execute(_FOUND, values).one()
    _refuse(found)
    table = escaped(name)
    for trigger in TRIGGERS["postgresql"]:
        connection.execute(text(f"DROP TRIGGER IF EXISTS {trigger} ON {table}"))
    if found.key is not None:
        connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {escaped(found.key)}"))
    key = f"ADD CONSTRAINT {_KEY} PRIMARY KEY (id, {DISTRIBUTED_BY})"
    connection.execute(text(f"ALTER TABLE {table} {key}"))
    connection.execute(_DISTRIBUTE, {"name": name, "column": DISTRIBUTED_BY})
    connection.execute(_TRUNCATE, {"name": name})
