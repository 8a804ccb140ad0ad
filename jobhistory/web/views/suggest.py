"""What the text in the search box may become."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from datetime import timedelta
from typing import Any

from jobhistory.query.criteria import HistoryQuery
from jobhistory.web import search
from jobhistory.web.asking import Ask, Steps, ask
from jobhistory.web.context import Context
from jobhistory.web.http import tagged
from jobhistory.web.window import CHOICES

_MOST = 12
_RECENT = 200
_FIXED = {
    "status": tuple(search.STATUS_NAMES),
    "min-attempt": ("2", "3", "5"),
    "min-time": ("1s", "10s", "1m", "10m", "1h"),
    "since": CHOICES,
    "until": CHOICES,
}


def suggest(page: Context) -> Steps:
    """Show completions of the last term, from history, as the options of a list box."""
    before, name, start = search.unfinished(page.search_text)
    if name is None:
        terms = [f"{each}:" for each in (*search.TERMS, *search.WINDOW_TERMS)]
        terms += [search.term("status", each) for each in _FIXED["status"]]
        if start:
            terms += [search.term("task", each) for each in (yield from _tasks(page))]
        found = [each for each in terms if start.lower() in each.lower()]
    else:
        values = yield from _values(page, name)
        matching = (each for each in values if each.lower().startswith(start.lower()))
        found = [search.term(name, each) for each in matching]
    finished = None if name is None else search.term(name, start)
    suggestions = [each for each in found if each != finished][:_MOST]
    answer = page.render("suggest.html", before=before, suggestions=suggestions)
    return tagged(answer, page.request)  # another viewer of the browser may see less


def _values(page: Context, name: str) -> Generator[Ask, Any, Iterable[str]]:
    """Return known values of a term, those that people want most often first."""
    if name == "task":
        return (yield from _tasks(page))
    if name in ("worker", "label"):
        recent = yield ask("query", HistoryQuery(limit=_RECENT), reads="the newest, by an index")
        if name == "worker":
            return _distinct(record.worker_id for record in recent)
        labels = (record.labels for record in recent if isinstance(record.labels, dict))
        return _distinct(f"{key}={value}" for each in labels for key, value in each.items())
    if name == "error-type":
        query = HistoryQuery(status="failed", limit=_RECENT)
        recent = yield ask("query", query, reads="the newest failures, by an index")
        return _distinct(str(record.error_type) for record in recent)
    return _FIXED.get(name, ())


def _tasks(page: Context) -> Generator[Ask, Any, Iterable[str]]:
    # From midnight on, statistics by day answer.
    midnight = page.now.replace(hour=0, minute=0, second=0, microsecond=0)
    query = HistoryQuery(from_=midnight - timedelta(days=7))
    stats = yield ask("stats", query, reads="statistics of all tasks of a week")
    most_frequent = sorted(stats, key=lambda each: -each.executions)
    return [each.task_identifier for each in most_frequent]


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
