"""The commands and their options."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn
from uuid import uuid4

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import Engine, inspect

import jobhistory
from jobhistory import migrate
from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.durations import parse_duration
from jobhistory.cli import output
from jobhistory.cli import render as answers
from jobhistory.cli.database import open_engine, open_store
from jobhistory.cli.options import repeated
from jobhistory.database.engines import engine_from_url
from jobhistory.errors import InvalidInput, SchemaOutOfDate
from jobhistory.execution.job import Job
from jobhistory.query.cursor import Page
from jobhistory.query.reports import parse_bucket
from jobhistory.schema import TABLE_NAME, HistoryRecord
from jobhistory.store import HistoryStore

app = typer.Typer(
    help="Record job executions, and answer what ran, when, how long, and why it failed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, passwords included
    context_settings={"help_option_names": ["-h", "--help"]},
)
db = typer.Typer(help="Create the history table and keep it up to date.", no_args_is_help=True)
app.add_typer(db, name="db")

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="JOBHISTORY_URL",
        help="The database. Without it: an SQLite file in your user data directory.",
        show_default=False,
    ),
]
Schema = Annotated[
    str | None,
    typer.Option("--schema", help="The database schema that holds the table.", show_default=False),
]
Since = Annotated[
    str | None,
    typer.Option(help="Started then or later: '2h' ago, or '2026-11-01' (UTC).", metavar="WHEN"),
]
Until = Annotated[
    str | None, typer.Option(help="Started then or earlier, written alike.", metavar="WHEN")
]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", help="Of this task; may be given more than once."),
]
Worker = Annotated[str | None, typer.Option("--worker", help="Run by this worker.")]
ErrorType = Annotated[str | None, typer.Option(help="Failed with this type of error.")]
ErrorContains = Annotated[
    str | None, typer.Option(help="Failed with this text in its error, in either case.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"jobhistory {jobhistory.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    pass


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[
        list[str], typer.Argument(help="The command and its arguments, best after a --.")
    ],
    task: Annotated[
        str | None, typer.Option(help="What kind of work it is; else the command's name.")
    ] = None,
    job_id: Annotated[str | None, typer.Option(help="Which job; else a new id.")] = None,
    correlation_id: Annotated[
        str | None, typer.Option(help="What ties it to other executions; else the job's id.")
    ] = None,
    retention: Annotated[
        str, typer.Option(help="How long to keep the record: '12h', '1 week', 'never'.")
    ] = "30 days",
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Run a command and record its execution.

    Output passes through as it comes, and the exit status is the command's own: 128 and the number
    of the signal that ended it, 127 if it was not found, 126 if it could not be started. If history
    cannot be written, the command runs all the same, and standard error says what is not recorded.
    An option that cannot be used is refused before the command runs, with exit status 2.
    """
    if os.name != "posix":
        _fail("run needs a POSIX system, for its signals")
    from jobhistory.cli.run import RecordedRun, check_options  # which other systems cannot import

    check_options(
        task=task, job_id=job_id, correlation_id=correlation_id, retention=retention, url=url
    )
    job = Job(
        str(uuid4()) if job_id is None else job_id,
        Path(command[0]).name if task is None else task,
        {"command": command},
    )
    recorded = RecordedRun(
        job,
        worker_id=f"{socket.gethostname()}:{os.getpid()}",
        correlation_id=str(job.id) if correlation_id is None else correlation_id,
        open_store=partial(open_store, url, schema, history_retention=retention),
        started_at=utc_now(),
    )
    raise typer.Exit(recorded.execute(command))


@app.command("list")
def list_executions(
    context: typer.Context,
    since: Since = None,
    until: Until = None,
    task: Tasks = None,
    status: Annotated[
        list[str] | None, typer.Option(help="In this status; may be given more than once.")
    ] = None,
    job_id: Annotated[str | None, typer.Option(help="Of this job.")] = None,
    correlation_id: Annotated[str | None, typer.Option(help="Tied together by this id.")] = None,
    worker: Worker = None,
    error_type: ErrorType = None,
    error_contains: ErrorContains = None,
    min_time: Annotated[
        str | None, typer.Option(help="Took so long or longer: '30s', '5 minutes'.")
    ] = None,
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest first.")] = False,
    limit: Annotated[int, typer.Option(help="So many at the most.")] = 100,
    after: Annotated[
        str | None,
        typer.Option(
            help="The page after this cursor, for the same criteria; 'start' for the first page. "
            "The last line of the output is then the next cursor.",
            metavar="CURSOR",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All there are, as they come, with tabs between.")
    ] = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """List executions, newest first."""
    window = _window(since, until)
    criteria = window | {
        "task_identifier": task or None,
        "status": status or None,
        "job_id": job_id,
        "correlation_id": correlation_id,
        "worker_id": worker,
        "error_type": error_type,
        "error_contains": error_contains,
        "min_execution_time_ms": _milliseconds(min_time, "--min-time"),
        "order": "oldest" if oldest else None,
    }
    given = {name: value for name, value in criteria.items() if value is not None}
    if everything:
        if after is not None or limit != 100:
            option, value = ("--limit", limit) if after is None else ("--after", after)
            raise InvalidInput(option, value, "does not go with --all; leave one of them out")
        with open_store(url, schema) as store:
            found = store.iterate(given)
            if json:
                _print_json(found)
            else:
                output.print_all(found)
        return
    with open_store(url, schema) as store:
        try:
            page = store.page(given, after=None if after == "start" else after, limit=limit)
        except InvalidInput as error:
            if error.argument != "after":
                raise
            raise InvalidInput("--after", error.value, error.remedy) from None
    if json:
        _print_json(page.records)
    else:
        output.print_records(page.records)
    _print_next(page, context, window, json=json)


@app.command()
def stats(
    since: Since = "24h",
    until: Until = None,
    task: Tasks = None,
    worker: Worker = None,
    bucket: Annotated[
        str | None, typer.Option(help="Over time, in periods of '1h', '1d'; charts on a terminal.")
    ] = None,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Show for each task how often it ran and failed, and how long it took.

    Of the times in ascending order, P95 is the one at the nearest rank: 95 % are no longer.
    """
    criteria = _window(since, until) | {"task_identifier": task or None, "worker_id": worker}
    length = parse_bucket(bucket)
    with open_store(url, schema) as store:
        found = store.stats(criteria, bucket=length)
        # Charts go with the statistics of the whole time.
        with_charts = length is not None and not json and Console().is_terminal
        totals = store.stats(criteria) if with_charts else found
    if json:
        for each in found:
            output.print_json(answers.stats_json(each))
    else:
        answers.print_stats(totals, found, length)


@app.command()
def failures(
    since: Since = "24h",
    until: Until = None,
    task: Tasks = None,
    worker: Worker = None,
    error_type: ErrorType = None,
    error_contains: ErrorContains = None,
    limit: Annotated[int, typer.Option(help="So many kinds at the most.")] = 100,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Show what kinds of failures there were, the most frequent first.

    They are of one kind if their messages differ only in numbers, ids, addresses and quoted values.
    """
    criteria = {
        "task_identifier": task or None,
        "worker_id": worker,
        "error_type": error_type,
        "error_contains": error_contains,
        "limit": limit,
    }
    with open_store(url, schema) as store:
        groups = store.failures(_window(since, until) | criteria)
    if json:
        for group in groups:
            output.print_json(answers.failures_json(group))
    else:
        answers.print_failures(groups)


@app.command()
def running(
    since: Since = None,
    task: Tasks = None,
    worker: Worker = None,
    limit: Annotated[int, typer.Option(help="So many at the most.")] = 100,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """List what has started and not ended, that which runs longest first.

    In a large history, say with --since how long ago it may have started: no index tells.
    """
    criteria = {"task_identifier": task or None, "worker_id": worker, "limit": limit}
    with open_store(url, schema) as store:
        records = store.running(_window(since, None) | criteria)
    if json:
        _print_json(records)
    else:
        answers.print_running(records, utc_now())


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(help="The job's id.")],
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Show all executions of a job, newest first, with payload, error and stack."""
    with open_store(url, schema) as store:
        records = store.get_by_job_id(job_id)
    if not records:
        _fail(f"there is no execution of a job {job_id!r} in history")
    if json:
        _print_json(records)
    else:
        output.print_details(records)


@app.command()
def expire(
    batch_size: Annotated[int, typer.Option(help="How many rows one transaction deletes.")] = 2000,
    time_limit: Annotated[
        str | None, typer.Option(help="Stop after so long: '30s', '5 minutes'.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many would go.")] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Say how many went, when not on a terminal, too."),
    ] = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Delete the executions whose retention has passed; made for cron.

    Off a terminal it prints nothing unless it fails, is stopped by its time limit, or is asked to.
    """
    console = Console()
    options: dict[str, Any] = {"batch_size": batch_size, "time_limit": time_limit}
    with open_store(url, schema) as store:
        if dry_run:
            count = store.expire(dry_run=True, **options)
        elif console.is_terminal and not json:
            count = _expire_with_bar(store, console, options)
        else:
            count = store.expire(**options)
    if json:
        output.print_json({"expired" if dry_run else "deleted": count})
    elif dry_run or verbose or console.is_terminal:
        print(f"{_executions(count)} {'would be deleted' if dry_run else 'deleted'}")


@app.command()
def reap(
    older_than: Annotated[
        str, typer.Option(help="Started so long ago; more than the longest job takes: '2h'.")
    ],
    task: Annotated[
        list[str] | None, typer.Option(help="Of this task; may be given more than once.")
    ] = None,
    worker: Annotated[str | None, typer.Option(help="Of this worker.")] = None,
    batch_size: Annotated[int, typer.Option(help="How many rows one transaction ends.")] = 1000,
    time_limit: Annotated[
        str | None, typer.Option(help="Stop after so long: '30s', '5 minutes'.")
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Say how many, when not on a terminal, too."),
    ] = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """End as failed what started long ago and has not ended, as its worker is lost; for cron.

    Off a terminal it prints nothing unless it fails, is stopped by its time limit, or is asked to.
    """
    with open_store(url, schema) as store:
        count = store.reap_lost(
            older_than,
            task_identifier=task or None,
            worker_id=worker,
            batch_size=batch_size,
            time_limit=time_limit,
        )
    if json:
        output.print_json({"reaped": count})
    elif verbose or Console().is_terminal:
        print(f"{_executions(count)} taken for lost")


@db.command()
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


@db.command()
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


@db.command()
def current(json: Json = False, url: Url = None, schema: Schema = None) -> None:
    """Print the revision that the database is at."""
    with open_engine(url) as engine:
        _print_revision(engine, schema, json)


@db.command()
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
            _fail(str(error))
    if json:
        output.print_json({"ok": True, "additions": additions})
    else:
        print("the history table is up to date")
        for addition in additions:
            print(f"added to it: {output.one_line(addition)}")


@db.command()
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


def _executions(count: int) -> str:
    return "1 execution" if count == 1 else f"{count} executions"


def _moment(text: str | None, option: str, now: datetime) -> datetime | None:
    if text is None:
        return None
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return now - parse_duration(text, option)
    except (InvalidInput, OverflowError):
        raise InvalidInput(
            option, text, "is neither a duration nor a date; write it like '2h' or '2026-11-01'"
        ) from None


def _expire_with_bar(store: HistoryStore, console: Console, options: dict[str, Any]) -> int:
    columns = (TextColumn("expiring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("expiring", total=store.expire(dry_run=True))
        return store.expire(progress=lambda done: bar.update(task, completed=done), **options)


def _window(since: str | None, until: str | None) -> dict[str, datetime | None]:
    # Whole seconds, as the next page repeats them.
    now = utc_now().replace(microsecond=0)
    return {"from_": _moment(since, "--since", now), "to": _moment(until, "--until", now)}


def _milliseconds(duration: str | None, option: str) -> int | None:
    if duration is None:
        return None
    return parse_duration(duration, option) // timedelta(milliseconds=1)


def _print_json(records: Iterable[HistoryRecord]) -> None:
    for record in records:
        output.print_json(output.record_json(record))


def _print_next(
    page: Page, context: typer.Context, window: dict[str, datetime | None], *, json: bool
) -> None:
    """Print where the next page starts: a command on a terminal, the cursor if asked to."""
    cursor, is_asked_to = page.next_cursor, context.params["after"] is not None
    if json:
        if is_asked_to:
            output.print_json({"next_cursor": cursor})
    elif Console().is_terminal:
        if cursor is not None:
            # Counted from now, "2h" ago would be another criterion.
            moments = {"since": window["from_"], "until": window["to"]}
            fixed = {name: _iso(moment) for name, moment in moments.items() if moment is not None}
            print(f"more: jobhistory list {repeated(context, **fixed, after=cursor)}")
    elif is_asked_to:
        print(f"next_cursor\t{cursor or ''}")


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


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


def _fail(message: str) -> NoReturn:
    output.say(message)
    raise typer.Exit(1)
