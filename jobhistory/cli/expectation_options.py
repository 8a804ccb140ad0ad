"""The options that declare an expectation, one for each of its arguments."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from inspect import signature
from typing import Annotated, Any

import typer

from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.local_zone import local_timezone
from jobhistory.cli.option_groups import takes_options
from jobhistory.cli.options import OPTIONS
from jobhistory.errors import InvalidInput
from jobhistory.expectations.expectation import Expectation
from jobhistory.query.terms import read_coming_moment

Every = Annotated[
    str | None, typer.Option(help="The time from one start to the next: '1h'.", metavar="DURATION")
]
Cron = Annotated[
    str | None,
    typer.Option(help="When it starts, as in a crontab: '17 2 * * *'.", metavar="EXPRESSION"),
]
Timezone = Annotated[
    str | None,
    typer.Option(
        help="The time zone of --cron, such as 'Europe/Berlin'. Default: that of this machine.",
        metavar="ZONE",
    ),
]
Grace = Annotated[
    str | None,
    typer.Option(
        help="How much later than due it may start. Default: '5 minutes'.", metavar="DURATION"
    ),
]
MaxRuntime = Annotated[
    str | None, typer.Option(help="It takes no longer than this.", metavar="DURATION")
]
MinRuntime = Annotated[
    str | None, typer.Option(help="It takes at least this long to complete.", metavar="DURATION")
]
MaxSuccessAge = Annotated[
    str | None,
    typer.Option(help="The longest time since the last success.", metavar="DURATION"),
]
FailuresInARow = Annotated[
    str | None,
    typer.Option(
        help="So many failures in a row are a problem; 'none' if they never are. Default: 1.",
        metavar="N",
    ),
]
MaxFailureRate = Annotated[
    str | None,
    typer.Option(
        help="The largest share of failures among the last 100, from 0 to 1.", metavar="SHARE"
    ),
]
MaxRunning = Annotated[
    str | None, typer.Option(help="So many may run at the same time.", metavar="N")
]
PausedUntil = Annotated[
    str | None,
    typer.Option(
        help="Nothing is expected until then: '2h' (from now), 'tomorrow 9:00' or a date.",
        metavar="WHEN",
    ),
]
Owner = Annotated[str | None, typer.Option(help="Who takes care of it; alerts name them.")]
Runbook = Annotated[
    str | None, typer.Option(help="The page that says what to do; alerts link to it.")
]


def _values(
    every: Every = None,
    cron: Cron = None,
    timezone: Timezone = None,
    grace: Grace = None,
    max_runtime: MaxRuntime = None,
    min_runtime: MinRuntime = None,
    max_success_age: MaxSuccessAge = None,
    failures_in_a_row: FailuresInARow = None,
    max_failure_rate: MaxFailureRate = None,
    max_running: MaxRunning = None,
    paused_until: PausedUntil = None,
    owner: Owner = None,
    runbook: Runbook = None,
) -> dict[str, Any]:
    given = {name: value for name, value in locals().items() if value is not None}
    if given.get("every") and given.get("cron"):
        raise InvalidInput("--cron", cron, "and --every exclude each other; leave one of them out")
    return {
        name: _READ.get(name, _text)(value, OPTIONS[name]) if value else _DEFAULTS[name]
        for name, value in given.items()
    }


takes_expectation = takes_options("values", _values)
"""Decorate a command: its parameter `values` becomes an option for each argument.

The command gets a dict with the values that were given, by the names of the arguments of
`Expectation`. An empty text stands for the default of the argument.
"""


def machine_timezone() -> str:
    """Return the time zone of this machine, in which cron runs; UTC if it has no known name."""
    return local_timezone() or "UTC"


def _text(text: str, option: str) -> str:
    return text


def _whole(text: str, option: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(option, text, "is not a whole number; write it like 2") from None


def _count_or_none(text: str, option: str) -> int | None:
    return None if text == "none" else _whole(text, option)


def _share(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(option, text, "is not a number; write it like 0.1") from None


def _moment(text: str, option: str) -> datetime:
    return read_coming_moment(text, option, utc_now().replace(microsecond=0), zone=None)


_READ: dict[str, Callable[[str, str], Any]] = {
    "failures_in_a_row": _count_or_none,
    "max_failure_rate": _share,
    "max_running": _whole,
    "paused_until": _moment,
}
_DEFAULTS = {
    name: parameter.default for name, parameter in signature(Expectation).parameters.items()
}
