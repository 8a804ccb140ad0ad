"""The program, assembled from its commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer
from typer.main import get_command

import jobhistory
from jobhistory.cli.commands import (
    archive,
    check,
    completion,
    db,
    demo,
    expect,
    expect_import,
    incidents,
    maintain,
    metrics,
    partition,
    read,
    replay,
    reports,
    retention,
    run,
    tail,
    web,
)
from jobhistory.cli.commands import help as help_command
from jobhistory.cli.examples import EXAMPLES
from jobhistory.cli.help import Command, Group
from jobhistory.cli.nagios import Plugin

_app = typer.Typer(
    cls=Group,
    help="Record job executions, and show what ran, when, for how long, and why it failed.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # errors are lines, without a frame
    pretty_exceptions_enable=False,  # its tracebacks show local variables, and so passwords
    context_settings={"help_option_names": ["-h", "--help"]},
)
_db_app = typer.Typer(
    cls=Group,
    help="Create the history table and keep it up to date.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_archive_app = typer.Typer(
    cls=Group,
    help="Read the archives of expired executions, and check and change them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_expect_app = typer.Typer(
    cls=Group,
    help="Declare what is expected of tasks.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_GROUPS = {"": _app, "archive": _archive_app, "db": _db_app, "expect": _expect_app}


def _add(
    function: Callable[..., None],
    name: str,
    group: str,
    command: type[Command] = Command,
    **context_settings: bool,
) -> None:
    """Add a command, whose help lists it in a group, and which has examples."""
    parent, _, last = name.rpartition(" ")
    _GROUPS[parent].command(
        last,
        cls=command,
        epilog="\n".join(EXAMPLES[name]),
        rich_help_panel=group,
        context_settings=context_settings or None,
    )(function)


_RECORD, _LOOK, _KEEP, _OTHER = "Record", "Look at history", "Keep history in order", "Other"
_EXPECT = "Find out what did not run"

_add(run.run, "run", _RECORD, allow_interspersed_args=False)
_add(read.list_executions, "list", _LOOK)
_add(read.show, "show", _LOOK)
_add(tail.tail, "tail", _LOOK)
_add(reports.running, "running", _LOOK)
_add(reports.stats, "stats", _LOOK)
_add(reports.failures, "failures", _LOOK)
_add(reports.workers, "workers", _LOOK)
_add(metrics.metrics, "metrics", _LOOK)
_add(web.web, "web", _LOOK)
_add(check.check, "check", _EXPECT, Plugin)
_add(incidents.incidents, "incidents", _EXPECT)
_app.add_typer(_expect_app, name="expect", rich_help_panel=_EXPECT)
_add(maintain.expire, "expire", _KEEP)
_add(maintain.fold, "fold", _KEEP)
_add(maintain.reap, "reap", _KEEP)
_add(maintain.purge, "purge", _KEEP)
_add(retention.retention, "retention", _KEEP)
_app.add_typer(_archive_app, name="archive", rich_help_panel=_KEEP)
_app.add_typer(_db_app, name="db", rich_help_panel=_KEEP)
_add(replay.replay, "replay", _OTHER)
_add(demo.demo, "demo", _OTHER)
_add(completion.completion, "completion", _OTHER)
_add(help_command.show_help, "help", _OTHER)

_add(archive.sql, "archive sql", "Commands")
_add(archive.verify, "archive verify", "Commands")
_add(archive.restore, "archive restore", "Commands")
_add(archive.delete, "archive delete", "Commands")

_add(db.upgrade, "db upgrade", "Commands")
_add(db.downgrade, "db downgrade", "Commands")
_add(db.current, "db current", "Commands")
_add(db.check, "db check", "Commands")
_add(db.maintain, "db maintain", "Commands")
_add(partition.partition, "db partition", "Commands")
_add(db.distribute, "db distribute", "Commands")
_add(db.sql, "db sql", "Commands")

_add(expect.list_expectations, "expect list", "Commands")
_add(expect.show, "expect show", "Commands")
_add(expect.add, "expect add", "Commands")
_add(expect.edit, "expect edit", "Commands")
_add(expect.remove, "expect remove", "Commands")
_add(expect_import.import_schedules, "expect import", "Commands")
_add(expect.pause, "expect pause", "Commands")
_add(expect.resume, "expect resume", "Commands")
_add(expect.load, "expect load", "Commands")
_add(expect.export, "expect export", "Commands")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"jobhistory {jobhistory.__version__}")
        raise typer.Exit


@_app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


program = get_command(_app)
"""The program, built once: that takes longer than many commands."""
