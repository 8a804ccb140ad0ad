"""Declare what `jobhistory run --expect` expects of its task."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from jobhistory._runtime.local_zone import local_timezone
from jobhistory.expectations.expectation import Expectation
from jobhistory.store import HistoryStore

_SOURCE = "jobhistory run"
_SCHEDULE = ("every", "cron", "timezone")


def declare(
    store: HistoryStore, task: str, schedule: Mapping[str, str], grace: timedelta | None
) -> None:
    """Declare when a task should start, unless that is known.

    What else is expected of it stays, such as a maximum running time. The time zone of cron is that
    of this machine, in which its cron runs.

    Args:
        schedule: `cron` or `every`, as `Expectation` takes it.
        grace: how much later than due it may start; `None` for what is known, or the default.
    """
    before = {each.expectation.name: each for each in store.expectations()}.get(task)
    known = {} if before is None else before.expectation.to_dict()
    values: dict[str, Any] = {key: known[key] for key in known if key not in _SCHEDULE}
    values |= {"task_identifier": task, **schedule}
    if "cron" in schedule:
        values["timezone"] = local_timezone() or "UTC"
    if grace is not None:
        values["grace"] = grace
    wanted = Expectation.of(values)
    if before is None or before.expectation != wanted:
        store.expect(wanted, source=_SOURCE if before is None else before.source)
