"""The command that follows history: tail."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from jobhistory.cli import output
from jobhistory.cli.criteria_options import takes_criteria
from jobhistory.cli.database import open_store
from jobhistory.cli.options import Json, Schema, Url, Utc, read_window
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.tail import print_changes

_INTERRUPTED = 130
"""The exit status of a program that Ctrl-C ended, as in a shell."""


@takes_criteria
def tail(
    context: typer.Context,
    criteria: dict[str, Any],
    last: Annotated[
        int,
        typer.Option(
            "--last", "-n", help="Number of the newest executions to begin with.", metavar="N"
        ),
    ] = 10,
    utc: Utc = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Print executions as they start and as they end, until Ctrl-C.

    Each change is a line. Ctrl-C ends it with status 130. It listens for the notifications of
    stores with `notify=True`, and otherwise looks every two seconds. It goes on after an outage.
    """
    if utc:
        criteria |= read_window(context.params["since"], context.params["until"], utc=True)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        with open_store(url, schema) as store, store.follow(criteria, last=last) as changes:
            if json:
                for record in changes:
                    output.print_json(record.to_dict())
            else:
                print_changes(Screen(utc=utc), changes)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
