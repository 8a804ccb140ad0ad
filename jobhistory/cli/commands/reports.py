"""Commands that report on many executions: stats, failures, running and workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeAlias

import typer

from jobhistory._runtime.clock import utc_now
from jobhistory.cli import output
from jobhistory.cli.database import open_store
from jobhistory.cli.options import (
    Columns,
    ErrorContains,
    ErrorType,
    Interval,
    Json,
    Limit,
    NoPager,
    Schema,
    Since,
    Tasks,
    Until,
    Url,
    Utc,
    Watch,
    WorkerPrefix,
    Workers,
    read_window,
)
from jobhistory.cli.pager import paged
from jobhistory.cli.screens.chosen import check_columns, print_chosen
from jobhistory.cli.screens.failures import print_failures
from jobhistory.cli.screens.periods import Periods
from jobhistory.cli.screens.records import print_records_json
from jobhistory.cli.screens.running import print_running, usual_limits
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.stats import print_stats
from jobhistory.cli.screens.workers import print_workers
from jobhistory.cli.watching import Watched, check_watch, read_interval
from jobhistory.errors import check_count
from jobhistory.query.reports import TaskStats, parse_bucket
from jobhistory.schema import HistoryRecord

_KNOWN_FOR = "7 days"

_Stats: TypeAlias = tuple[Sequence[TaskStats], Sequence[TaskStats], Periods | None]
_Running: TypeAlias = tuple[Sequence[HistoryRecord], Mapping[str, int]]


def stats(
    since: Since = "24h",
    until: Until = None,
    task: Tasks = None,
    worker: Workers = None,
    bucket: Annotated[
        str | None,
        typer.Option(
            help="Split into periods of '1h' or '1d', shown as charts on a terminal.",
            metavar="DURATION",
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Read all rows: exact percentiles, without expired runs."),
    ] = False,
    utc: Utc = False,
    watch: Watch = False,
    interval: Interval = "2s",
    no_pager: NoPager = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Show how often each task ran and failed, and how long it took.

    Failed attempts that are tried again count as retried, not as failed. P95 is the 95th percentile
    by nearest rank: 95 % of the executions took no longer. Statistics outlive the rows; where they
    are used, counts and maxima are exact, and percentiles are within 2 %.
    """
    check_watch(watch, json=json)
    length, every = parse_bucket(bucket), read_interval(interval)
    with_charts = length is not None and not json and Screen().is_terminal
    with open_store(url, schema) as store:

        def load() -> _Stats:
            window = read_window(since, until, utc=utc)
            criteria = window | {"task_identifier": task or None, "worker_id": worker or None}
            series = store.stats(criteria, bucket=length, exact=exact)
            # Charts accompany the statistics of the whole window.
            totals = store.stats(criteria, exact=exact) if with_charts else series
            if length is None:
                return totals, series, None
            periods = Periods.of(window["from_"], window["to"] or utc_now(), length, series)
            return totals, series, periods

        def draw(screen: Screen, found: _Stats) -> None:
            print_stats(screen, *found)

        if watch:
            Watched(load, draw, every, utc=utc).run()
        found = load()
    if json:
        for each in found[1]:
            output.print_json(each.to_dict())
    else:
        screen = Screen(utc=utc)
        with paged(screen.console, use_pager=not no_pager):
            draw(screen, found)


def failures(
    since: Since = "24h",
    until: Until = None,
    task: Tasks = None,
    worker: Workers = None,
    error_type: ErrorType = None,
    error_contains: ErrorContains = None,
    new: Annotated[
        bool,
        typer.Option(
            "--new",
            help="Only groups without failures in the 7 days before.",
            rich_help_panel="Filter",
        ),
    ] = False,
    limit: Annotated[
        int, typer.Option(help="Maximum number of groups.", metavar="N", rich_help_panel="Output")
    ] = 100,
    utc: Utc = False,
    no_pager: NoPager = False,
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
        "limit": None if new else limit,
    } | read_window(since, until, utc=utc)
    check_count(limit, "limit")
    with open_store(url, schema) as store:
        groups = store.failure_groups(criteria, known_for=_KNOWN_FOR if new else None)
    if new:
        groups = [group for group in groups if group.is_new][:limit]
    if json:
        for group in groups:
            output.print_json(group.to_dict())
    else:
        screen = Screen(utc=utc)
        with paged(screen.console, use_pager=not no_pager):
            print_failures(screen, groups)


def running(
    since: Since = None,
    task: Tasks = None,
    worker: Workers = None,
    limit: Limit = 100,
    columns: Columns = None,
    utc: Utc = False,
    watch: Watch = False,
    interval: Interval = "2s",
    no_pager: NoPager = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """List the executions that are running, longest first.

    The command reads all executions in the window, so add --since if history is large.
    """
    check_watch(watch, json=json)
    names = columns or []
    check_columns(names, json=json)
    every = read_interval(interval)
    criteria = {"task_identifier": task or None, "worker_id": worker or None, "limit": limit}
    is_compared = Screen().is_terminal and not json and not names
    with open_store(url, schema) as store:

        def load() -> _Running:
            records = store.running(read_window(since, None, utc=utc) | criteria)
            return records, usual_limits(store, records, utc_now()) if is_compared else {}

        def draw(screen: Screen, found: _Running) -> None:
            if names:
                print_chosen(screen, found[0], names)
            else:
                print_running(screen, *found)

        if watch:
            Watched(load, draw, every, utc=utc).run()
        found = load()
    if json:
        print_records_json(found[0])
    else:
        screen = Screen(utc=utc)
        with paged(screen.console, use_pager=not no_pager):
            draw(screen, found)


def workers(
    since: Since = "1h",
    until: Until = None,
    task: Tasks = None,
    worker: Workers = None,
    worker_prefix: WorkerPrefix = None,
    limit: Annotated[
        int, typer.Option(help="Maximum number of workers.", metavar="N", rich_help_panel="Output")
    ] = 100,
    utc: Utc = False,
    no_pager: NoPager = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """List the workers and what they did, last seen first.

    The last sign of life is a start, a heartbeat or an end. The command reads all executions that
    started in the window. A worker of which none did is not in the list.
    """
    criteria = {
        "task_identifier": task or None,
        "worker_id": worker or None,
        "worker_id_starts_with": worker_prefix,
        "limit": limit,
    }
    with open_store(url, schema) as store:
        found = store.workers(read_window(since, until, utc=utc) | criteria)
    if json:
        for each in found:
            output.print_json(each.to_dict())
    else:
        screen = Screen(utc=utc)
        with paged(screen.console, use_pager=not no_pager):
            print_workers(screen, found)
