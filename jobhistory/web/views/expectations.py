"""What is expected of tasks, and whether it was met at the last check."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from jobhistory.expectations.declarations import DeclaredExpectation
from jobhistory.expectations.incidents import Incident
from jobhistory.web.asking import Steps, ask
from jobhistory.web.context import Context

_DEFAULT_WINDOW = "7d"
_MOST_INCIDENTS = 200


@dataclass(frozen=True)
class Row:
    """An expectation in the list.

    Attributes:
        declared: the expectation.
        problems: its open incidents, the longest first.
        next_slot: when the task should start next; `None` if that is not known.
        is_paused: whether nothing is expected at present.
    """

    declared: DeclaredExpectation
    problems: list[Incident]
    next_slot: datetime | None
    is_paused: bool


def expectations(page: Context) -> Steps:
    """Show the expectations, those with problems first, and the incidents of a window."""
    window = page.window(_DEFAULT_WINDOW)
    declared: list[DeclaredExpectation] = yield ask("expectations", reads="all that were declared")
    open_: list[Incident] = yield ask(
        "incidents", only_open=True, limit=None, reads="all that are open"
    )
    incidents: list[Incident] = yield ask(
        "incidents",
        from_=window.from_,
        to=window.to,
        limit=_MOST_INCIDENTS,
        reads="those in the window, by an index",
    )
    rows = _rows(page, declared, open_)
    return page.render(
        "expectations.html",
        window=window,
        rows=rows,
        number_wrong=sum(bool(row.problems) for row in rows),
        checked_at=max((d.checked_at for d in declared if d.checked_at), default=None),
        incidents=incidents,
        has_more=len(incidents) == _MOST_INCIDENTS,
        most=_MOST_INCIDENTS,
    )


def _rows(
    page: Context, declared: Iterable[DeclaredExpectation], open_: Iterable[Incident]
) -> list[Row]:
    problems: dict[str, list[Incident]] = {}
    for incident in sorted(open_, key=lambda each: each.opened_at):
        problems.setdefault(incident.expectation, []).append(incident)
    rows = []
    for each in declared:
        expectation, schedule = each.expectation, each.expectation.schedule
        paused = expectation.paused_until
        rows.append(
            Row(
                each,
                problems.get(expectation.name, []),
                None if schedule is None else schedule.next_slot(None, page.now),
                paused is not None and paused > page.now,
            )
        )
    return sorted(rows, key=lambda row: (not row.problems, row.declared.expectation.name))
