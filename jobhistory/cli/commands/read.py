"""Commands that read executions: list and show."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console

from jobhistory.cli import output, render
from jobhistory.cli.criteria_options import takes_criteria
from jobhistory.cli.database import open_store
from jobhistory.cli.options import Json, Limit, Schema, Url, repeated
from jobhistory.errors import InvalidInput
from jobhistory.execution.ids import id_text
from jobhistory.query.cursor import Page

_DEFAULT_LIMIT = 100


@takes_criteria
def list_executions(
    context: typer.Context,
    criteria: dict[str, Any],
    oldest: Annotated[bool, typer.Option("--oldest", help="Oldest first.")] = False,
    limit: Limit = _DEFAULT_LIMIT,
    after: Annotated[
        str | None,
        typer.Option(
            help="Continue after this cursor, or at the 'start'; prints the next cursor last. "
            "Repeat the other options, with absolute times.",
            metavar="CURSOR",
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every match, streamed, tab-separated.")
    ] = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """List executions, newest first."""
    criteria["order"] = "oldest" if oldest else "newest"
    if everything:
        _refuse_pages(limit, after)
        with open_store(url, schema) as store:
            records = store.iterate(criteria)
            (render.print_records_json if json else render.print_all)(records)
        return
    with open_store(url, schema) as store:
        page = store.page(criteria, after=None if after == "start" else after, limit=limit)
    (render.print_records_json if json else render.print_records)(page.records)
    _print_next(page, context, criteria, json=json)


def show(
    job_id: Annotated[str, typer.Argument(help="The job id.", metavar="JOB_ID")],
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Show all executions of a job, newest first, with payload, error and traceback."""
    id_text(job_id, "JOB_ID")
    with open_store(url, schema) as store:
        records = store.get_by_job_id(job_id)
    if not records:
        output.fail(f"job {job_id!r} has no executions in history")
    (render.print_records_json if json else render.print_details)(records)


def _refuse_pages(limit: int, after: str | None) -> None:
    if after is not None or limit != _DEFAULT_LIMIT:
        option, value = ("--limit", limit) if after is None else ("--after", after)
        raise InvalidInput(option, value, "cannot be combined with --all; leave one of them out")


def _print_next(
    page: Page, context: typer.Context, criteria: dict[str, Any], *, json: bool
) -> None:
    """Print where the next page starts: a command on a terminal, the cursor if `--after` asks."""
    cursor, is_requested = page.next_cursor, context.params["after"] is not None
    if json:
        if is_requested:
            output.print_json({"next_cursor": cursor})
    elif Console().is_terminal:
        if cursor is not None:
            # Counted from now, "2h" ago would be another criterion.
            moments = {"since": criteria["from_"], "until": criteria["to"]}
            fixed = {name: _iso(moment) for name, moment in moments.items() if moment is not None}
            print(f"more: jobhistory list {repeated(context, **fixed, after=cursor)}")
    elif is_requested:
        print(f"next_cursor\t{cursor or ''}")


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
