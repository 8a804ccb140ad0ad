"""Commands that maintain history: expire, fold and reap, meant for cron, and purge."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobhistory.cli import output
from jobhistory.cli.criteria_options import takes_criteria
from jobhistory.cli.database import open_store, open_store_with_rules
from jobhistory.cli.deletion import DryRun, Yes, check_request, confirm, print_deleted
from jobhistory.cli.options import (
    BatchSize,
    Daily,
    DefaultRetention,
    Hourly,
    Json,
    Rules,
    Schema,
    Tasks,
    Url,
    Verbose,
    Workers,
)
from jobhistory.cli.screens.cells import counted
from jobhistory.errors import InvalidInput

TimeLimit = Annotated[
    str | None, typer.Option(help="Stop after this long: '30s' or '5 minutes'.", metavar="DURATION")
]


def expire(
    rules: Rules = None,
    retention: DefaultRetention = None,
    archive: Annotated[
        str | None,
        typer.Option(
            help="First write what is deleted to Parquet files in this folder, or at this URL.",
            metavar="URL",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Maximum number of rows per transaction: 2000, or 100000 with --archive.",
            metavar="N",
        ),
    ] = None,
    time_limit: TimeLimit = None,
    dry_run: DryRun = False,
    hourly: Hourly = "35 days",
    daily: Daily = "400 days",
    by_partition: Annotated[
        bool,
        typer.Option(
            "--by-partition",
            help="Drop whole partitions. Rows live up to one partition longer, e.g. a week.",
        ),
    ] = False,
    verbose: Verbose = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Delete executions whose retention has passed; meant for cron.

    With --rules, the command first applies these rules if they have changed. Without, it follows
    those that were applied last.

    With --by-partition, executions wait until all of their partition can be dropped; see
    'jobhistory db partition'. Where the table has no partitions, the option has no effect.

    With --archive, no execution is deleted before a file has it, and each file has its executions
    once, whenever the command is killed. Always pass the same archive.

    Without a terminal, the command prints nothing unless it fails or reaches its time limit.
    """
    console = Console()
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "time_limit": time_limit,
        "by_partition": by_partition,
        "archive": archive,
    }
    is_shown = dry_run or verbose or console.is_terminal
    waiting = None
    kept = {"hourly_statistics": hourly, "daily_statistics": daily}
    with open_store_with_rules(url, schema, rules, retention, **kept) as store:
        if dry_run:
            count = store.expire(dry_run=True, **options)
        elif console.is_terminal and not json:
            count = _with_bar("expiring", store.expire, console, options)
        else:
            count = store.expire(**options)
        if by_partition and (json or is_shown):
            waiting = store.waiting_for_partition()
    if json:
        found: dict[str, Any] = {"expired" if dry_run else "deleted": count}
        if waiting is not None:
            found |= {
                "waiting": waiting.count,
                "waiting_until": waiting.until and output.iso_text(waiting.until),
            }
        output.print_json(found)
    elif is_shown:
        print(f"{counted(count, 'execution')} {'would be deleted' if dry_run else 'deleted'}")
        if waiting is not None and waiting.until is not None:
            print(
                f"{counted(waiting.count, 'execution')} {'waits' if waiting.count == 1 else 'wait'}"
                f" for {'its' if waiting.count == 1 else 'their'} partition,"
                f" until {waiting.until:%Y-%m-%d}"
            )


def fold(
    batch_size: BatchSize = 50_000,
    time_limit: TimeLimit = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print how many wait.")] = False,
    recount: Annotated[
        tuple[str, str] | None,
        typer.Option(
            help="Count the rows that started in these hours again: '2026-11-28T12:00' (UTC).",
            metavar="FROM TO",
        ),
    ] = None,
    hourly: Hourly = "35 days",
    daily: Daily = "400 days",
    verbose: Verbose = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Add executions that have ended to the statistics; meant for cron.

    Then it deletes old statistics by hour and by day. Those by month stay.

    Statistics outlive the executions. They are right without this command, too, but take longer.

    Without a terminal, the command prints nothing unless it fails or reaches its time limit.
    """
    if recount is not None and dry_run:
        raise InvalidInput("--dry-run", dry_run, "does not go with --recount; leave one out")
    console = Console()
    options: dict[str, Any] = {"batch_size": batch_size, "time_limit": time_limit}
    kept = {"hourly_statistics": hourly, "daily_statistics": daily}
    with open_store(url, schema, **kept) as store:
        if recount is not None:
            from_, to = (_hour(text) for text in recount)
            try:
                count = store.recount(from_, to)
            except InvalidInput as error:
                typed: dict[str, str] = dict(zip(("from_", "to"), recount, strict=True))
                value = typed.get(error.argument, error.value)
                raise InvalidInput("--recount", value, error.remedy) from error
        elif dry_run:
            count = store.fold(dry_run=True, **options)
        elif console.is_terminal and not json:
            count = _with_bar("folding", store.fold, console, options)
        else:
            count = store.fold(**options)
    if json:
        done = "recounted" if recount else "waiting" if dry_run else "folded"
        output.print_json({done: count})
    elif dry_run or verbose or console.is_terminal:
        done = "recounted" if recount else "would be folded" if dry_run else "folded"
        print(f"{counted(count, 'execution')} {done}")


def reap(
    older_than: Annotated[
        str | None,
        typer.Option(
            help="Age after which a started execution counts as lost, e.g. '2h'.",
            metavar="DURATION",
        ),
    ] = None,
    heartbeat_older_than: Annotated[
        str | None,
        typer.Option(
            help="Time without a heartbeat after which it counts as lost, e.g. '1 min'.",
            metavar="DURATION",
        ),
    ] = None,
    task: Tasks = None,
    worker: Workers = None,
    batch_size: BatchSize = 1000,
    time_limit: TimeLimit = None,
    verbose: Verbose = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Mark lost executions as failed; meant for cron.

    An execution is lost if its worker died: it started long ago, or its heartbeats stopped, and it
    has not ended. With both options, both must hold. In any case, those of 'jobhistory run' are
    lost whose processes on this machine, of this user, were killed.

    Without a terminal, the command prints nothing unless it fails or reaches its time limit.
    """
    if older_than is None and heartbeat_older_than is None:
        output.say("pass --older-than or --heartbeat-older-than, as in --older-than 2h")
        raise typer.Exit(2)
    with open_store(url, schema) as store:
        count = store.reap_lost(
            older_than,
            heartbeat_older_than=heartbeat_older_than,
            task_identifier=task or None,
            worker_id=worker or None,
            batch_size=batch_size,
            time_limit=time_limit,
        )
        if os.name == "posix":
            from jobhistory.cli.killed_runs import end_killed_runs  # which others cannot import

            count += end_killed_runs(store, task_identifier=task or None, worker_id=worker or None)
    if json:
        output.print_json({"reaped": count})
    elif verbose or Console().is_terminal:
        print(f"{counted(count, 'execution')} marked as failed (worker lost)")


@takes_criteria
def purge(
    criteria: dict[str, Any],
    batch_size: BatchSize = 2000,
    time_limit: TimeLimit = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Delete the executions that meet all criteria, whether or not they have expired.

    The command asks first. Without a terminal, it needs --yes or --dry-run. Executions that still
    run are deleted, too, unless --status leaves them out, and may be recorded again at their end.
    Statistics still count what was deleted, by task.
    """
    check_request(criteria, dry_run=dry_run, yes=yes)
    with open_store(url, schema) as store:
        if not dry_run and not yes:
            confirm(lambda: store.purge(criteria, batch_size=batch_size, dry_run=True))
        count = store.purge(criteria, batch_size=batch_size, time_limit=time_limit, dry_run=dry_run)
    print_deleted(count, dry_run=dry_run, json=json)


def _hour(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            "--recount", text, "is not a time; write it like '2026-11-28T12:00'"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _with_bar(
    name: str, work: Callable[..., int], console: Console, options: dict[str, Any]
) -> int:
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=work(dry_run=True))
        return work(progress=lambda done: bar.update(task, completed=done), **options)
