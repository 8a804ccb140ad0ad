"""Run a command and record its execution."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer

from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.durations import parse_retention
from jobhistory.cli.database import open_store
from jobhistory.cli.options import Schema, Url
from jobhistory.cli.output import fail
from jobhistory.database.engines import engine_from_url
from jobhistory.errors import InvalidInput
from jobhistory.execution.ids import id_text, name_text
from jobhistory.execution.job import Job
from jobhistory.sanitize.truncate import holdable


def run(
    command: Annotated[
        list[str], typer.Argument(help="The command and its arguments, best after a --.")
    ],
    task: Annotated[
        str | None, typer.Option(help="What kind of work it is; else the command's name.")
    ] = None,
    job_id: Annotated[str | None, typer.Option(help="Which job; else a new id.")] = None,
    correlation_id: Annotated[
        str | None, typer.Option(help="What ties it to other executions; else the job's id.")
    ] = None,
    retention: Annotated[
        str, typer.Option(help="How long to keep the record: '12h', '1 week', 'never'.")
    ] = "30 days",
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Run a command and record its execution.

    Output passes through as it comes, and the exit status is the command's own: 128 and the number
    of the signal that ended it, 127 if it was not found, 126 if it could not be started. If history
    cannot be written, the command runs all the same, and standard error says what is not recorded.
    An option that cannot be used is refused before the command runs, with exit status 2.
    """
    if os.name != "posix":
        fail("run needs a POSIX system, for its signals")
    from jobhistory.cli.recorded_run import RecordedRun  # which other systems cannot import

    _check_options(
        task=task, job_id=job_id, correlation_id=correlation_id, retention=retention, url=url
    )
    job = Job(
        str(uuid4()) if job_id is None else job_id,
        Path(command[0]).name if task is None else task,
        {"command": command},
    )
    recorded = RecordedRun(
        job,
        worker_id=f"{socket.gethostname()}:{os.getpid()}",
        correlation_id=str(job.id) if correlation_id is None else correlation_id,
        open_store=partial(open_store, url, schema, history_retention=retention),
        started_at=utc_now(),
    )
    raise typer.Exit(recorded.execute(command))


def _check_options(
    *,
    task: str | None,
    job_id: str | None,
    correlation_id: str | None,
    retention: str,
    url: str | None,
) -> None:
    """Refuse what could never be recorded, before the command runs.

    Raises:
        InvalidInput: if an option cannot be used; it names the option.
    """
    for option, value, stored in (
        ("--task", task, name_text),
        ("--job-id", job_id, id_text),
        ("--correlation-id", correlation_id, id_text),
    ):
        if value is not None:
            stored(value, option)
            if holdable(value) != value:
                raise InvalidInput(option, value, "is not readable text; write it like 'order-42'")
    with _as_option("--retention", "history_retention"):
        parse_retention(retention, now=utc_now())
    if url is not None:
        # A missing driver is a fault of the installation, which can be mended meanwhile.
        with _as_option("--url", "bind"), suppress(ModuleNotFoundError):
            engine_from_url(url).dispose()


@contextmanager
def _as_option(option: str, argument: str) -> Iterator[None]:
    """Call an argument what the command line calls it."""
    try:
        yield
    except InvalidInput as error:
        if error.argument != argument:
            raise
        raise InvalidInput(option, error.value, error.remedy) from None
