"""What a check finds: verdicts on the expectations, with their evidence."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from jobhistory._runtime.plain_json import plain_json
from jobhistory.expectations.expectation import Expectation


class Severity(StrEnum):
    """How bad a problem is, in the terms of Nagios."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def exit_status(self) -> int:
        """The exit status of a Nagios plugin."""
        return list(Severity).index(self)


class Problem(StrEnum):
    """What can be wrong with a task."""

    MISSED = "missed"
    LATE = "late"
    TOO_LONG = "too_long"
    TOO_SHORT = "too_short"
    OVERLAPPING = "overlapping"
    FAILING = "failing"
    FAILING_OFTEN = "failing_often"
    SILENT = "silent"
    NEVER_RAN = "never_ran"

    @property
    def severity(self) -> Severity:
        """How bad the problem is."""
        return Severity.WARNING if self in _WARNINGS else Severity.CRITICAL

    @property
    def words(self) -> str:
        """The name of the problem in words."""
        return self.value.replace("_", " ")


_WARNINGS = (Problem.LATE, Problem.TOO_SHORT, Problem.OVERLAPPING)


@dataclass(frozen=True)
class Verdict:
    """One problem with a task.

    Attributes:
        problem: what is wrong.
        summary: the evidence, as one sentence without the name of the task.
        slots: when the task should have started, oldest first; empty unless a start is missing or
            late.
        executions: the ids of the executions that prove it, newest first.
        is_over: whether it was true since the last check, but no longer is.
    """

    problem: Problem
    summary: str
    slots: tuple[datetime, ...] = ()
    executions: tuple[UUID, ...] = ()
    is_over: bool = False

    @property
    def severity(self) -> Severity:
        """How bad it is now; `OK` if it is over."""
        return Severity.OK if self.is_over else self.problem.severity

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return {
            "problem": self.problem.value,
            "severity": self.severity.value,
            "summary": self.summary,
            "slots": [plain_json(slot) for slot in self.slots],
            "executions": [plain_json(id_) for id_ in self.executions],
            "is_over": self.is_over,
        }


@dataclass(frozen=True)
class Checked:
    """The result of a check of one expectation.

    Attributes:
        expectation: what was checked.
        checked_at: the time of the check.
        verdicts: what is wrong, the worst first; empty if all is well.
        deadline: the time by which the task must have started, or succeeded, so that nothing is
            missed; in the past if something is. `None` if the expectation sets none.
        next_slot: the next time at which it should start; `None` if that is not known.
        last_start: its last start; `None` if there is none in history.
        is_paused: whether nothing is expected at present.
        last_success: its last success; `None` if there is none in history.
    """

    expectation: Expectation
    checked_at: datetime
    verdicts: tuple[Verdict, ...] = ()
    deadline: datetime | None = None
    next_slot: datetime | None = None
    last_start: datetime | None = None
    is_paused: bool = False
    last_success: datetime | None = None

    @property
    def severity(self) -> Severity:
        """How bad the worst verdict is; `OK` if there is none."""
        return max((each.severity for each in self.verdicts), key=_rank, default=Severity.OK)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return {
            "expectation": self.expectation.name,
            "task_identifier": self.expectation.task_identifier,
            "severity": self.severity.value,
            "checked_at": plain_json(self.checked_at),
            "deadline": plain_json(self.deadline),
            "next_slot": plain_json(self.next_slot),
            "last_start": plain_json(self.last_start),
            "last_success": plain_json(self.last_success),
            "is_paused": self.is_paused,
            "verdicts": [each.to_dict() for each in self.verdicts],
        }


def _rank(severity: Severity) -> int:
    return severity.exit_status


def worst_first(verdicts: list[Verdict]) -> tuple[Verdict, ...]:
    """Return verdicts in the order of their severity."""
    return tuple(sorted(verdicts, key=lambda each: -each.severity.exit_status))
