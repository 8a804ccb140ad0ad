"""What the commands that delete executions on request have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from jobhistory.cli import output
from jobhistory.cli.screens.cells import counted

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print how many would be deleted.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def check_request(criteria: Mapping[str, Any], *, dry_run: bool, yes: bool) -> None:
    """Exit with status 2 if no criterion is given, or if nobody can confirm the deletion."""
    if all(value is None for value in criteria.values()):
        output.say("nothing is chosen; pass --task, --status, --label or another criterion")
        raise typer.Exit(2)
    if not dry_run and not yes and (sys.stdin is None or not sys.stdin.isatty()):
        output.say("nobody can answer here; pass --yes to delete, or --dry-run")
        raise typer.Exit(2)


def confirm(count: Callable[[], int]) -> None:
    """Ask whether to delete so many executions; exit with status 1 unless the answer is yes."""
    typer.confirm(f"Delete {counted(count(), 'execution')}?", abort=True, err=True)


def print_deleted(count: int, *, dry_run: bool, json: bool) -> None:
    """Print how many executions are deleted, or would be."""
    if json:
        output.print_json({"found" if dry_run else "deleted": count})
    else:
        print(f"{counted(count, 'execution')} {'would be deleted' if dry_run else 'deleted'}")
