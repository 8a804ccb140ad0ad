"""The options of `jobhistory run`, for its parser, its help text and its documentation."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.durations import parse_duration, parse_retention
from jobhistory._runtime.sizes import parse_size
from jobhistory.database.urls import check_url
from jobhistory.errors import InvalidInput
from jobhistory.execution.ids import id_text, name_text
from jobhistory.execution.labels import read_labels
from jobhistory.execution.values import read_recorded
from jobhistory.sanitize.truncate import storable_text

if TYPE_CHECKING:
    from jobhistory.typing import Recorded

_MOST_RETRIES = 1000
_LIKE_A_SIZE = re.compile(r"\d[\d.]*( ?[a-z]+)?", re.IGNORECASE)
_LIKE_A_SIZE_IN_TWO_WORDS = re.compile(r"\d[\d.]* [KMG]i?B", re.IGNORECASE)


class RunOptions(NamedTuple):
    """What `jobhistory run` was asked for. `OPTIONS` describes each field except the command."""

    command: list[str]
    task: str | None
    job_id: str | None
    correlation_id: str | None
    label: dict[str, str]
    timeout: timedelta | None
    kill_after: timedelta
    retry: int
    retry_delay: timedelta
    ok_status: frozenset[int]
    no_overlap: bool
    expect: dict[str, str] | None
    grace: timedelta | None
    verbose: bool
    quiet: bool
    capture: int | None
    retention: str
    record: Recorded
    rules: str | None
    url: str | None
    schema: str | None


class RunOption(NamedTuple):
    """An option of `jobhistory run`.

    Attributes:
        name: what one writes, such as `"--timeout"`.
        help: the sentence of the help text.
        read: returns the value of a text, or of the list of texts if the option may be repeated.
            Its second argument is the name of the option or of the environment variable.
        metavar: what stands for the value in the help text; `None` if the option has no value.
        default: the value if the option is missing.
        default_text: that value as one writes it.
        environment: the variable that has the text if the option is missing.
        may_repeat: whether the option may be given several times.
        bare: the text of the option without a value; `None` if it needs one.
        count_words: returns, for an option with `bare`, how many of the next words are the value.
    """

    name: str
    help: str
    read: Callable[[Any, str], Any]
    metavar: str | None = "TEXT"
    default: Any = None
    default_text: str | None = None
    environment: str | None = None
    may_repeat: bool = False
    bare: str | None = None
    count_words: Callable[[list[str]], int] | None = None

    @property
    def field(self) -> str:
        """The name of the value in `RunOptions`."""
        return self.name.removeprefix("--").replace("-", "_")


def _text(value: str, option: str) -> str:
    return value


def _present(value: str, option: str) -> bool:
    return True


def _task(value: str, option: str) -> str:
    name_text(value, option)
    return _readable(value, option)


def _id(value: str, option: str) -> str:
    id_text(value, option)
    return _readable(value, option)


def _readable(value: str, option: str) -> str:
    if storable_text(value) != value:
        raise InvalidInput(option, value, "is not readable text; write it like 'order-42'")
    return value


def _labels(values: list[str], option: str) -> dict[str, str]:
    labels = {}
    for value in values:
        name, separator, text = value.partition("=")
        if not separator:
            raise InvalidInput(option, value, "has no value; write it like 'tenant=acme'")
        labels[name] = _readable(text, option)
    return read_labels(labels, option)


def _delay(value: str, option: str) -> timedelta:
    return timedelta(0) if value in ("0", "0s") else parse_duration(value, option)


def _retries(value: str, option: str) -> int:
    if not value.isdecimal() or int(value) > _MOST_RETRIES:
        raise InvalidInput(
            option, value, f"is not a number from 0 to {_MOST_RETRIES}; write it like 3"
        )
    return int(value)


def _statuses(value: str, option: str) -> frozenset[int]:
    statuses = value.split(",")
    if not all(status.isdecimal() and int(status) <= 255 for status in statuses):
        raise InvalidInput(
            option, value, "is not a list of exit statuses from 0 to 255; write it like '0,1'"
        )
    return frozenset(map(int, statuses))


def _size(value: str, option: str) -> int:
    try:
        return parse_size(int(value) if value.isdecimal() else value, option)
    except InvalidInput as error:
        # It may be meant as the command, such as 7z.
        raise InvalidInput(option, value, f"{error.remedy}, and a command after --") from None


def _count_words_of_size(words: list[str]) -> int:
    """Return 1 or 2 if the words begin with what looks like a size, such as 64k or 16 KiB."""
    if _LIKE_A_SIZE_IN_TWO_WORDS.fullmatch(" ".join(words[:2])):
        return 2
    return 1 if words and _LIKE_A_SIZE.fullmatch(words[0]) else 0


def _retention(value: str, option: str) -> str:
    try:
        parse_retention(value, now=utc_now())
    except InvalidInput as error:
        raise InvalidInput(option, value, error.remedy) from None
    return value


def _schedule(value: str, option: str) -> dict[str, str]:
    if value.startswith("@") or len(value.split()) == 5:
        from jobhistory.expectations.schedule import read_cron  # only if the option is used

        return {"cron": read_cron(value, option)}
    try:
        _whole_seconds(value, option)
    except InvalidInput:
        raise InvalidInput(
            option,
            value,
            "is neither a cron expression nor a duration; write it like '17 2 * * *' or '1h'",
        ) from None
    return {"every": value}


def _whole_seconds(value: str, option: str) -> timedelta:
    duration = parse_duration(value, option)
    if duration % timedelta(seconds=1):
        raise InvalidInput(option, value, "has a part of a second; write it like '15m'")
    return duration


def _recorded(value: str, option: str) -> Recorded:
    recorded: Any = value
    with suppress(ValueError):
        recorded = float(value)
    try:
        read_recorded(recorded, option)
    except InvalidInput as error:
        raise InvalidInput(option, value, error.remedy) from None
    return cast("Recorded", recorded)


def _schema(value: str, option: str) -> str:
    if not value or "\0" in value:
        raise InvalidInput(option, value, "is not the name of a schema; write it like 'audit'")
    return value


def _url(value: str, option: str) -> str:
    check_url(value, option)
    return value


OPTIONS = (
    RunOption("--task", "The task identifier. Default: the name of the command.", _task),
    RunOption("--job-id", "The job id. Default: a new one.", _id),
    RunOption("--correlation-id", "The correlation id. Default: the job id.", _id),
    RunOption(
        "--label",
        "A label of the run; may be repeated.",
        _labels,
        metavar="NAME=VALUE",
        may_repeat=True,
    ),
    RunOption(
        "--timeout",
        "How long the command may run: '90s' or '2h'. It is then ended, and recorded as timed out; "
        "the exit status is 124.",
        parse_duration,
        metavar="DURATION",
    ),
    RunOption(
        "--kill-after",
        "How long after the end of --timeout to kill the command if SIGTERM did not end it.",
        parse_duration,
        metavar="DURATION",
        default=timedelta(seconds=10),
        default_text="10s",
    ),
    RunOption(
        "--retry",
        "How many times to try again if the command fails. Each attempt is recorded.",
        _retries,
        metavar="N",
        default=0,
        default_text="0",
    ),
    RunOption(
        "--retry-delay",
        "How long to wait before trying again.",
        _delay,
        metavar="DURATION",
        default=timedelta(seconds=10),
        default_text="10s",
    ),
    RunOption(
        "--ok-status",
        "The exit statuses that count as success: '0,1'. Any other one is a failure.",
        _statuses,
        metavar="LIST",
        default=frozenset({0}),
        default_text="0",
    ),
    RunOption(
        "--no-overlap",
        "Skip this run, with exit status 0, if another one of its task still runs.",
        _present,
        metavar=None,
        default=False,
    ),
    RunOption(
        "--expect",
        "When the task should start: '17 2 * * *', in the time zone of this machine, or '1h' after "
        "each start. 'jobhistory check' tells if it did not.",
        _schedule,
        metavar="SCHEDULE",
    ),
    RunOption(
        "--grace",
        "How much later than --expect says it may start. Default: '5 minutes'.",
        _whole_seconds,
        metavar="DURATION",
    ),
    RunOption(
        "--verbose",
        "Tell on standard error that this run is skipped, even without a terminal.",
        _present,
        metavar=None,
        default=False,
    ),
    RunOption(
        "--quiet",
        "Print the output only if the command fails: all of it, at its end.",
        _present,
        metavar=None,
        default=False,
    ),
    RunOption(
        "--capture",
        "Keep the end of the output in history, also if the command succeeds: "
        "'16 KiB' if no size is given.",
        _size,
        metavar="[SIZE]",
        bare="16 KiB",
        count_words=_count_words_of_size,
    ),
    RunOption(
        "--retention",
        "How long to keep the record: '12h', '1 week' or 'never'; rules come first.",
        _retention,
        default="30 days",
        default_text="30 days",
    ),
    RunOption(
        "--record",
        "The runs to keep: 'all', 'failures', or these and a share of the others: '0.01'.",
        _recorded,
        default="all",
        default_text="all",
    ),
    RunOption(
        "--rules",
        "A TOML file with retention rules.",
        _text,
        metavar="FILE",
        environment="JOBHISTORY_RETENTION_RULES",
    ),
    RunOption(
        "--url",
        "The database. Default: an SQLite file in your user data directory.",
        _url,
        environment="JOBHISTORY_URL",
    ),
    RunOption(
        "--schema",
        "The database schema that contains the table.",
        _schema,
        environment="JOBHISTORY_SCHEMA",
    ),
)
