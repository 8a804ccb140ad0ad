"""How Alembic runs the revisions: for `jobhistory.migrate`, and for `alembic` in a checkout.

`jobhistory.migrate` hands over a connection, or a dialect for offline SQL, and a schema. `alembic`
on the command line takes the database from JOBHISTORY_URL, and the schema from `-x schema=NAME`.
"""

import os
from logging.config import fileConfig
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData

from jobhistory.engines import engine_from_url
from jobhistory.migrate import VERSION_TABLE, transaction
from jobhistory.models import TABLE_NAME, Base

config = context.config
schema = config.attributes.get("schema") or context.get_x_argument(as_dictionary=True).get("schema")


def url_from_environment() -> str:
    """The database of the command line."""
    try:
        return os.environ["JOBHISTORY_URL"]
    except KeyError:
        raise CommandError(
            "set JOBHISTORY_URL to the database's URL, such as sqlite:///history.db"
        ) from None


def run(target_metadata: MetaData | None = None, **options: Any) -> None:
    """Run the revisions with these options and those that never change."""
    context.configure(
        version_table=VERSION_TABLE,
        version_table_schema=schema,
        target_metadata=target_metadata,
        **options,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_on(connection: Connection) -> None:
    """Run the revisions on a connection, looking at no table but the library's."""
    own_schema = None if schema == connection.dialect.default_schema_name else schema

    def include_name(name: str | None, type_: str, parents: Any) -> bool:
        if type_ == "schema":
            return name == own_schema
        return type_ != "table" or name == TABLE_NAME

    target = MetaData(naming_convention=Base.metadata.naming_convention)
    Base.metadata.tables[TABLE_NAME].to_metadata(target, schema=own_schema)
    run(target, connection=connection, include_schemas=True, include_name=include_name)


if config.config_file_name is not None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)

if context.is_offline_mode():
    dialect = config.attributes.get("dialect")
    if dialect is None:
        engine = engine_from_url(url_from_environment())
        dialect = engine.dialect.name
    run(dialect_name=dialect, literal_binds=True)
elif "connection" in config.attributes:
    run_on(config.attributes["connection"])
else:
    engine = engine_from_url(url_from_environment())
    try:
        with transaction(engine) as connection:
            run_on(connection)
    finally:
        engine.dispose()
