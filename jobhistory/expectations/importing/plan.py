"""What an import changes among the expectations that are declared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from jobhistory.expectations.declarations import DeclaredExpectation
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.importing.found import Found

_SCHEDULE = ("every", "cron", "timezone")


class Action(StrEnum):
    """What an import does with an expectation."""

    ADD = "add"
    CHANGE = "change"
    KEEP = "keep"
    SKIP = "skip"
    REMOVE = "remove"


@dataclass(frozen=True)
class Step:
    """One line of a plan.

    Attributes:
        action: what to do.
        source: where the schedule was found.
        found: the schedule.
        expectation: what to declare or to remove; `None` if the schedule is skipped.
        note: what to know about it.
    """

    action: Action
    source: str
    found: Found
    expectation: Expectation | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        expectation = self.expectation
        return {
            "action": self.action.value,
            "source": self.source,
            **self.found.to_dict(),
            "expectation": expectation and expectation.to_dict(),
            "note": self.note,
        }


def plan_import(
    found: Mapping[str, Iterable[Found]],
    declared: Iterable[DeclaredExpectation],
    *,
    with_grace: bool = False,
    prune: bool = False,
) -> Iterator[Step]:
    """Yield what to do with each schedule, and with earlier imports that the source no longer has.

    An import changes the schedules of the expectations that came from the same source. It keeps
    all else that somebody may have edited, and what somebody else has declared.

    Args:
        found: the schedules of each source.
        with_grace: whether grace periods are changed as well.
        prune: whether to remove what is gone.
    """
    known = {each.expectation.name: each for each in declared}
    wanted = set()
    for source, schedules in found.items():
        for each in schedules:
            step = _step(source, each, known, with_grace=with_grace)
            wanted.add(step.expectation.name if step.expectation else "")
            yield step
    for name, old in known.items():
        if old.source in found and name not in wanted:
            gone = Found("-", "-", old.expectation.task_identifier)
            note = "is gone" if prune else "is gone; --prune removes it"
            action = Action.REMOVE if prune else Action.KEEP
            yield Step(action, old.source or "", gone, old.expectation, note)


def _step(
    source: str, found: Found, known: Mapping[str, DeclaredExpectation], *, with_grace: bool
) -> Step:
    new = found.expectation
    if new is None:
        return Step(Action.SKIP, source, found, note=found.note)
    old = known.get(new.name)
    if old is None:
        return Step(Action.ADD, source, found, new, found.note)
    if old.source != source:
        other = "by hand or in code" if old.source is None else f"by an import from {old.source}"
        return Step(Action.KEEP, source, found, old.expectation, f"is declared {other}")
    changed = _changed(old.expectation, new, (*_SCHEDULE, *(["grace"] if with_grace else [])))
    action = Action.KEEP if changed == old.expectation else Action.CHANGE
    return Step(action, source, found, changed, found.note)


def _changed(old: Expectation, new: Expectation, names: Iterable[str]) -> Expectation:
    """Return an expectation with some arguments of another one."""
    kept = {name: value for name, value in old.to_dict().items() if name not in names}
    values = new.to_dict()
    return Expectation.of(kept | {name: values[name] for name in names if name in values})
