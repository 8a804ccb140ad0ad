"""Maintain history from cron: expire and reap."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jobhistory.cli import output
from jobhistory.cli.database import open_store
from jobhistory.cli.options import Json, Schema, Url
from jobhistory.store import HistoryStore


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


def _expire_with_bar(store: HistoryStore, console: Console, options: dict[str, Any]) -> int:
    columns = (TextColumn("expiring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("expiring", total=store.expire(dry_run=True))
        return store.expire(progress=lambda done: bar.update(task, completed=done), **options)


def _executions(count: int) -> str:
    return "1 execution" if count == 1 else f"{count} executions"
