"""The screen of `jobhistory expect import`: one line per schedule."""

from __future__ import annotations

from collections.abc import Sequence

from jobhistory.cli.output import one_line, print_tabbed
from jobhistory.cli.screens.cells import name_column
from jobhistory.cli.screens.expectations import schedule_text
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Table
from jobhistory.expectations.importing.plan import Action, Step

_HEADINGS = ("ACTION", "TASK", "SCHEDULE", "WHERE", "NOTE")
_STYLES = {Action.ADD: "green", Action.CHANGE: "yellow", Action.REMOVE: "red", Action.SKIP: "dim"}


def print_plan(screen: Screen, steps: Sequence[Step]) -> None:
    """Print what an import does with each schedule, and why."""
    if not screen.is_terminal:
        print_tabbed([_HEADINGS])
        print_tabbed(map(_texts, steps))
        return
    columns = [
        Column("ACTION", 90),
        name_column("TASK", 80),
        Column("SCHEDULE", 70, least=12),
        Column("WHERE", 60, least=8),
        Column("NOTE", moves_below=True),
    ]
    rows = [
        [
            Cell(screen.characters(text), _STYLES.get(step.action, "") if number == 0 else "")
            for number, text in enumerate(_texts(step))
        ]
        for step in steps
    ]
    Table(columns, rows).print(screen)


def _texts(step: Step) -> tuple[str, ...]:
    expectation = step.expectation
    notes = [step.note or ""]
    if step.found.remedy is not None:
        notes.append(f"instead: {step.found.remedy}")
    return (
        step.action.value,
        one_line(expectation.name if expectation else step.found.task or "-"),
        one_line(schedule_text(expectation) if expectation else step.found.schedule),
        one_line(step.found.where),
        one_line("; ".join(filter(None, notes))),
    )
