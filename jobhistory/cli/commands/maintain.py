"""Commands that maintain history: expire and reap, meant for cron, and purge."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobhistory.cli import output
from jobhistory.cli.criteria_options import takes_criteria
from jobhistory.cli.database import open_store
from jobhistory.cli.options import Json, Schema, Tasks, Url, Verbose, Workers
from jobhistory.store import HistoryStore

BatchSize = Annotated[int, typer.Option(help="Maximum number of rows per transaction.")]
TimeLimit = Annotated[str | None, typer.Option(help="Stop after this long: '30s' or '5 minutes'.")]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print how many would be deleted.")]


def expire(
    batch_size: BatchSize = 2000,
    time_limit: TimeLimit = None,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Delete executions whose retention has passed; meant for cron.

    Without a terminal, the command prints nothing unless it fails or reaches its time limit.
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


def reap(
    older_than: Annotated[
        str | None,
        typer.Option(help="Age after which a started execution counts as lost, e.g. '2h'."),
    ] = None,
    heartbeat_older_than: Annotated[
        str | None,
        typer.Option(help="Time without a heartbeat after which it counts as lost, e.g. '1 min'."),
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
    has not ended. With both options, both must hold.

    Without a terminal, the command prints nothing unless it fails or reaches its time limit.
    """
    with open_store(url, schema) as store:
        count = store.reap_lost(
            older_than,
            heartbeat_older_than=heartbeat_older_than,
            task_identifier=task or None,
            worker_id=worker or None,
            batch_size=batch_size,
            time_limit=time_limit,
        )
    if json:
        output.print_json({"reaped": count})
    elif verbose or Console().is_terminal:
        print(f"{_executions(count)} marked as failed (worker lost)")


@takes_criteria
def purge(
    criteria: dict[str, Any],
    batch_size: BatchSize = 2000,
    time_limit: TimeLimit = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Delete the executions that meet all criteria, whether or not they have expired.

    The command asks first. Without a terminal, it needs --yes or --dry-run. Executions that still
    run are deleted, too, unless --status leaves them out, and may be recorded again at their end.
    """
    if all(value is None for value in criteria.values()):
        output.say("nothing is chosen; pass --task, --status, --label or another criterion")
        raise typer.Exit(2)
    if not dry_run and not yes and (sys.stdin is None or not sys.stdin.isatty()):
        output.say("nobody can answer here; pass --yes to delete, or --dry-run")
        raise typer.Exit(2)
    with open_store(url, schema) as store:
        if not dry_run and not yes:
            found = _executions(store.purge(criteria, batch_size=batch_size, dry_run=True))
            typer.confirm(f"Delete {found}?", abort=True, err=True)
        count = store.purge(criteria, batch_size=batch_size, time_limit=time_limit, dry_run=dry_run)
    if json:
        output.print_json({"found" if dry_run else "deleted": count})
    else:
        print(f"{_executions(count)} {'would be deleted' if dry_run else 'deleted'}")


def _expire_with_bar(store: HistoryStore, console: Console, options: dict[str, Any]) -> int:
    columns = (TextColumn("expiring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("expiring", total=store.expire(dry_run=True))
        return store.expire(progress=lambda done: bar.update(task, completed=done), **options)


def _executions(count: int) -> str:
    return "1 execution" if count == 1 else f"{count} executions"
