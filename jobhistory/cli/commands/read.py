"""Commands that read executions: list and show."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console

from jobhistory.cli import output, render
from jobhistory.cli.database import open_store
from jobhistory.cli.options import (
    CorrelationId,
    ErrorContains,
    ErrorType,
    JobId,
    Json,
    Labels,
    Limit,
    MinAttempt,
    MinTime,
    ParentId,
    Schema,
    Since,
    Statuses,
    Tasks,
    TraceId,
    Until,
    Url,
    WorkerPrefix,
    Workers,
    read_labels,
    read_milliseconds,
    read_uuid,
    read_window,
    repeated,
)
from jobhistory.errors import InvalidInput
from jobhistory.execution.ids import id_text
from jobhistory.query.cursor import Page

_DEFAULT_LIMIT = 100


def list_executions(
    context: typer.Context,
    since: Since = None,
    until: Until = None,
    task: Tasks = None,
    status: Statuses = None,
    job_id: JobId = None,
    correlation_id: CorrelationId = None,
    worker: Workers = None,
    worker_prefix: WorkerPrefix = None,
    min_attempt: MinAttempt = None,
    label: Labels = None,
    parent_id: ParentId = None,
    trace_id: TraceId = None,
    error_type: ErrorType = None,
    error_contains: ErrorContains = None,
    min_time: MinTime = None,
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
    window = read_window(since, until)
    criteria: dict[str, Any] = window | {
        "task_identifier": task or None,
        "status": status or None,
        "job_id": job_id,
        "correlation_id": correlation_id,
        "worker_id": worker or None,
        "worker_id_starts_with": worker_prefix,
        "min_attempt": min_attempt,
        "labels": read_labels(label),
        "parent_id": read_uuid(parent_id, "--parent-id"),
        "trace_id": trace_id,
        "error_type": error_type,
        "error_contains": error_contains,
        "min_execution_time_ms": read_milliseconds(min_time, "--min-time"),
        "order": "oldest" if oldest else "newest",
    }
    if everything:
        _refuse_pages(limit, after)
        with open_store(url, schema) as store:
            records = store.iterate(criteria)
            (render.print_records_json if json else render.print_all)(records)
        return
    with open_store(url, schema) as store:
        page = store.page(criteria, after=None if after == "start" else after, limit=limit)
    (render.print_records_json if json else render.print_records)(page.records)
    _print_next(page, context, window, json=json)


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
    page: Page, context: typer.Context, window: dict[str, datetime | None], *, json: bool
) -> None:
    """Print where the next page starts: a command on a terminal, the cursor if `--after` asks."""
    cursor, is_requested = page.next_cursor, context.params["after"] is not None
    if json:
        if is_requested:
            output.print_json({"next_cursor": cursor})
    elif Console().is_terminal:
        if cursor is not None:
            # Counted from now, "2h" ago would be another criterion.
            moments = {"since": window["from_"], "until": window["to"]}
            fixed = {name: _iso(moment) for name, moment in moments.items() if moment is not None}
            print(f"more: jobhistory list {repeated(context, **fixed, after=cursor)}")
    elif is_requested:
        print(f"next_cursor\t{cursor or ''}")


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
