"""What an import finds: a schedule with its expectation, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobhistory.errors import InvalidInput
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.importing.commands import ExpectedRun
from jobhistory.expectations.importing.unions import union


class Unsuitable(ValueError):
    """Why a schedule cannot be expected; the message is the reason."""


@dataclass(frozen=True)
class Found:
    """A schedule that an import has found.

    Attributes:
        where: its place, such as `"line 3"` or `"nightly.timer"`.
        schedule: the schedule, as it is written there.
        task: the task, if it is known.
        expectation: what to declare; `None` if nothing is.
        note: why nothing is declared, or what to know about it.
        remedy: what to write instead, if there is something better.
    """

    where: str
    schedule: str
    task: str | None = None
    expectation: Expectation | None = None
    note: str | None = None
    remedy: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        expectation = self.expectation
        return vars(self) | {"expectation": expectation and expectation.to_dict()}


def found(
    where: str, schedule: str, task: str, *, note: str | None = None, **arguments: Any
) -> Found:
    """Return a schedule with its expectation; with a note instead if none can be made of it.

    Args:
        arguments: those of `Expectation`.
    """
    try:
        expectation = Expectation(task, **arguments)
    except InvalidInput as error:
        return Found(where, schedule, task, note=str(error))
    return Found(where, schedule, task, expectation, note)


def found_runs(
    where: str, schedule: str, runs: Iterable[ExpectedRun], **arguments: Any
) -> Iterator[Found]:
    """Yield what the runs of one command are expected to do; the arguments are as for `found`."""
    for place, run in enumerate(runs):
        if run.declares:
            note = "declares what it expects itself, with --expect"
            yield Found(where, schedule, run.task, note=note)
        else:
            late = "starts after other commands have ended" if place else None
            yield found(where, schedule, run.task, note=late, labels=run.labels, **arguments)


def one_for_each_task(schedules: Sequence[Found]) -> list[Found]:
    """Return the schedules, of which at most one for each task and its labels is declared.

    Schedules of one task become one if a single cron expression can say them all. Otherwise, none
    of them is declared: a start could not be told to belong to one or the other.
    """
    named: dict[str, list[Found]] = {}
    for each in schedules:
        if each.expectation is not None:
            named.setdefault(each.expectation.name, []).append(each)
    unions = {name: _united(group) for name, group in named.items()}
    result = []
    for each in schedules:
        name = "" if each.expectation is None else each.expectation.name
        if len(named.get(name, ())) > 1:
            each = _part(each, named[name][0], unions[name])
        result.append(each)
    return result


def _part(each: Found, first: Found, united: Expectation | None) -> Found:
    if united is None:
        note = (
            "the task has other schedules, and no single cron expression says them all; give each "
            "its own --task, or a --label"
        )
        return replace(each, expectation=None, note=note)
    if each is first:
        return replace(each, expectation=united)
    return replace(each, expectation=None, note=f"is part of what {first.where} declares")


def _united(group: Sequence[Found]) -> Expectation | None:
    expectations = [each.expectation for each in group if each.expectation is not None]
    first = expectations[0]
    grace = max(each.grace for each in expectations)
    if all(each.schedule == first.schedule for each in expectations):
        return Expectation.of(first.to_dict() | {"grace": grace})
    crons = [each.cron for each in expectations if each.cron is not None]
    zones = {each.timezone for each in expectations}
    expression = union(crons) if len(crons) == len(expectations) and len(zones) == 1 else None
    if expression is None:
        return None
    return Expectation.of(first.to_dict() | {"cron": expression, "grace": grace})
