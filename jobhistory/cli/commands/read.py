"""Commands that read executions: list and show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.text import Text
from sqlalchemy.exc import DBAPIError

from jobhistory._runtime.clock import utc_now
from jobhistory.cli import output
from jobhistory.cli.criteria_options import takes_criteria
from jobhistory.cli.database import open_store
from jobhistory.cli.lookup import executions_named
from jobhistory.cli.options import (
    Columns,
    Json,
    Limit,
    NoPager,
    Schema,
    Url,
    Utc,
    read_window,
    repeated,
)
from jobhistory.cli.pager import paged
from jobhistory.cli.screens.chosen import check_columns, print_chosen, print_chosen_texts
from jobhistory.cli.screens.details import print_details
from jobhistory.cli.screens.records import print_all, print_records, print_records_json
from jobhistory.cli.screens.screen import Screen
from jobhistory.database.driver_errors import is_denied
from jobhistory.errors import InvalidInput
from jobhistory.expectations.missed import MissedRun, MissedTime
from jobhistory.query.criteria import coerce
from jobhistory.query.cursor import Page
from jobhistory.schema import HistoryRecord
from jobhistory.store import HistoryStore

_DEFAULT_LIMIT = 100


@takes_criteria
def list_executions(
    context: typer.Context,
    criteria: dict[str, Any],
    oldest: Annotated[
        bool, typer.Option("--oldest", help="Oldest first.", rich_help_panel="Output")
    ] = False,
    limit: Limit = _DEFAULT_LIMIT,
    after: Annotated[
        str | None,
        typer.Option(
            help="Continue after this cursor, or at the 'start'; prints the next cursor last. "
            "Repeat the other options, with absolute times.",
            metavar="CURSOR",
            rich_help_panel="Output",
        ),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Every match, streamed, tab-separated.", rich_help_panel="Output"
        ),
    ] = False,
    columns: Columns = None,
    utc: Utc = False,
    no_pager: NoPager = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """List executions, newest first.

    On a terminal, runs that were missed stand among them, where they were due; see `check`. If
    there are more executions, the last line is the command for the next page.
    """
    if utc:
        criteria |= read_window(context.params["since"], context.params["until"], utc=True)
    criteria["order"] = "oldest" if oldest else "newest"
    names = columns or []
    check_columns(names, json=json)
    if everything:
        _refuse_pages(limit, after)
        with open_store(url, schema) as store:
            _print_all(store.iterate(criteria), names, json=json)
        return
    with open_store(url, schema) as store:
        cursor = None if after == "start" else after
        page = store.page(criteria, after=cursor, limit=limit)
        screen = Screen(utc=utc)
        is_table = screen.is_terminal and not json and not names
        missed = _missed(store, criteria, page, cursor) if is_table else []
    with paged(screen.console, use_pager=not no_pager):
        if json:
            print_records_json(page.records)
        elif names:
            print_chosen(screen, page.records, names)
        else:
            print_records(screen, page.records, missed, criteria["order"])
        _print_next(screen, page, context, criteria, json=json)


def show(
    id_: Annotated[
        str,
        typer.Argument(
            help="The id of a job or of an execution, or the beginning of one.", metavar="ID"
        ),
    ],
    utc: Utc = False,
    no_pager: NoPager = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Show all executions of a job, newest first, with payload, error and traceback.

    With the id of an execution, show only that one. The beginning of an id is enough if no other id
    begins so; otherwise the command lists the candidates, and its exit status is 1. Jobs are found
    by the beginning of their id among the newest 100,000 executions.
    """
    with open_store(url, schema) as store:
        records = executions_named(store, id_)
    if json:
        print_records_json(records)
        return
    screen = Screen(utc=utc)
    with paged(screen.console, use_pager=not no_pager):
        print_details(screen, records)


def _missed(
    store: HistoryStore, criteria: dict[str, Any], page: Page, after: str | None
) -> list[MissedRun]:
    time = MissedTime.of_page(coerce(criteria, {}), page, after, utc_now())
    if time is None:
        return []
    try:
        return time.missed_runs(store.incidents(**time.criteria))
    except DBAPIError as error:
        if is_denied(error):  # the role may read executions only
            return []
        raise


def _print_all(records: Iterable[HistoryRecord], names: Sequence[str], *, json: bool) -> None:
    if json:
        print_records_json(records)
    elif names:
        print_chosen_texts(records, names)
    else:
        print_all(records)


def _refuse_pages(limit: int, after: str | None) -> None:
    if after is not None or limit != _DEFAULT_LIMIT:
        option, value = ("--limit", limit) if after is None else ("--after", after)
        raise InvalidInput(option, value, "cannot be combined with --all; leave one of them out")


def _print_next(
    screen: Screen, page: Page, context: typer.Context, criteria: dict[str, Any], *, json: bool
) -> None:
    """Print where the next page starts: a command on a terminal, the cursor if `--after` asks."""
    cursor, is_requested = page.next_cursor, context.params["after"] is not None
    if json:
        if is_requested:
            output.print_json({"next_cursor": cursor})
    elif screen.is_terminal:
        if cursor is not None:
            # Counted from now, "2h" ago would be another criterion.
            moments = {"since": criteria["from_"], "until": criteria["to"]}
            fixed = {name: _iso(moment) for name, moment in moments.items() if moment is not None}
            hint = f"more: jobhistory list {repeated(context, **fixed, after=cursor)}"
            screen.console.print(Text(hint), soft_wrap=True)
    elif is_requested:
        print(f"next_cursor\t{cursor or ''}")


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
