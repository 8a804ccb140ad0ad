"""Commands that create the history table and keep it up to date."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy import Engine, inspect

from jobhistory import migrate
from jobhistory.cli import output
from jobhistory.cli.database import open_engine
from jobhistory.cli.options import Json, Schema, Url, Verbose
from jobhistory.cli.output import fail
from jobhistory.database.engines import engine_from_url
from jobhistory.errors import SchemaOutOfDate
from jobhistory.schema import TABLE_NAME


def upgrade(
    revision: Annotated[
        str, typer.Argument(help="The target revision.", metavar="REVISION")
    ] = "head",
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Create the history table, or upgrade it to a later revision."""
    with open_engine(url) as engine:
        migrate.upgrade(engine, revision, schema=schema)
        _print_revision(engine, schema, json)


def downgrade(
    revision: Annotated[
        str,
        typer.Argument(help="The target revision; 'base' deletes all history.", metavar="REVISION"),
    ],
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Downgrade the history table to an earlier revision."""
    with open_engine(url) as engine:
        migrate.downgrade(engine, revision, schema=schema)
        _print_revision(engine, schema, json)


def current(json: Json = False, url: Url = None, schema: Schema = None) -> None:
    """Show the revision of the database."""
    with open_engine(url) as engine:
        _print_revision(engine, schema, json)


def check(json: Json = False, url: Url = None, schema: Schema = None) -> None:
    """Check whether the history table has what this version needs; if not, exit with status 1.

    Your own additions to the table, such as an index, are listed.
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
            print(f"addition: {output.one_line(addition)}")


def maintain(
    verbose: Verbose = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Keep the search for running executions fast; meant for cron, as the owner of the table.

    Without a terminal, the command prints nothing unless it fails.
    """
    with open_engine(url) as engine:
        count = migrate.maintain(engine, schema=schema)
    if json:
        output.print_json({"summarized": count})
    elif verbose or Console().is_terminal:
        print(f"{count} page ranges summarized" if count else "nothing to maintain")


def sql(
    revision: Annotated[
        str, typer.Argument(help="The target revision, or 'START:TARGET'.", metavar="REVISION")
    ] = "head",
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Print the SQL of an upgrade in the dialect of the URL, without connecting."""
    dialect = "sqlite" if url is None else engine_from_url(url).dialect.name
    migrate.write_sql(dialect, sys.stdout, revision, schema=schema)


def _print_revision(engine: Engine, schema: str | None, json: bool) -> None:
    revision = migrate.current(engine, schema=schema)
    if json:
        output.print_json({"revision": revision, "head": migrate.HEAD})
    elif revision is not None:
        print(output.one_line(revision))
    elif inspect(engine).has_table(TABLE_NAME, schema=schema):
        print("the history table has no revision: another tool created it")
    else:
        print("there is no history table")
