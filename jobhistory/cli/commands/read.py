"""Read executions: list and show."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console

from jobhistory.cli import output, render
from jobhistory.cli.database import open_store
from jobhistory.cli.options import (
    ErrorContains,
    ErrorType,
    Json,
    Schema,
    Since,
    Tasks,
    Until,
    Url,
    Worker,
    read_milliseconds,
    read_window,
    repeated,
)
from jobhistory.cli.output import fail
from jobhistory.errors import InvalidInput
from jobhistory.query.cursor import Page


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
    window = read_window(since, until)
    criteria = window | {
        "task_identifier": task or None,
        "status": status or None,
        "job_id": job_id,
        "correlation_id": correlation_id,
        "worker_id": worker,
        "error_type": error_type,
        "error_contains": error_contains,
        "min_execution_time_ms": read_milliseconds(min_time, "--min-time"),
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
                render.print_records_json(found)
            else:
                render.print_all(found)
        return
    with open_store(url, schema) as store:
        try:
            page = store.page(given, after=None if after == "start" else after, limit=limit)
        except InvalidInput as error:
            if error.argument != "after":
                raise
            raise InvalidInput("--after", error.value, error.remedy) from None
    if json:
        render.print_records_json(page.records)
    else:
        render.print_records(page.records)
    _print_next(page, context, window, json=json)


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
        fail(f"there is no execution of a job {job_id!r} in history")
    if json:
        render.print_records_json(records)
    else:
        render.print_details(records)


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
