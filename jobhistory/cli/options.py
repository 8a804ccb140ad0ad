"""The options that several commands share: their types, their values, their names in errors."""

from __future__ import annotations

import shlex
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer
from sqlalchemy import make_url

from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.durations import parse_duration
from jobhistory.errors import InvalidInput

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="JOBHISTORY_URL",
        help="The database. Default: an SQLite file in your user data directory.",
        show_default=False,
    ),
]
Schema = Annotated[
    str | None,
    typer.Option(
        "--schema", help="The database schema that contains the table.", show_default=False
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        help="Started at this time or later: '2h' (ago) or '2026-11-01' (UTC).", metavar="WHEN"
    ),
]
Until = Annotated[
    str | None,
    typer.Option(help="Started at this time or earlier; same format as --since.", metavar="WHEN"),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--task", help="Of this task; may be repeated."),
]
Workers = Annotated[
    list[str] | None, typer.Option("--worker", help="Run by this worker; may be repeated.")
]
ErrorType = Annotated[str | None, typer.Option(help="Failed with this error type.")]
ErrorContains = Annotated[
    str | None, typer.Option(help="Failed with an error that contains this text; ignores case.")
]
Statuses = Annotated[
    list[str] | None, typer.Option("--status", help="With this status; may be repeated.")
]
JobId = Annotated[str | None, typer.Option(help="Of this job.")]
CorrelationId = Annotated[str | None, typer.Option(help="With this correlation id.")]
WorkerPrefix = Annotated[
    str | None,
    typer.Option(help="Run by a worker whose id starts with this, such as a host name."),
]
MinAttempt = Annotated[
    int | None, typer.Option(help="This attempt or a later one: 2 for retries.", metavar="N")
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", help="With this label; may be repeated.", metavar="NAME=VALUE"),
]
ParentId = Annotated[str | None, typer.Option(help="Started by the execution with this id.")]
TraceId = Annotated[str | None, typer.Option(help="In this trace.")]
MinTime = Annotated[str | None, typer.Option(help="Ran at least this long: '30s' or '5 minutes'.")]
Limit = Annotated[int, typer.Option(help="Maximum number of rows.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print the number even without a terminal.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]

OPTIONS = {
    "after": "--after",
    "app": "--app",
    "batch_size": "--batch-size",
    "bind": "--url",
    "bucket": "--bucket",
    "correlation_id": "--correlation-id",
    "error_contains": "--error-contains",
    "error_type": "--error-type",
    "from_": "--since",
    "heartbeat_older_than": "--heartbeat-older-than",
    "history_retention": "--retention",
    "job_id": "--job-id",
    "labels": "--label",
    "limit": "--limit",
    "min_attempt": "--min-attempt",
    "older_than": "--older-than",
    "parent_id": "--parent-id",
    "schema": "--schema",
    "status": "--status",
    "task_identifier": "--task",
    "time_limit": "--time-limit",
    "to": "--until",
    "trace_id": "--trace-id",
    "worker_id": "--worker",
    "worker_id_starts_with": "--worker-prefix",
}
"""For each argument of a store, the option for it."""

_URL_FROM_ENVIRONMENT = '"$JOBHISTORY_URL"'
_HARMLESS_PARAMETERS = frozenset(
    {"application_name", "connect_timeout", "host", "mode", "port", "sslmode", "timeout", "uri"}
)
"""Parameters of URLs that never contain a secret. Any other one may."""


def read_window(since: str | None, until: str | None) -> dict[str, datetime | None]:
    """Return the criteria for `--since` and `--until`; relative times count back from now."""
    # Whole seconds, as the command for the next page repeats them.
    now = utc_now().replace(microsecond=0)
    return {"from_": _moment(since, "--since", now), "to": _moment(until, "--until", now)}


def _moment(text: str | None, option: str, now: datetime) -> datetime | None:
    if text is None:
        return None
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return now - parse_duration(text, option)
    except (InvalidInput, OverflowError):
        raise InvalidInput(
            option, text, "is neither a duration nor a date; write it like '2h' or '2026-11-01'"
        ) from None


def read_milliseconds(duration: str | None, option: str) -> int | None:
    """Return a duration in milliseconds."""
    if duration is None:
        return None
    return parse_duration(duration, option) // timedelta(milliseconds=1)


def read_labels(options: list[str] | None) -> dict[str, str] | None:
    """Return the labels of options such as `tenant=acme`."""
    labels = {}
    for text in options or ():
        name, separator, value = text.partition("=")
        if not separator:
            raise InvalidInput("--label", text, "has no value; write it like 'tenant=acme'")
        labels[name] = value
    return labels or None


def read_uuid(text: str | None, option: str) -> UUID | None:
    """Return the id of a record."""
    try:
        return None if text is None else UUID(text)
    except ValueError:
        raise InvalidInput(
            option, text, "is not the id of a record; `jobhistory list --json` shows them"
        ) from None


def repeated(context: typer.Context, **values: str) -> str:
    """Return the options that were given on the command line, quoted for a shell.

    Args:
        values: for each parameter, a value to use instead of the given one.
    """
    words = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in values or (source is not None and source.name == "COMMANDLINE"):
            given: Any = values.get(name, context.params[name])
            for value in given if isinstance(given, (list, tuple)) else [given]:
                words.append(parameter.opts[0])
                if value is not True:
                    words.append(quoted_url(value) if name == "url" else _quoted(str(value)))
    return " ".join(words)


def quoted_url(url: str) -> str:
    """Return a URL, quoted for a shell, or `"$JOBHISTORY_URL"` if it may contain a secret."""
    parts = make_url(url)
    may_have_secret = bool(parts.password) or not _HARMLESS_PARAMETERS.issuperset(parts.query)
    return _URL_FROM_ENVIRONMENT if may_have_secret else _quoted(url)


def _quoted(text: str) -> str:
    if text.isprintable():
        return shlex.quote(text)
    # A terminal would obey control characters. bash and zsh understand this notation.
    shown = (
        char if char.isprintable() and char not in "\\'" else f"\\U{ord(char):08x}" for char in text
    )
    return f"$'{''.join(shown)}'"
