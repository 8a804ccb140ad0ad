"""The environment in which the `alembic` command runs the revisions in a checkout.

The database is that of JOBHISTORY_URL. JOBHISTORY_SCHEMA or `-x schema=NAME` selects a schema. The
installed package does not use this file: `jobhistory.migrate` runs the revisions without Alembic's
global state.
"""

import os
from logging.config import fileConfig
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, Engine

from jobhistory.database.differences import comparison_options
from jobhistory.database.engines import engine_from_url
from jobhistory.migrate import VERSION_TABLE, transaction

config = context.config
schema = context.get_x_argument(as_dictionary=True).get(
    "schema", os.environ.get("JOBHISTORY_SCHEMA") or None
)


def engine_from_environment() -> Engine:
    try:
        url = os.environ["JOBHISTORY_URL"]
    except KeyError:
        raise CommandError(
            "set JOBHISTORY_URL to the database's URL, such as sqlite:///history.db"
        ) from None
    return engine_from_url(url)


def run(**options: Any) -> None:
    context.configure(version_table=VERSION_TABLE, version_table_schema=schema, **options)
    with context.begin_transaction():
        context.run_migrations()


def run_on(connection: Connection) -> None:
    run(connection=connection, **comparison_options(connection, schema))


if config.config_file_name is not None:
    fileConfig(config.config_file_name, disable_existing_loggers=False)

engine = engine_from_environment()
try:
    if context.is_offline_mode():
        run(dialect_name=engine.dialect.name, literal_binds=True)
    else:
        with transaction(engine) as connection:
            run_on(connection)
finally:
    engine.dispose()
