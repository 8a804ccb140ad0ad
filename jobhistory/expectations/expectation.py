"""What should be true of a task: its schedule, its running time, and how often it may fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from jobhistory._runtime.clock import in_utc
from jobhistory._runtime.durations import duration_text, parse_duration
from jobhistory.errors import InvalidInput, check_count
from jobhistory.execution.ids import name_text
from jobhistory.execution.labels import read_labels
from jobhistory.execution.values import read_share
from jobhistory.expectations.schedule import Cron, Interval, Schedule, read_cron, read_timezone
from jobhistory.sanitize.truncate import NAME_LENGTH, storable_text
from jobhistory.typing import Duration

_MOST_FAILURES = 100
"""A check reads at least so many executions of a task."""

_DURATIONS = ("every", "grace", "min_runtime", "max_runtime", "max_success_age")


@dataclass(frozen=True, init=False)
class Expectation:
    """What should be true of a task. Immutable. `store.expect` declares it.

    Args:
        task_identifier: the task.
        labels: only executions with these labels count, such as `{"tenant": "acme"}`.
        every: the time from one start to the next: a `timedelta`, or a text such as `"1h"`.
        cron: when it starts, as in a crontab: `"17 2 * * *"`, or `"@daily"`. It excludes `every`.
        timezone: the time zone of `cron`, such as `"Europe/Berlin"`.
        grace: how much later than due it may start. Five minutes by default.
        min_runtime: a completed execution that took less time is too short.
        max_runtime: an execution that takes more time is too long, also while it runs.
        max_success_age: the longest time since the last success.
        failures_in_a_row: the number of executions in a row whose failure is a problem, up to 100;
            `None` if failures are none. Attempts that are tried again do not count.
        max_failure_rate: the largest share of final failures, from 0 to 1, among the last 100
            executions that ended. It needs ten of them, and that all are stored.
        max_running: how many executions may run at the same time.
        paused_until: until then, nothing is expected. A declaration without it keeps a pause.
        owner: who takes care of the task. Alerts name it.
        runbook: the address of a page that says what to do. Alerts contain it.

    Raises:
        InvalidInput: if an argument cannot be used.
    """

    task_identifier: str
    labels: tuple[tuple[str, str], ...]
    every: timedelta | None
    cron: str | None
    timezone: str
    grace: timedelta
    min_runtime: timedelta | None
    max_runtime: timedelta | None
    max_success_age: timedelta | None
    failures_in_a_row: int | None
    max_failure_rate: float | None
    max_running: int | None
    paused_until: datetime | None
    owner: str | None
    runbook: str | None

    def __init__(
        self,
        task_identifier: str,
        *,
        labels: Mapping[str, str] | None = None,
        every: Duration | None = None,
        cron: str | None = None,
        timezone: str = "UTC",
        grace: Duration = "5 minutes",
        min_runtime: Duration | None = None,
        max_runtime: Duration | None = None,
        max_success_age: Duration | None = None,
        failures_in_a_row: int | None = 1,
        max_failure_rate: float | None = None,
        max_running: int | None = None,
        paused_until: datetime | None = None,
        owner: str | None = None,
        runbook: str | None = None,
    ) -> None:
        if every is not None and cron is not None:
            raise InvalidInput("cron", cron, "and every exclude each other; leave one of them out")
        durations: dict[str, Duration | None] = {
            "every": every,
            "grace": grace,
            "min_runtime": min_runtime,
            "max_runtime": max_runtime,
            "max_success_age": max_success_age,
        }
        for name, count in (("failures_in_a_row", failures_in_a_row), ("max_running", max_running)):
            if count is not None:
                check_count(count, name, example=1)
        if failures_in_a_row is not None and failures_in_a_row > _MOST_FAILURES:
            raise InvalidInput(
                "failures_in_a_row",
                failures_in_a_row,
                f"exceeds the newest {_MOST_FAILURES} executions that a check reads; write it like "
                "3, or use max_failure_rate",
            )
        if max_failure_rate is not None:
            max_failure_rate = read_share(max_failure_rate, "max_failure_rate")
        vars(self).update(  # the class is frozen
            {name: _whole(value, name) for name, value in durations.items()},
            task_identifier=name_text(task_identifier, "task_identifier"),
            labels=tuple(sorted(read_labels(labels or {}, "labels").items())),
            cron=None if cron is None else read_cron(cron, "cron"),
            timezone=read_timezone(timezone, "timezone"),
            failures_in_a_row=failures_in_a_row,
            max_failure_rate=max_failure_rate,
            max_running=max_running,
            paused_until=None if paused_until is None else in_utc(paused_until, "paused_until"),
            owner=_text(owner, "owner", "billing team"),
            runbook=_text(runbook, "runbook", "https://wiki.example.org/nightly"),
        )
        if self.min_runtime and self.max_runtime and self.min_runtime > self.max_runtime:
            raise InvalidInput(
                "min_runtime",
                min_runtime,
                f"exceeds the longest time, {duration_text(self.max_runtime)}, so that nothing "
                "meets both; exchange them",
            )
        if len(self.name) > NAME_LENGTH:
            raise InvalidInput(
                "labels", labels, f"and the task exceed {NAME_LENGTH} characters; use fewer"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Expectation:
        """Return the expectation whose arguments are the values of a mapping, as `to_dict` returns.

        Raises:
            InvalidInput: if a key is not an argument, or a value cannot be used.
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                remedy = f"is not a key of an expectation; use one of {', '.join(known)}"
                raise InvalidInput("key", key, remedy)
        if "task_identifier" not in values:
            raise InvalidInput(
                "task_identifier", None, "is missing; write it like task_identifier = 'nightly'"
            )
        paused = values.get("paused_until")
        if isinstance(paused, str):  # JSON has no times
            values = {**values, "paused_until": _moment(paused, "paused_until")}
        return cls(**values)

    @cached_property
    def name(self) -> str:
        """What identifies it: the task, and its labels in braces if it has any."""
        labels = ",".join(f"{name}={value}" for name, value in self.labels)
        return f"{self.task_identifier}{{{labels}}}" if labels else self.task_identifier

    @cached_property
    def schedule(self) -> Schedule | None:
        """When the task should start; `None` if that is not known."""
        if self.cron is not None:
            return Cron(self.cron, self.timezone)
        return None if self.every is None else Interval(self.every)

    def __str__(self) -> str:
        """Return what is expected, in words, without the name of the task."""
        return "; ".join(self._words())

    def _words(self) -> Iterator[str]:
        late = f"up to {duration_text(self.grace)} late"
        if self.cron is not None:
            yield f"starts at '{self.cron}' {self.timezone}, {late}"
        if self.every is not None:
            yield f"starts every {duration_text(self.every)}, {late}"
        if self.min_runtime is not None:
            yield f"takes {duration_text(self.min_runtime)} or more"
        if self.max_runtime is not None:
            yield f"takes {duration_text(self.max_runtime)} or less"
        if self.max_success_age is not None:
            yield f"succeeds every {duration_text(self.max_success_age)}"
        if self.failures_in_a_row is not None:
            times = self.failures_in_a_row
            yield "does not fail" if times == 1 else f"does not fail {times} times in a row"
        if self.max_failure_rate is not None:
            yield f"fails in {self.max_failure_rate:.0%} or less"
        if self.max_running is not None:
            yield f"runs {self.max_running} at a time"

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments that differ from their defaults, for JSON."""
        defaults = vars(Expectation(self.task_identifier))
        values = {
            field.name: vars(self)[field.name]
            for field in fields(self)
            if field.name == "task_identifier" or vars(self)[field.name] != defaults[field.name]
        }
        for name in _DURATIONS:
            if isinstance(values.get(name), timedelta):
                values[name] = duration_text(values[name])
        if "labels" in values:
            values["labels"] = dict(self.labels)
        if self.paused_until is not None:
            values["paused_until"] = self.paused_until.isoformat()
        return values


def _whole(value: Duration | None, argument: str) -> timedelta | None:
    if value is None:
        return None
    duration = parse_duration(value, argument)
    if duration % timedelta(seconds=1):
        raise InvalidInput(argument, value, "has a part of a second; write whole seconds")
    return duration


def _moment(text: str, argument: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            argument, text, "is not a time; write it like '2026-11-28T12:00:00+00:00'"
        ) from None


def _text(value: str | None, argument: str, example: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or storable_text(value) != value:
        raise InvalidInput(argument, value, f"is not readable text; write it like {example!r}")
    return value
