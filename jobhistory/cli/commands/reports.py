"""Commands that report on many executions: stats, failures and running."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from jobhistory._runtime.clock import utc_now
from jobhistory.cli import output, render
from jobhistory.cli.database import open_store
from jobhistory.cli.options import (
    ErrorContains,
    ErrorType,
    Json,
    Limit,
    Schema,
    Since,
    Tasks,
    Until,
    Url,
    Workers,
    read_window,
)
from jobhistory.query.reports import parse_bucket


def stats(
    since: Since = "24h",
    until: Until = None,
    task: Tasks = None,
    worker: Workers = None,
    bucket: Annotated[
        str | None,
        typer.Option(help="Split into periods of '1h' or '1d', shown as charts on a terminal."),
    ] = None,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Show how often each task ran and failed, and how long it took.

    Failed attempts that are tried again count as retried, not as failed. P95 is the 95th percentile
    by nearest rank: 95 % of the executions took no longer.
    """
    criteria = read_window(since, until) | {
        "task_identifier": task or None,
        "worker_id": worker or None,
    }
    length = parse_bucket(bucket)
    with open_store(url, schema) as store:
        series = store.stats(criteria, bucket=length)
        # Charts accompany the statistics of the whole window.
        with_charts = length is not None and not json and Console().is_terminal
        totals = store.stats(criteria) if with_charts else series
    if json:
        for each in series:
            output.print_json(each.to_dict())
    else:
        render.print_stats(totals, series, length)


def failures(
    since: Since = "24h",
    until: Until = None,
    task: Tasks = None,
    worker: Workers = None,
    error_type: ErrorType = None,
    error_contains: ErrorContains = None,
    limit: Annotated[int, typer.Option(help="Maximum number of groups.")] = 100,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Show the failures in groups, most frequent first.

    A group has one task, one error type, and messages that differ only in numbers, ids, addresses
    and quoted values.
    """
    criteria = {
        "task_identifier": task or None,
        "worker_id": worker or None,
        "error_type": error_type,
        "error_contains": error_contains,
        "limit": limit,
    }
    with open_store(url, schema) as store:
        groups = store.failure_groups(read_window(since, until) | criteria)
    if json:
        for group in groups:
            output.print_json(group.to_dict())
    else:
        render.print_failures(groups)


def running(
    since: Since = None,
    task: Tasks = None,
    worker: Workers = None,
    limit: Limit = 100,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """List the executions that are running, longest first.

    The command reads all executions in the window, so add --since if history is large.
    """
    criteria = {"task_identifier": task or None, "worker_id": worker or None, "limit": limit}
    with open_store(url, schema) as store:
        records = store.running(read_window(since, None) | criteria)
    if json:
        render.print_records_json(records)
    else:
        render.print_running(records, utc_now())
