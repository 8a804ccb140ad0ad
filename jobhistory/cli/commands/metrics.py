"""The command that prints metrics for Prometheus, or writes them to a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from jobhistory.cli import output
from jobhistory.cli.database import open_store
from jobhistory.cli.options import Schema, Url
from jobhistory.cli.textfile import Textfile, check_textfile, write_whole


def metrics(
    textfile: Textfile = None,
    max_tasks: Annotated[
        int,
        typer.Option(
            help="Number of tasks with series of their own; others are '_other'.", metavar="N"
        ),
    ] = 200,
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Print metrics of all history in the text format of Prometheus.

    With --textfile, the command replaces the file as a whole, with mode 0644, and prints nothing.
    If it fails, the file stays as it was. Call it from cron every minute.
    """
    check_textfile(textfile)
    with open_store(url, schema) as store:
        text = store.metrics(max_tasks=max_tasks)
    if textfile is not None:
        write_whole(Path(textfile), text)
    else:
        print(output.shown(text) if sys.stdout.isatty() else text, end="")
