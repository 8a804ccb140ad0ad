"""The options that several commands share: their types, their values, their names in errors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from sqlalchemy import make_url

from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.shell import quoted_for_shell
from jobhistory.errors import InvalidInput
from jobhistory.query.terms import in_list, read_list, read_moment

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="JOBHISTORY_URL",
        help="The database. Default: an SQLite file in your user data directory.",
        show_default=False,
        metavar="URL",
        rich_help_panel="Database",
    ),
]


def _schema_name(name: str | None) -> str | None:
    if name is not None and (not name or "\0" in name):
        raise InvalidInput("--schema", name, "is not the name of a schema; write it like 'audit'")
    return name


Schema = Annotated[
    str | None,
    typer.Option(
        "--schema",
        callback=_schema_name,
        envvar="JOBHISTORY_SCHEMA",
        help="The database schema that contains the table.",
        show_default=False,
        metavar="NAME",
        rich_help_panel="Database",
    ),
]
Since = Annotated[
    str | None,
    typer.Option(
        help="Started at this time or later: '2h' (ago), 'today', 'monday 9:00' or "
        "'2026-11-01 14:00', in your time zone.",
        metavar="WHEN",
        rich_help_panel="Filter",
    ),
]
Until = Annotated[
    str | None,
    typer.Option(
        help="Started at this time or earlier; same format as --since.",
        metavar="WHEN",
        rich_help_panel="Filter",
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task",
        callback=read_list,
        help="Of this task, or of one of these: 'a,b'.",
        metavar="NAMES",
        rich_help_panel="Filter",
    ),
]
Workers = Annotated[
    list[str] | None,
    typer.Option(
        "--worker",
        callback=read_list,
        help="Run by this worker, or by one of these.",
        metavar="IDS",
        rich_help_panel="Filter",
    ),
]
ErrorType = Annotated[
    str | None,
    typer.Option(help="Failed with this error type.", metavar="TYPE", rich_help_panel="Filter"),
]
ErrorContains = Annotated[
    str | None,
    typer.Option(
        help="Failed with an error that contains this text; ignores case.",
        metavar="TEXT",
        rich_help_panel="Filter",
    ),
]
Statuses = Annotated[
    list[str] | None,
    typer.Option(
        "--status",
        callback=read_list,
        help="With this status, or one of these: 'failed,started'.",
        metavar="NAMES",
        rich_help_panel="Filter",
    ),
]
JobId = Annotated[
    str | None, typer.Option(help="Of this job.", metavar="ID", rich_help_panel="Filter")
]
CorrelationId = Annotated[
    str | None,
    typer.Option(help="With this correlation id.", metavar="ID", rich_help_panel="Filter"),
]
WorkerPrefix = Annotated[
    str | None,
    typer.Option(
        help="Run by a worker whose id starts with this, such as a host name.",
        metavar="TEXT",
        rich_help_panel="Filter",
    ),
]
MinAttempt = Annotated[
    int | None,
    typer.Option(
        help="This attempt or a later one: 2 for retries.", metavar="N", rich_help_panel="Filter"
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        callback=read_list,
        help="With this label, or with all of these.",
        metavar="NAME=VALUE",
        rich_help_panel="Filter",
    ),
]
ParentId = Annotated[
    str | None,
    typer.Option(
        help="Started by the execution with this id.", metavar="ID", rich_help_panel="Filter"
    ),
]
TraceId = Annotated[
    str | None, typer.Option(help="In this trace.", metavar="ID", rich_help_panel="Filter")
]
MinTime = Annotated[
    str | None,
    typer.Option(
        help="Ran at least this long: '30s' or '5 minutes'.",
        metavar="DURATION",
        rich_help_panel="Filter",
    ),
]
Rules = Annotated[
    str | None,
    typer.Option(
        "--rules",
        envvar="JOBHISTORY_RETENTION_RULES",
        help="A TOML file with retention rules.",
        metavar="FILE",
        show_default=False,
    ),
]
Hourly = Annotated[
    str, typer.Option("--hourly", help="How long to keep statistics by hour.", metavar="DURATION")
]
Daily = Annotated[
    str, typer.Option("--daily", help="How long to keep statistics by day.", metavar="DURATION")
]
DefaultRetention = Annotated[
    str | None,
    typer.Option(
        "--retention",
        help="How long to keep what none of the --rules covers. "
        "Default: as expire has applied it last, or '30 days'.",
        show_default=False,
        metavar="DURATION",
    ),
]
BatchSize = Annotated[
    int, typer.Option(help="Maximum number of rows per transaction.", metavar="N")
]
Limit = Annotated[
    int, typer.Option(help="Maximum number of rows.", metavar="N", rich_help_panel="Output")
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Print the number even without a terminal.",
        rich_help_panel="Output",
    ),
]
Utc = Annotated[
    bool,
    typer.Option(
        "--utc",
        help="Times in UTC rather than in your time zone; pipes are always so.",
        rich_help_panel="Output",
    ),
]
NoPager = Annotated[
    bool,
    typer.Option(
        "--no-pager",
        help="Print long output at once rather than through a pager.",
        rich_help_panel="Output",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        callback=read_list,
        help="These fields of the records instead: 'job_id,labels.tenant'.",
        metavar="NAMES",
        rich_help_panel="Output",
    ),
]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Draw the screen again and again, until Ctrl-C (status 130).",
        rich_help_panel="Output",
    ),
]
Interval = Annotated[
    str,
    typer.Option(
        "--interval", help="How often --watch draws.", metavar="DURATION", rich_help_panel="Output"
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON, one object per line.", rich_help_panel="Output")
]

OPTIONS = {
    "after": "--after",
    "ahead": "--ahead",
    "app": "--app",
    "archive": "--archive",
    "batch_size": "--batch-size",
    "bind": "--url",
    "bucket": "--bucket",
    "cron": "--cron",
    "correlation_id": "--correlation-id",
    "error_contains": "--error-contains",
    "error_type": "--error-type",
    "every": "--every",
    "failures_in_a_row": "--failures-in-a-row",
    "from_": "--since",
    "grace": "--grace",
    "heartbeat_older_than": "--heartbeat-older-than",
    "history_retention": "--retention",
    "hourly_statistics": "--hourly",
    "daily_statistics": "--daily",
    "job_id": "--job-id",
    "labels": "--label",
    "last": "--last",
    "limit": "--limit",
    "logs_url": "--logs-url",
    "max_failure_rate": "--max-failure-rate",
    "max_running": "--max-running",
    "max_runtime": "--max-runtime",
    "max_success_age": "--max-success-age",
    "max_tasks": "--max-tasks",
    "min_attempt": "--min-attempt",
    "min_runtime": "--min-runtime",
    "older_than": "--older-than",
    "owner": "--owner",
    "page_url": "--page-url",
    "parent_id": "--parent-id",
    "paused_until": "--paused-until",
    "record": "--record",
    "runbook": "--runbook",
    "schema": "--schema",
    "source_url": "--source-url",
    "status": "--status",
    "task_identifier": "--task",
    "time_limit": "--time-limit",
    "timezone": "--timezone",
    "to": "--until",
    "trace_id": "--trace-id",
    "trace_url": "--trace-url",
    "worker_id": "--worker",
    "worker_id_starts_with": "--worker-prefix",
}
"""For each argument of a store or of the page, the option for it."""

_SHORT = {"--last": "-n"}
_VARIABLES = {
    "--url": "JOBHISTORY_URL",
    "--heartbeat": "JOBHISTORY_HEARTBEAT",
    "--schema": "JOBHISTORY_SCHEMA",
    "--rules": "JOBHISTORY_RETENTION_RULES",
}

_URL_FROM_ENVIRONMENT = '"$JOBHISTORY_URL"'
_HARMLESS_PARAMETERS = frozenset(
    {"application_name", "connect_timeout", "host", "mode", "port", "sslmode", "timeout", "uri"}
)
"""Parameters of URLs that never contain a secret. Any other one may."""


def as_typed(error: InvalidInput, words: Sequence[str]) -> InvalidInput:
    """Return the error with the name of the option, or of the variable, that the user wrote.

    Args:
        words: the words of the command line.
    """
    option = OPTIONS.get(error.argument, error.argument)
    if not any(word.partition("=")[0] == option for word in words):
        short = _SHORT.get(option)
        if short is not None and any(word.startswith(short) for word in words):
            option = short
        elif os.environ.get(_VARIABLES.get(option, "")):
            option = _VARIABLES[option]
    # There is no such store on the command line.
    remedy = error.remedy.removesuffix(", or pass None for a store in memory")
    kind = _InvalidFlag if error.value is True and option.startswith("-") else InvalidInput
    return kind(option, error.value, remedy)


class _InvalidFlag(InvalidInput):
    """An option without a value cannot be used."""

    def __str__(self) -> str:
        return f"{self.argument} {self.remedy}"


def read_window(
    since: str | None, until: str | None, *, utc: bool = False
) -> dict[str, datetime | None]:
    """Return the criteria for `--since` and `--until`.

    Durations count back from now. Days and times are those of this machine's time zone, or of UTC.
    """
    # Whole seconds, as the command for the next page repeats them.
    now = utc_now().replace(microsecond=0)
    zone = UTC if utc else None
    from_ = read_moment(since, "--since", now, zone)
    to = read_moment(until, "--until", now, zone)
    if from_ and to and from_ > to:  # here, because the criteria do not know what was typed
        raise InvalidInput(
            "--since", since, f"is after --until {until!r}, the end of the window; swap the two"
        )
    return {"from_": from_, "to": to}


def repeated(context: typer.Context, **values: str) -> str:
    """Return the options that were given on the command line, quoted for a shell.

    The database and its schema are among them if they came from the environment, because another
    shell may have a different one, unless the URL may contain a secret.

    Args:
        values: for each parameter, a value to use instead of the given one.
    """
    words = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        is_given = source is not None and (
            source.name == "COMMANDLINE"
            or (source.name == "ENVIRONMENT" and _is_shown(name, context.params[name]))
        )
        if name in values or is_given:
            given: Any = values.get(name, context.params[name])
            for value in map(in_list, given) if isinstance(given, list) else [given]:
                words.append(parameter.opts[0])
                if value is not True:
                    words.append(
                        quoted_url(value) if name == "url" else quoted_for_shell(str(value))
                    )
    return " ".join(words)


def _is_shown(name: str, value: Any) -> bool:
    return name == "schema" or (name == "url" and quoted_url(value) != _URL_FROM_ENVIRONMENT)


def quoted_url(url: str) -> str:
    """Return a URL, quoted for a shell, or `"$JOBHISTORY_URL"` if it may contain a secret."""
    parts = make_url(url)
    may_have_secret = bool(parts.password) or not _HARMLESS_PARAMETERS.issuperset(parts.query)
    return _URL_FROM_ENVIRONMENT if may_have_secret else quoted_for_shell(url)
