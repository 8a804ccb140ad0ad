"""The screens of `jobhistory expect`: what is expected of which task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from jobhistory._runtime.ages import relative_in_words
from jobhistory._runtime.durations import duration_text
from jobhistory.cli.output import one_line, print_tabbed
from jobhistory.cli.screens.cells import counted, moment_text, name_column
from jobhistory.cli.screens.screen import Screen
from jobhistory.cli.screens.table import Cell, Column, Table
from jobhistory.expectations.declarations import DeclaredExpectation
from jobhistory.expectations.expectation import Expectation

_HEADINGS = ("NAME", "SCHEDULE", "GRACE", "LIMITS", "OWNER", "SOURCE")
_LEAST = 10


def print_expectations(screen: Screen, declared: Sequence[DeclaredExpectation]) -> None:
    """Print a line for each expectation."""
    if not screen.is_terminal:
        print_tabbed([_HEADINGS])
        print_tabbed(map(_texts, declared))
        return
    if not declared:
        screen.print("nothing is expected; declare it with jobhistory expect add")
        return
    columns = [
        name_column("NAME", 90),
        Column("SCHEDULE", 80, least=_LEAST),
        Column("NEXT", 70),
        Column("GRACE", 30),
        Column("OWNER", 40, least=_LEAST),
        Column("SOURCE", 20, least=_LEAST),
        Column("LIMITS", moves_below=True),
    ]
    rows = [
        tuple(
            Cell(screen.text(text))
            for text in (
                each.expectation.name,
                schedule_text(each.expectation),
                next_text(each.expectation, screen),
                duration_text(each.expectation.grace),
                each.expectation.owner or "",
                each.source or "",
                limits_text(each.expectation),
            )
        )
        for each in declared
    ]
    Table(columns, rows).without_empty().print(screen)
    screen.print_note(counted(len(declared), "expectation"))


def print_expectation(screen: Screen, declared: DeclaredExpectation) -> None:
    """Print all that is known of an expectation."""
    for label, text in _details(screen, declared):
        screen.print_folded(Text(screen.characters(text)), Text(f"{label:<13}", "bold"))


def schedule_text(expectation: Expectation) -> str:
    """Return when a task should start, with the time zone."""
    if expectation.cron is not None:
        return f"{expectation.cron} {expectation.timezone}"
    return "" if expectation.every is None else f"every {duration_text(expectation.every)}"


def next_text(expectation: Expectation, screen: Screen) -> str:
    """Return the time of the next start in words, if only the clock decides it."""
    if expectation.paused_until is not None and expectation.paused_until > screen.now:
        return "paused"
    if expectation.cron is None or expectation.schedule is None:
        return ""
    slot = expectation.schedule.next_slot(None, screen.now)
    return "" if slot is None else relative_in_words(slot, screen.now)


def limits_text(expectation: Expectation) -> str:
    """Return everything but the schedule, in words.

    That each failure is a problem goes without saying, unless nothing else is expected.
    """
    limits = ", ".join(_limits(expectation))
    return limits or ("does not fail" if expectation.schedule is None else "")


def _limits(expectation: Expectation) -> Iterator[str]:
    if expectation.min_runtime is not None:
        yield f"takes at least {duration_text(expectation.min_runtime)}"
    if expectation.max_runtime is not None:
        yield f"takes at most {duration_text(expectation.max_runtime)}"
    if expectation.max_success_age is not None:
        yield f"succeeds every {duration_text(expectation.max_success_age)}"
    if expectation.failures_in_a_row is None:
        yield "may fail"
    elif expectation.failures_in_a_row > 1:
        yield f"fails less than {expectation.failures_in_a_row} times in a row"
    if expectation.max_failure_rate is not None:
        yield f"at most {expectation.max_failure_rate:.0%} fail"
    if expectation.max_running is not None:
        yield f"at most {expectation.max_running} at a time"


def _details(screen: Screen, declared: DeclaredExpectation) -> Iterator[tuple[str, str]]:
    expectation = declared.expectation
    yield "name", screen.text(expectation.name)
    if schedule_text(expectation):
        yield "schedule", schedule_text(expectation)
        yield "grace", duration_text(expectation.grace)
    if next_text(expectation, screen):
        yield "next", next_text(expectation, screen)
    if limits_text(expectation):
        yield "limits", limits_text(expectation)
    for label, text in (
        ("owner", expectation.owner),
        ("runbook", expectation.runbook),
        ("source", declared.source),
    ):
        if text is not None:
            yield label, screen.text(text)
    for label, moment in (
        ("paused until", expectation.paused_until),
        ("declared", declared.declared_at),
        ("checked", declared.checked_at),
    ):
        if moment is not None:
            yield label, f"{moment_text(moment, screen)} {screen.zone([moment])}"


def _texts(declared: DeclaredExpectation) -> tuple[str, ...]:
    expectation = declared.expectation
    return (
        one_line(expectation.name),
        schedule_text(expectation),
        duration_text(expectation.grace),
        limits_text(expectation),
        one_line(expectation.owner or ""),
        one_line(declared.source or ""),
    )
