"""Run a command and record its execution."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
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
from jobhistory.sanitize.truncate import storable_text


def run(
    command: Annotated[
        list[str],
        typer.Argument(help="The command and its arguments, after --.", metavar="COMMAND"),
    ],
    task: Annotated[
        str | None, typer.Option(help="The task identifier. Default: the name of the command.")
    ] = None,
    job_id: Annotated[str | None, typer.Option(help="The job id. Default: a new one.")] = None,
    correlation_id: Annotated[
        str | None, typer.Option(help="The correlation id. Default: the job id.")
    ] = None,
    retention: Annotated[
        str, typer.Option(help="How long to keep the record: '12h', '1 week' or 'never'.")
    ] = "30 days",
    url: Url = None,
    schema: Schema = None,
) -> None:
    """Run a command and record its execution.

    Output passes through unchanged, and the exit status is that of the command: 128 plus the number
    of the signal that ended it, 127 if it was not found, 126 if it could not be started. If history
    cannot be written, the command still runs, and standard error says what was not recorded.
    Invalid options are refused with exit status 2 before the command runs.
    """
    if os.name != "posix":
        fail("run requires a POSIX system")
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
    """Refuse options that could never be recorded.

    Raises:
        InvalidInput: if an option is invalid.
    """
    for option, value, stored in (
        ("--task", task, name_text),
        ("--job-id", job_id, id_text),
        ("--correlation-id", correlation_id, id_text),
    ):
        if value is not None:
            stored(value, option)
            if storable_text(value) != value:
                raise InvalidInput(option, value, "is not readable text; write it like 'order-42'")
    parse_retention(retention, now=utc_now())
    if url is not None:
        # Somebody may install a missing driver while the command runs.
        with suppress(ModuleNotFoundError):
            engine_from_url(url).dispose()
