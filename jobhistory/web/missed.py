"""Which runs were missed, for views that show them among those that were not."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from sqlalchemy.exc import DBAPIError

from jobhistory.database.driver_errors import is_denied
from jobhistory.expectations.missed import MissedRun, MissedTime
from jobhistory.web.asking import Ask, ask


def missed_in(time: MissedTime, most: int = 100) -> Generator[Ask, Any, list[MissedRun]]:
    """Return the runs that were missed in a time; none if the role may read executions only."""
    try:
        incidents = yield ask("incidents", **time.criteria, reads="which runs were missed")
    except DBAPIError as error:
        if not is_denied(error):
            raise
        return []
    return time.missed_runs(incidents, most=most)
