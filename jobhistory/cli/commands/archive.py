"""Commands for archives: sql, verify, restore and delete."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn

from jobhistory._runtime.clock import utc_now
from jobhistory.archive_schema import RESTORED_NAME
from jobhistory.cli import output, sql_prompt
from jobhistory.cli.criteria_options import takes_criteria
from jobhistory.cli.database import open_existing_store
from jobhistory.cli.deletion import DryRun, Yes, check_request, confirm, print_deleted
from jobhistory.cli.options import BatchSize, Json, NoPager, Schema, Url
from jobhistory.cli.pager import paged
from jobhistory.cli.screens.cells import counted
from jobhistory.cli.screens.query_result import print_result, print_result_json
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.verified import print_verified
from jobhistory.errors import InvalidInput, JobHistoryError
from jobhistory.query.terms import read_list, read_moment, read_uuid

if TYPE_CHECKING:
    import duckdb

_BATCH = 1_000
_CREDENTIALS = re.compile(r"(\w://)[^\s/'\"]*@")
_QUERY = re.compile(r"(\w://[^\s?'\"]+)\?[^\s'\"]*")

Location = Annotated[
    str,
    typer.Argument(
        metavar="ARCHIVE",
        help="A folder, or a URL such as 's3://bucket/history'.",
        show_default=False,
    ),
]
ExecutionIds = Annotated[
    list[str] | None,
    typer.Option(
        callback=read_list,
        help="With this id, or one of these.",
        metavar="IDS",
        rich_help_panel="Filter",
    ),
]


def sql(
    archive: Location,
    query: Annotated[
        str | None,
        typer.Argument(help="The query. Without it, there is a prompt.", show_default=False),
    ] = None,
    no_pager: NoPager = False,
    json: Json = False,
) -> None:
    """Ask an archive in SQL: DuckDB, with a view job_history of all published files.

    The view has the columns of the history table, and the day of the start. Times are in UTC.
    Without a query, the command starts DuckDB's own prompt if that is installed, otherwise a
    smaller one; from a pipe, it reads the query. It needs no database.
    """
    from jobhistory.archive.view import connect, statements_for_command

    if query is None and sys.stdin.isatty():
        with _as_typed():
            statements = statements_for_command(archive)
        if statements is not None and not json:
            sql_prompt.start_duckdb(statements)
    with _as_typed():
        opened = connect(archive)
    with opened as connection:
        if query is None and sys.stdin.isatty():
            sql_prompt.prompt(lambda text: _ask(connection, text, json=json, no_pager=no_pager))
            return
        text = sys.stdin.read() if query is None else query
        if not text.strip(" \t\r\n;"):
            remedy = "has no statement; write it like 'SELECT count(*) FROM job_history'"
            raise InvalidInput("QUERY", text, remedy)
        if not _ask(connection, text, json=json, no_pager=no_pager):
            raise typer.Exit(1)


def _ask(connection: duckdb.DuckDBPyConnection, query: str, *, json: bool, no_pager: bool) -> bool:
    """Print the result of a query, or its error; return whether it had none."""
    from duckdb import Error

    try:
        connection.execute(query)
        names = [column[0] for column in connection.description or ()]
        rows = _rows(connection)
        if json:
            print_result_json(names, rows)
        else:
            screen = Screen(utc=True)
            with paged(screen.console, use_pager=not no_pager):
                print_result(screen, names, rows)
    except Error as error:
        first, _, others = _without_secrets(str(error)).partition("\n")
        output.say(first)
        if others:  # they point at the place in the query
            print(output.shown(others), file=sys.stderr)
        return False
    except RuntimeError as error:  # as DuckDB raises it after Ctrl-C
        output.say(_without_secrets(str(error)))
        return False
    except (JobHistoryError, BrokenPipeError):
        raise
    except Exception as error:  # a file system of fsspec may raise anything
        output.say(f"the archive cannot be read: {type(error).__name__}")
        return False
    return True


def _without_secrets(message: str) -> str:
    """Return a message of DuckDB, in which URLs have neither credentials nor a query."""
    return _QUERY.sub(r"\1", _CREDENTIALS.sub(r"\1", message))


def _rows(connection: duckdb.DuckDBPyConnection) -> Iterator[Sequence[Any]]:
    while batch := connection.fetchmany(_BATCH):
        yield from batch


def verify(archive: Location, json: Json = False, url: Url = None, schema: Schema = None) -> None:
    """Compare an archive with its manifest in the database; if they differ, exit with status 1.

    It reads all files, and checks that each is whole and holds the executions that it should. Files
    that the manifest does not name are problems, too. Each problem is one line.
    """
    from jobhistory.archive.archive import Archive

    with (
        _as_typed(),
        open_existing_store(url, schema) as store,
        _counting("verified", json=json) as progress,
    ):
        verified = Archive(archive).verify(store, progress=progress)
    if json:
        output.print_json(verified.to_dict())
    else:
        print_verified(verified)
    if not verified.ok:
        raise typer.Exit(1)


def restore(
    archive: Location,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Started at this time or later: '2026-11-01 14:00' or '90d' (ago), in your time "
            "zone. Default: from the beginning.",
            metavar="WHEN",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="Started at this time or earlier. Default: to the end.",
            metavar="WHEN",
            show_default=False,
        ),
    ] = None,
    into: Annotated[
        str, typer.Option(help="The table. If there is none, it is created.", metavar="TABLE")
    ] = RESTORED_NAME,
    batch_size: BatchSize = 10_000,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Copy archived executions into a table of their own.

    The table has the columns of the history table. Its executions do not count in statistics, and
    nothing expires them: drop it when you are done. Executions that are in the table stay, so the
    command can be repeated.
    """
    from jobhistory.archive.archive import Archive

    now = utc_now()
    window = (read_moment(from_, "--from", now), read_moment(to, "--to", now))
    with (
        _as_typed(from_="--from", into="--into"),
        open_existing_store(url, schema) as store,
        _counting("restored", json=json) as progress,
    ):
        count = Archive(archive).restore(
            store, *window, into=into, batch_size=batch_size, progress=progress
        )
    if json:
        output.print_json({"restored": count})
    else:
        print(f"{counted(count, 'execution')} restored into {into}")


@takes_criteria
def delete(
    archive: Location,
    criteria: dict[str, Any],
    execution_id: ExecutionIds = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Delete the archived executions that meet all criteria, for example because a customer asks.

    Each file that holds such executions is replaced. Those that are not archived yet stay: call
    'jobhistory purge' first. The command asks first. Without a terminal, it needs --yes or
    --dry-run.
    """
    from jobhistory.archive.archive import Archive

    given = [read_uuid(text, "--execution-id") for text in execution_id or ()]
    ids = [each for each in given if each is not None] or None
    check_request(criteria | {"ids": ids}, dry_run=dry_run, yes=yes)
    with open_existing_store(url, schema) as store, _as_typed():
        purge = partial(Archive(archive).purge, store, criteria, ids=ids)
        if not dry_run and not yes:
            confirm(lambda: purge(dry_run=True))
        count = purge(dry_run=dry_run)
    print_deleted(count, dry_run=dry_run, json=json)


@contextmanager
def _as_typed(**names: str) -> Iterator[None]:
    """Name the arguments of errors as they are on the command line."""
    try:
        yield
    except InvalidInput as error:
        name = {"archive": "ARCHIVE", **names}.get(error.argument, error.argument)
        raise InvalidInput(name, error.value, error.remedy) from error


@contextmanager
def _counting(done: str, *, json: bool) -> Iterator[Callable[[int], None]]:
    """Show on a terminal how many executions are done, as often as the yielded function says."""
    console = Console(stderr=True)
    if json or not console.file.isatty():
        yield lambda count: None
        return
    columns = [TextColumn("{task.completed:,.0f} executions {task.description}")]
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task(done, total=None)
        yield lambda count: shown.update(task, completed=count)
