"""Reports on many executions: stats, failures and running."""

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
    Schema,
    Since,
    Tasks,
    Until,
    Url,
    Worker,
    read_window,
)
from jobhistory.query.reports import parse_bucket


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
    criteria = read_window(since, until) | {"task_identifier": task or None, "worker_id": worker}
    length = parse_bucket(bucket)
    with open_store(url, schema) as store:
        found = store.stats(criteria, bucket=length)
        # Charts go with the statistics of the whole time.
        with_charts = length is not None and not json and Console().is_terminal
        totals = store.stats(criteria) if with_charts else found
    if json:
        for each in found:
            output.print_json(render.stats_json(each))
    else:
        render.print_stats(totals, found, length)


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
        groups = store.failures(read_window(since, until) | criteria)
    if json:
        for group in groups:
            output.print_json(render.failures_json(group))
    else:
        render.print_failures(groups)


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
        records = store.running(read_window(since, None) | criteria)
    if json:
        render.print_records_json(records)
    else:
        render.print_running(records, utc_now())
