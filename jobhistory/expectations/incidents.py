"""Incidents: problems that have a beginning and an end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from jobhistory._runtime.plain_json import plain_json
from jobhistory.execution.ids import new_execution_id
from jobhistory.expectations.schedule import MOST_SLOTS
from jobhistory.expectations.verdicts import Checked, Problem, Verdict

CLOSED_KEPT_FOR = timedelta(days=400)
"""How long closed incidents are kept, as long as statistics by day are by default."""


@dataclass(frozen=True)
class Incident:
    """A problem with a task, from the check that found it to the check that no longer did.

    Of an expectation, at most one incident with each problem is open.

    Attributes:
        id: its id, a UUIDv7.
        expectation: the name of the expectation.
        task_identifier: the task.
        problem: what is wrong.
        summary: the evidence, as one sentence without the name of the task, by the last check that
            found the problem.
        slots: when the task should have started and did not, oldest first; at most the latest
            1,000.
        executions: the ids of executions that prove it, newest first.
        opened_at: when a check found it first.
        seen_at: when a check found it last.
        closed_at: when a check no longer found it; `None` if it is open.
    """

    id: UUID
    expectation: str
    task_identifier: str
    problem: Problem
    summary: str
    slots: tuple[datetime, ...]
    executions: tuple[UUID, ...]
    opened_at: datetime
    seen_at: datetime
    closed_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Whether the problem persists, as far as is known."""
        return self.closed_at is None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        values = {name: plain_json(value) for name, value in vars(self).items()}
        return values | {
            "slots": [plain_json(slot) for slot in self.slots],
            "executions": [plain_json(id_) for id_ in self.executions],
        }


@dataclass(frozen=True)
class News:
    """An incident whose beginning or end somebody should hear of.

    Attributes:
        incident: the incident.
        is_known: whether its beginning was sent before.
    """

    incident: Incident
    is_known: bool

    @property
    def kind(self) -> str:
        """What is new: `opened`, or `closed`, also if nobody has heard of its beginning."""
        return "opened" if self.incident.is_open else "closed"


def changed_by(open_: Iterable[Incident], checked: Checked) -> list[Incident]:
    """Return the incidents that a check opens, confirms or closes.

    Args:
        open_: the open incidents of the expectation.
    """
    if checked.is_paused:
        return []
    found = {each.problem: each for each in open_}
    late = {
        slot for each in checked.verdicts if each.problem is Problem.LATE for slot in each.slots
    }
    now, changed = checked.checked_at, []
    for verdict in checked.verdicts:
        incident = found.pop(verdict.problem, None) or _opened(checked, verdict)
        changed.append(
            replace(
                incident,
                summary=verdict.summary,
                slots=tuple(sorted({*incident.slots, *verdict.slots}))[-MOST_SLOTS:],
                executions=verdict.executions,
                seen_at=now,
                closed_at=now if verdict.is_over else None,
            )
        )
    changed += [replace(each, closed_at=now) for each in found.values()]
    return [
        replace(each, slots=tuple(slot for slot in each.slots if slot not in late))
        if each.problem is Problem.MISSED
        else each
        for each in changed
    ]


def _opened(checked: Checked, verdict: Verdict) -> Incident:
    now = checked.checked_at
    return Incident(
        id=new_execution_id(now),
        expectation=checked.expectation.name,
        task_identifier=checked.expectation.task_identifier,
        problem=verdict.problem,
        summary=verdict.summary,
        slots=verdict.slots,
        executions=verdict.executions,
        opened_at=now,
        seen_at=now,
        closed_at=None,
    )
