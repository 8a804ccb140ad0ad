"""Retention rules: how long executions are kept, by status, task and labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Literal

from jobhistory._runtime.durations import duration_text, parse_duration, parse_retention
from jobhistory.errors import InvalidInput, check_count
from jobhistory.execution.ids import name_text
from jobhistory.execution.labels import read_labels
from jobhistory.execution.status import Status, read_status
from jobhistory.execution.times import expiry
from jobhistory.sanitize.json_text import decoded
from jobhistory.typing import Duration

FOREVER: Literal["forever"] = "forever"

_LONGEST = timedelta(days=365_250)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, init=False)
class RetentionRule:
    """How long executions are kept that have a status, a task and labels. Immutable.

    It covers the executions that meet all of its criteria; `None` means "not filtered". Of a list
    of rules, the first that covers an execution decides. If none does, `history_retention` does.

    Args:
        keep: how long after their start the executions are kept: a `timedelta`, a text such as
            `"365 days"` or `"12h"`, in whole seconds; or `"forever"`. Either `keep` or `keep_last`
            is required.
        keep_last: the number of ended executions that are kept of each task, the newest by their
            start. It requires `task_identifier`.
        status: the outcome, or one of several: `"failed"`, or `["failed", "cancelled"]`.
        task_identifier: the task, or one of several.
        labels: the labels that the executions have, maybe with others, such as
            `{"tenant": "acme"}`.

    Attributes:
        keep: a `timedelta`, or `"forever"`; `None` if `keep_last` is set.
        keep_last: the number; `None` if `keep` is set.
        status, task_identifier: tuples in alphabetical order; `None` if not filtered.
        labels: pairs of name and value, ordered by name; `None` if not filtered.

    Raises:
        InvalidInput: if an argument cannot be used.
    """

    keep: timedelta | Literal["forever"] | None
    keep_last: int | None
    status: tuple[Status, ...] | None
    task_identifier: tuple[str, ...] | None
    labels: tuple[tuple[str, str], ...] | None

    def __init__(
        self,
        *,
        keep: Duration | None = None,
        keep_last: int | None = None,
        status: str | Collection[str] | None = None,
        task_identifier: str | Collection[str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        if (keep is None) == (keep_last is None):
            raise InvalidInput(
                "keep",
                keep,
                "and keep_last exclude each other, and one of them is required; "
                "write keep='30 days', keep='forever' or keep_last=100",
            )
        if keep_last is not None:
            check_count(keep_last, "keep_last")
        if keep_last is not None and task_identifier is None:
            raise InvalidInput(
                "keep_last",
                keep_last,
                "requires a task; add task_identifier, such as task_identifier='nightly'",
            )
        vars(self).update(  # the class is frozen
            keep=None if keep is None else _read_keep(keep),
            keep_last=keep_last,
            status=_several(status, "status", _read_outcome, "failed"),
            task_identifier=_several(task_identifier, "task_identifier", name_text, "nightly"),
            labels=None
            if labels is None
            else tuple(sorted(read_labels(labels, "labels").items())) or None,
        )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> RetentionRule:
        """Return the rule whose arguments are the values of a mapping, as `to_dict` returns it.

        Raises:
            InvalidInput: if a key is not an argument, or a value cannot be used.
        """
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                remedy = f"is not a key of a retention rule; use one of {', '.join(known)}"
                raise InvalidInput("key", key, remedy)
        return cls(**values)

    @property
    def duration(self) -> timedelta | None:
        """How long after the start the rule keeps an execution; `None` means no such limit."""
        return self.keep if isinstance(self.keep, timedelta) else None

    def covers(
        self, status: Status, task_identifier: str, labels: Mapping[str, str] | None
    ) -> bool:
        """Return whether it covers an execution. One that runs counts as completed."""
        if status is Status.STARTED:
            status = Status.COMPLETED
        given = labels or {}
        return (
            (self.status is None or status in self.status)
            and (self.task_identifier is None or task_identifier in self.task_identifier)
            and all(given.get(name) == value for name, value in self.labels or ())
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the arguments that are not `None`, for JSON. `keep` is a text."""
        keep = duration_text(self.keep) if isinstance(self.keep, timedelta) else self.keep
        values = {
            "keep": keep,
            "keep_last": self.keep_last,
            "status": self.status and [each.value for each in self.status],
            "task_identifier": self.task_identifier and list(self.task_identifier),
            "labels": self.labels and dict(self.labels),
        }
        return {name: value for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        words = ["keep"]
        if self.keep_last is not None:
            words.append(f"the last {self.keep_last}")
        if self.status is not None:
            words.append(" or ".join(each.value.replace("_", " ") for each in self.status))
        words.append("executions")
        if self.task_identifier is not None:
            is_each = self.keep_last is not None and len(self.task_identifier) > 1
            words.append("of each of" if is_each else "of")
            words.append((" and " if is_each else " or ").join(self.task_identifier))
        if self.labels is not None:
            words.append("with " + " and ".join(f"{name}={value}" for name, value in self.labels))
        if self.keep is not None:
            words.append(kept_for(self.duration))
        return " ".join(words)


def kept_for(duration: timedelta | None) -> str:
    """Return how long something is kept, in words."""
    return FOREVER if duration is None else f"for {duration_text(duration)}"


@dataclass(frozen=True)
class Retention:
    """The retention of a store: its rules, and how long it keeps what no rule covers.

    A row whose `expires_at` is not the one that the rules give it has a retention of its own, which
    the caller chose. It keeps that.

    Attributes:
        default: the time for executions that no rule covers; `None` means forever.
        rules: the rules, in order.
    """

    default: timedelta | None
    rules: tuple[RetentionRule, ...] = ()

    def deciding(self, row: Mapping[str, Any], status: Status) -> RetentionRule | None:
        """Return the rule that decides about a row if it has a status; `None` for the default."""
        labels = decoded(row.get("labels"))
        task = row["task_identifier"]
        return next((rule for rule in self.rules if rule.covers(status, task, labels)), None)

    def expiry(self, row: Mapping[str, Any], status: Status) -> datetime | None:
        """Return when a row expires if it has a status; `None` for never.

        Raises:
            InvalidInput: if that is after the year 9999.
        """
        rule = self.deciding(row, status) if self.rules else None
        return expiry(row["started_at"], self.default if rule is None else rule.duration)

    def is_followed_by(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row has the expiry that this retention gives it, now or at its start."""
        status = row["status"]
        return row.get("expires_at") in (
            self.expiry(row, status),
            self.expiry(row, Status.COMPLETED),
        )

    def expiry_after(self, row: Mapping[str, Any], status: Status) -> datetime | None:
        """Return when a row expires once it has an outcome with a status."""
        if self.rules and self.is_followed_by(row):
            return self.expiry(row, status)
        moment: datetime | None = row.get("expires_at")
        return moment

    def for_status(self, status: Status) -> tuple[RetentionRule, ...]:
        """Return the rules for rows with a status, without that status.

        The list ends with a rule that covers all others: that of the default, if no other does.
        Statuses with equal lists are kept equally long.
        """
        found = []
        for rule in (*self.rules, self._last):
            if rule.status is None or status in rule.status:
                found.append(_without_status(rule))
                if found[-1].task_identifier is None and found[-1].labels is None:
                    break
        return tuple(found)

    @property
    def _last(self) -> RetentionRule:
        return _rule(self.default)

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        default = "never" if self.default is None else duration_text(self.default)
        return {
            "rules": [rule.to_dict() for rule in self.rules],
            "history_retention": default,
        }

    @classmethod
    def of(cls, values: Mapping[str, Any], *, now: datetime) -> Retention:
        """Return the retention that `to_dict` converted."""
        return cls(
            parse_retention(values["history_retention"], now=now),
            tuple(RetentionRule.of(rule) for rule in values["rules"]),
        )


def _rule(duration: timedelta | None) -> RetentionRule:
    return _copy(RetentionRule(keep=FOREVER), keep=FOREVER if duration is None else duration)


def _without_status(rule: RetentionRule) -> RetentionRule:
    # How many are kept makes no difference to the expiry of one.
    return _copy(rule, status=None, keep=rule.keep or FOREVER, keep_last=None)


def _copy(rule: RetentionRule, **values: Any) -> RetentionRule:
    copy = object.__new__(RetentionRule)
    vars(copy).update(vars(rule) | values)
    return copy


def read_rules(rules: Any, default: timedelta | None) -> tuple[RetentionRule, ...]:
    """Return the rules of a store; `None` stands for no rules.

    Raises:
        InvalidInput: if one is not a rule, or if the default is not in whole seconds.
    """
    if rules is None:
        return ()
    if isinstance(rules, (RetentionRule, str, Mapping)) or not isinstance(rules, Iterable):
        raise InvalidInput(
            "retention_rules",
            rules,
            "is not a list of rules; write [RetentionRule(status='failed', keep='90 days')]",
        )
    found = tuple(rules)
    for index, rule in enumerate(found):
        if not isinstance(rule, RetentionRule):
            raise InvalidInput(
                f"retention_rules[{index}]",
                rule,
                "is not a RetentionRule; write it like "
                "RetentionRule(status='failed', keep='365 days')",
            )
    if found and default is not None and default % _SECOND:
        raise InvalidInput(
            "history_retention",
            str(default),
            "is not in whole seconds, as retention rules need it; write it like '30 days'",
        )
    return found


def _read_keep(value: Any) -> timedelta | Literal["forever"]:
    if value == FOREVER:
        return FOREVER
    if value == "never":
        raise InvalidInput("keep", value, "is not a time; write 'forever', or one like '30 days'")
    duration = parse_duration(value, "keep")
    if duration % _SECOND:
        raise InvalidInput("keep", value, "is not in whole seconds; write it like '30 days'")
    if duration > _LONGEST:
        raise InvalidInput("keep", value, "is longer than 1,000 years; write 'forever'")
    return duration


def _read_outcome(value: Any, argument: str) -> Status:
    status = read_status(value, argument)
    if not status.is_outcome:
        raise InvalidInput(argument, value, "is not an outcome; write one such as 'failed'")
    return status


def _several(value: Any, argument: str, read: Any, example: str) -> tuple[Any, ...] | None:
    if value is None:
        return None
    is_one = isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Collection)
    if not is_one and not value:
        raise InvalidInput(argument, value, f"is empty; leave it out, or write [{example!r}]")
    return tuple(sorted({read(each, argument) for each in ([value] if is_one else value)}))
