"""The command that partitions the history table."""

from __future__ import annotations

import sys
from typing import Annotated, cast

import typer
from rich.console import Console

from jobhistory import partitioning
from jobhistory.cli import output
from jobhistory.cli.database import open_engine
from jobhistory.cli.options import Json, Schema, Url
from jobhistory.errors import InvalidInput
from jobhistory.partitioning import Every


def partition(
    every: Annotated[
        str | None,
        typer.Option(
            help="The length of a partition: day, week or month. At first a week.", metavar="SPAN"
        ),
    ] = None,
    ahead: Annotated[
        int | None,
        typer.Option(help="How many partitions exist ahead of time. At first 4.", metavar="N"),
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Make the table a plain one again; others wait.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Partition the history table, or create the next partitions; meant for cron.

    PostgreSQL can then drop a span of expired executions at once. It is for histories of more than
    about 20 million rows. Run it as the owner of the table, each day. Recording goes on meanwhile.
    Without an option, it does as the last time.

    Without a terminal, the command prints nothing unless it changes something.
    """
    for option, value in (("--every", every), ("--ahead", ahead)):
        if undo and value is not None:
            raise InvalidInput(option, value, "does not go with --undo; leave one of them out")
    if undo and not yes and (sys.stdin is None or not sys.stdin.isatty()):
        output.say("nobody can answer here; pass --yes to undo the partitions")
        raise typer.Exit(2)
    with open_engine(url) as engine:
        if undo:
            if not yes:
                question = "Make the table plain again? All recording waits until rows have moved."
                typer.confirm(question, abort=True, err=True)
            partitioning.undo(engine, schema=schema)
            partitions = partitioning.partitions_of(engine, schema=schema)
        else:
            partitions = partitioning.partition(
                engine, every=cast(Every | None, every), ahead=ahead, schema=schema
            )
    if json:
        output.print_json(partitions.to_dict())
    elif undo or partitions.created or Console().is_terminal:
        print(partitions)
