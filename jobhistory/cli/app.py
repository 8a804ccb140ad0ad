"""The program, assembled from its commands."""

from __future__ import annotations

from typing import Annotated

import typer

import jobhistory
from jobhistory.cli.commands import db, maintain, read, replay, reports, run

app = typer.Typer(
    help="Record job executions, and show what ran, when, for how long, and why it failed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, and so passwords
    context_settings={"help_option_names": ["-h", "--help"]},
)
db_app = typer.Typer(help="Create the history table and keep it up to date.", no_args_is_help=True)
app.add_typer(db_app, name="db")

app.command(context_settings={"allow_interspersed_args": False})(run.run)
app.command("list")(read.list_executions)
app.command()(reports.stats)
app.command()(reports.failures)
app.command()(reports.running)
app.command()(read.show)
app.command()(replay.replay)
app.command()(maintain.expire)
app.command()(maintain.purge)
app.command()(maintain.reap)

db_app.command()(db.upgrade)
db_app.command()(db.downgrade)
db_app.command()(db.current)
db_app.command()(db.check)
db_app.command()(db.maintain)
db_app.command()(db.sql)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"jobhistory {jobhistory.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass
