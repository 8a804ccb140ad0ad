"""Create the history table and keep it up to date."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from sqlalchemy import Engine, inspect

from jobhistory import migrate
from jobhistory.cli import output
from jobhistory.cli.database import open_engine
from jobhistory.cli.options import Json, Schema, Url
from jobhistory.cli.output import fail
from jobhistory.database.engines import engine_from_url
from jobhistory.errors import SchemaOutOfDate
from jobhistory.schema import TABLE_NAME


def upgrade(
    revision: Annotated[str, typer.Argument(help="The target revision.")] = "head",
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Create the history table, or bring it to a later revision."""
    with open_engine(url) as engine:
        migrate.upgrade(engine, revision, schema=schema)
        _print_revision(engine, schema, json)


def downgrade(
    revision: Annotated[str, typer.Argument(help="The target revision; 'base' drops all history.")],
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Bring the history table back to an earlier revision."""
    with open_engine(url) as engine:
        migrate.downgrade(engine, revision, schema=schema)
        _print_revision(engine, schema, json)


def current(json: Json = False, url: Url = None, schema: Schema = None) -> None:
    """Print the revision that the database is at."""
    with open_engine(url) as engine:
        _print_revision(engine, schema, json)


def check(json: Json = False, url: Url = None, schema: Schema = None) -> None:
    """Compare the history table with what this version needs; exit status 1 if it lacks something.

    What you added to the table, such as an index, is listed and does no harm.
    """
    with open_engine(url) as engine:
        try:
            additions = migrate.check(engine, schema=schema)
        except SchemaOutOfDate as error:
            if json:
                output.print_json({"ok": False, "reason": str(error)})
            fail(str(error))
    if json:
        output.print_json({"ok": True, "additions": additions})
    else:
        print("the history table is up to date")
        for addition in additions:
            print(f"added to it: {output.one_line(addition)}")


def sql(
    revision: Annotated[
        str, typer.Argument(help="The target revision; 'START:TARGET' also names the start.")
    ] = "head",
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Print the SQL of an upgrade, in the dialect of the URL, without a connection."""
    dialect = "sqlite" if url is None else engine_from_url(url).dialect.name
    migrate.write_sql(dialect, sys.stdout, revision, schema=schema)


def _print_revision(engine: Engine, schema: str | None, json: bool) -> None:
    revision = migrate.current(engine, schema=schema)
    if json:
        output.print_json({"revision": revision, "head": migrate.HEAD})
    elif revision is not None:
        print(output.one_line(revision))
    elif inspect(engine).has_table(TABLE_NAME, schema=schema):
        print("the history table has no revision: something else made it")
    else:
        print("there is no history table")
