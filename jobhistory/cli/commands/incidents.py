"""The command that lists what checks have found: incidents."""

from __future__ import annotations

from typing import Annotated

import typer

from jobhistory.cli import output
from jobhistory.cli.database import open_store
from jobhistory.cli.options import Json, Limit, NoPager, Schema, Tasks, Url, Utc, read_window
from jobhistory.cli.pager import paged
from jobhistory.cli.screens.incidents import print_incidents
from jobhistory.cli.screens.screen import Screen


def incidents(
    since: Annotated[
        str | None,
        typer.Option(
            help="Open at this time or later: '2h' (ago), 'today' or '2026-11-01'.",
            metavar="WHEN",
            rich_help_panel="Filter",
        ),
    ] = None,
    task: Tasks = None,
    only_open: Annotated[
        bool,
        typer.Option("--open", help="Leave out what is over.", rich_help_panel="Filter"),
    ] = False,
    limit: Limit = 100,
    utc: Utc = False,
    no_pager: NoPager = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """List the problems that checks have found, newest first.

    An incident lasts from the check that found the problem to the one that no longer did. MISSED is
    the number of starts that were due and did not come.
    """
    with open_store(url, schema) as store:
        found = store.incidents(
            from_=read_window(since, None)["from_"],
            task_identifier=task or None,
            only_open=only_open,
            limit=limit,
        )
    if json:
        for each in found:
            output.print_json(each.to_dict())
    else:
        screen = Screen(utc=utc)
        with paged(screen.console, use_pager=not no_pager):
            print_incidents(screen, found)
