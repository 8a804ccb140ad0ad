"""The commands that compare history with what is expected: check."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from jobhistory.cli import output
from jobhistory.cli.alerts import read_alerts
from jobhistory.cli.database import open_existing_store
from jobhistory.cli.expectation_options import machine_timezone
from jobhistory.cli.heartbeat import read_heartbeat, send_heartbeat
from jobhistory.cli.nagios import exit_unknown, plugin_lines, worst_severity
from jobhistory.cli.options import (
    Interval,
    Json,
    NoPager,
    Schema,
    Tasks,
    Url,
    Watch,
    read_window,
)
from jobhistory.cli.pager import paged
from jobhistory.cli.screens.checks import Finding, findings, print_checks
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.textfile import Textfile, check_textfile, write_whole
from jobhistory.cli.watching import Watched, check_watch, read_interval
from jobhistory.errors import InvalidInput
from jobhistory.expectations.metrics import families_of
from jobhistory.expectations.schedule import read_timezone
from jobhistory.expectations.toml_file import suggestions_as_toml
from jobhistory.expectations.verdicts import Checked
from jobhistory.statistics.prometheus import text_of

_DECLARE = "declare it like: jobhistory expect add nightly --every 1d"


_Result: TypeAlias = tuple[list[Checked], list[Finding]]


class Format(StrEnum):
    """For whom a check prints."""

    NAGIOS = "nagios"
    JSON = "json"
    PROMETHEUS = "prometheus"


_PARSED = (Format.JSON, Format.PROMETHEUS)
"""The formats in which every line is for a program."""


def check(
    task: Tasks = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing: no incident opens or closes.")
    ] = False,
    all_: Annotated[
        bool,
        typer.Option("--all", help="Also show tasks that are fine.", rich_help_panel="Output"),
    ] = False,
    format_: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="'nagios', 'json' or 'prometheus'. Default: a table on a terminal, and in a pipe "
            "'nagios'.",
            metavar="FORMAT",
            show_default=False,
            rich_help_panel="Output",
        ),
    ] = None,
    alert: Annotated[
        list[str] | None,
        typer.Option(
            help="Send alerts of what is new to this receiver: 'command:/usr/local/bin/page', "
            "'https://example.org/hook', 'smtp://...' or 'stdout'. Variable: JOBHISTORY_ALERT.",
            metavar="RECEIVER",
            show_default=False,
        ),
    ] = None,
    page_url: Annotated[
        str | None,
        typer.Option(
            help="Where the web page is, for links in alerts.", metavar="URL", show_default=False
        ),
    ] = None,
    textfile: Textfile = None,
    heartbeat: Annotated[
        str | None,
        typer.Option(
            help="Request this URL after each check, whatever it finds, to watch the checker.",
            envvar="JOBHISTORY_HEARTBEAT",
            metavar="URL",
            show_default=False,
            callback=read_heartbeat,
        ),
    ] = None,
    watch: Watch = False,
    interval: Interval = "30s",
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="Print nothing but errors and alerts, for cron.",
            rich_help_panel="Output",
        ),
    ] = False,
    suggest: Annotated[
        bool,
        typer.Option(
            "--suggest",
            help="Check nothing; print expectations that history suggests, as TOML.",
            rich_help_panel="Suggest",
        ),
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            help="Suggest from executions that started at this time or later, such as '60d' (ago).",
            metavar="WHEN",
            rich_help_panel="Suggest",
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            "--timezone",
            help="The time zone of the schedules. Default: that of this machine.",
            metavar="ZONE",
            show_default=False,
            rich_help_panel="Suggest",
        ),
    ] = None,
    no_pager: NoPager = False,
    json: Json = False,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Check whether tasks ran as expected, and exit with the status of a Nagios plugin.

    The status is 0 if all is well, 1 for a warning, 2 if a problem is critical, and 3 if the check
    could not be made: an option is invalid, the database does not answer, or nothing is expected.
    Then the output is one line that says why. 'jobhistory expect' declares what is expected.

    New problems open an incident, which a later check closes. What happened since the last check
    counts, so a start that was missed in between is found, however often the check runs.

    With --json, each problem is a line; with --all, so is each task without one.

    With --suggest, nothing is checked and the status is 0. What it prints is a TOML file for
    'jobhistory expect load'; comments tell the evidence.
    """
    if suggest:
        _suggest(task, since, timezone, url, schema, as_json=json)
        return
    for option, value in (("--since", since), ("--timezone", timezone)):
        if value is not None:
            raise InvalidInput(option, value, "goes with --suggest only; leave it out")
    if json and format_ not in (None, Format.JSON):
        raise InvalidInput("--format", format_, "does not go with --json; leave one of them out")
    form = Format.JSON if json else format_
    _refuse_together("--json" if json else form and f"--format {form}", watch=watch, quiet=quiet)
    check_watch(watch, json=json)
    every = read_interval(interval)
    check_textfile(textfile)
    notify = read_alerts(alert, page_url, may_print=form not in _PARSED and not watch)
    with open_existing_store(url, schema) as store:

        def load() -> _Result:
            checks = store.check(task or None, dry_run=dry_run)
            open_ = store.incidents(task_identifier=task or None, only_open=True, limit=None)
            return checks, findings(checks, open_, with_fine=all_)

        def finish(checks: list[Checked]) -> None:
            if checks and not dry_run:
                notify(store)
            if checks and heartbeat is not None:
                send_heartbeat(heartbeat)

        def load_and_finish() -> _Result:
            result = load()
            finish(result[0])
            return result

        if watch:
            Watched(load_and_finish, _draw, every, utc=False).run()
        checks, found = load()
        if not checks:
            whom = f"of {', '.join(task)}" if task else "of any task"
            exit_unknown(f"nothing is expected {whom}; {_DECLARE}", on_stderr=form in _PARSED)
        if textfile is not None:
            families = families_of(checks, checks[0].checked_at, len(checks))
            write_whole(Path(textfile), text_of(families))
        if not quiet:
            _print(form, checks, found, use_pager=not no_pager)
        finish(checks)
    raise typer.Exit(worst_severity(checks).exit_status)


def _refuse_together(form: str | None, *, watch: bool, quiet: bool) -> None:
    """Refuse options that exclude each other."""
    others = {"--watch": watch, "--quiet": quiet}
    for option, is_given in others.items():
        if is_given and form is not None:
            raise InvalidInput(option, True, f"does not go with {form}; leave one of them out")
    if watch and quiet:
        raise InvalidInput("--watch", True, "does not go with --quiet; leave one of them out")


def _print(
    form: Format | None, checks: list[Checked], found: list[Finding], *, use_pager: bool
) -> None:
    screen = Screen(now=checks[0].checked_at)
    if form is Format.JSON:
        for each in found:
            output.print_json(each.to_dict())
    elif form is Format.PROMETHEUS:
        text = text_of(families_of(checks, checks[0].checked_at, len(checks)))
        print(output.shown(text) if screen.is_terminal else text, end="")
    elif form is Format.NAGIOS or not screen.is_terminal:
        for line in plugin_lines(checks):
            print(line)
    else:
        with paged(screen.console, use_pager=use_pager):
            print_checks(screen, checks, found)
    sys.stdout.flush()  # a reader that has gone is an error, and not the status of the check


def _draw(screen: Screen, result: _Result) -> None:
    print_checks(screen, *result)


def _suggest(
    task: list[str] | None,
    since: str | None,
    timezone: str | None,
    url: str | None,
    schema: str | None,
    *,
    as_json: bool,
) -> None:
    """Print what history suggests to expect: as TOML, or as lines of JSON."""
    if timezone is not None:
        read_timezone(timezone, "--timezone")
    from_ = read_window(since, None)["from_"]
    with open_existing_store(url, schema) as store:
        suggestions = store.suggest_expectations(
            task or None, from_=from_, timezone=timezone or machine_timezone()
        )
    if as_json:
        for each in suggestions:
            output.print_json(each.to_dict())
        return
    print(suggestions_as_toml(suggestions) or "# no task has ended yet", end="")
