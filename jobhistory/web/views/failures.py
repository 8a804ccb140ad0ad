"""Failures in groups: what fails, how often, and since when."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from jobhistory.query.reports import FailureGroup
from jobhistory.web.asking import Steps, ask
from jobhistory.web.charts import share_bar
from jobhistory.web.context import Context
from jobhistory.web.figures import executions_link
from jobhistory.web.views.tasks import DEFAULT_WINDOW, order_of
from jobhistory.web.window import Window

KNOWN_FOR = "7 days"
"""How long before the window a failure must not have been seen to be new."""

_MOST_GROUPS = 100
_MOST_TASKS = 20
_PLACEHOLDER = re.compile("<(?:number|id|address|value)>")
_LEAST_TEXT = 4

_ORDERS: dict[str, Callable[[FailureGroup], Any]] = {
    "count": lambda group: group.count,
    "last-seen": lambda group: group.last_seen,
    "first-seen": lambda group: group.first_seen,
}
"""The orders of the list; the greatest comes first."""


@dataclass(frozen=True)
class Row:
    """A group in the list.

    Attributes:
        group: the group.
        share: its share of the failures in the list.
        bar: the share as a bar.
        executions: the URL of its executions.
    """

    group: FailureGroup
    share: float
    bar: Markup
    executions: str


def failures(page: Context) -> Steps:
    """Show the groups of failures in a window, most frequent first."""
    window = page.window(DEFAULT_WINDOW)
    order = order_of(page, _ORDERS)
    query = page.query(window, limit=_MOST_GROUPS)
    found: list[FailureGroup] = yield ask(
        "failure_groups",
        query,
        known_for=KNOWN_FOR,
        reads=f"all failures in the window, and similar ones of the {KNOWN_FOR} before",
    )
    shows_new = page.request.parameter("show") == "new"
    groups = [group for group in found if group.is_new or not shows_new]
    groups.sort(key=_ORDERS[order], reverse=True)
    return page.render(
        "failures.html",
        window=window,
        order=order,
        orders=list(_ORDERS),
        rows=rows_of(page, groups, window),
        total=sum(group.count for group in groups),
        tasks=_by_task(page, groups),
        most_tasks=_MOST_TASKS,
        shows_new=shows_new,
        new=sum(group.is_new is True for group in found),
        most=_MOST_GROUPS if len(found) == _MOST_GROUPS else None,
    )


def _by_task(page: Context, groups: Sequence[FailureGroup]) -> list[tuple[str, int, str]]:
    """Return the tasks that fail, each with its number of failures and the URL of its groups."""
    counts: Counter[str] = Counter()
    for group in groups:
        counts[group.task_identifier] += group.count
    return [(name, count, page.narrowed("task", name)) for name, count in counts.most_common()]


def rows_of(page: Context, groups: Sequence[FailureGroup], window: Window) -> list[Row]:
    """Return groups as the list shows them."""
    total = sum(group.count for group in groups) or 1
    rows = []
    for group in groups:
        share = group.count / total
        link = executions_link(
            page, group.task_identifier, *_terms_of(page, group), **window.parameters()
        )
        rows.append(Row(group, share, share_bar(share), link))
    return rows


def _terms_of(page: Context, group: FailureGroup) -> list[tuple[str, str]]:
    """Return the terms of a search that finds the failures of a group, and maybe similar ones."""
    terms = [("status", "failed"), ("error-type", group.error_type)]
    if page.settings.present is not None:
        return terms  # the message may not be the one in the history
    text = max(_PLACEHOLDER.split(group.message), key=len).strip()
    return [*terms, ("error-contains", text)] if len(text) >= _LEAST_TEXT else terms
