"""Commands that create the history table and keep it up to date."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console
from sqlalchemy import Engine, inspect
from sqlalchemy.exc import DBAPIError

from jobhistory import distribution, migrate
from jobhistory._runtime.shell import quoted_for_shell
from jobhistory.cli import output
from jobhistory.cli.database import open_engine
from jobhistory.cli.options import Json, Schema, Url, Verbose
from jobhistory.cli.output import fail
from jobhistory.database.driver_errors import is_denied
from jobhistory.database.engines import engine_from_url
from jobhistory.errors import SchemaOutOfDate
from jobhistory.partitioning import partitions_of
from jobhistory.rollup_schema import ROLLUP_TABLES
from jobhistory.schema import TABLE_NAME

_LEAST_GRANTS = (
    "a role that records needs SELECT, INSERT, UPDATE and DELETE on job_history, "
    "SELECT, INSERT and UPDATE on job_history_state, and SELECT on job_history_alembic_version"
)


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

    Your own additions to the table, such as an index, are listed, and so are privileges that this
    role lacks to read statistics and to fold. Recording works without them. If the table is
    partitioned, the command says how, and warns if 'jobhistory db partition' is overdue.
    """
    with open_engine(url) as engine:
        try:
            additions = migrate.check(engine, schema=schema)
            grants = migrate.missing_grants(engine, schema=schema)
            partitions = partitions_of(engine, schema=schema)
        except SchemaOutOfDate as error:
            if json:
                output.print_json({"ok": False, "reason": str(error)})
            fail(str(error))
        except DBAPIError as error:
            if is_denied(error):
                error.add_note(_LEAST_GRANTS)
            raise
    if json:
        is_plain = not partitions.count and not partitions.warnings
        found = {"additions": additions, "grants": grants}
        layout = None if is_plain else partitions.to_dict()
        output.print_json({"ok": True, **found, "partitions": layout})
    else:
        print("the history table is up to date")
        if partitions.count:
            print(partitions)
        for warning in partitions.warnings:
            option = "" if schema is None else f" --schema {quoted_for_shell(schema)}"
            print(output.one_line(f"warning: {warning}; run: jobhistory db partition{option}"))
        for addition in additions:
            print(f"addition: {output.one_line(addition)}")
        if grants:
            print(f"note: {_lacking(grants)}:")
        for grant in grants:
            print(output.one_line(f"{grant};"))


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


def distribute(json: Json = False, url: Url = None, schema: Schema = None) -> None:
    """Let Citus distribute the history table by job over several servers of PostgreSQL.

    Run it once, on the coordinator, as the owner of the table. It changes the primary key, drops
    the triggers, and moves all rows. Calls that record wait meanwhile.
    """
    with open_engine(url) as engine:
        is_new = distribution.distribute(engine, schema=schema)
    if json:
        output.print_json({"distributed_by": "job_id", "changed": is_new})
    else:
        state = "now distributed" if is_new else "already distributed"
        print(f"the history table is {state} by job_id")


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


def _lacking(grants: Sequence[str]) -> str:
    """Return what a role cannot do without these grants."""
    if any(table.name in grant for table in ROLLUP_TABLES for grant in grants):
        return "until you run this, statistics read rows, and another role must fold"
    return "until you run this, this role cannot use some features of expectations or archives"


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
