"""The criteria for incidents."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobhistory.expectations.incidents import Incident


@dataclass(frozen=True)
class IncidentQuery:
    """Which incidents to return: all that were open at some time in a window.

    Attributes:
        from_, to: the window; `None` for no limit.
        task_identifier: the tasks; `None` for all.
        problem: the problems; `None` for all.
        only_open: whether to leave out incidents that are closed.
        limit: the maximum number of incidents; `None` for no limit.
    """

    from_: datetime | None = None
    to: datetime | None = None
    task_identifier: tuple[str, ...] | None = None
    problem: tuple[str, ...] | None = None
    only_open: bool = False
    limit: int | None = 100

    def is_met_by(self, incident: Incident) -> bool:
        """Return whether an incident meets the criteria, except for the limit."""
        closed_at = incident.closed_at
        return (
            (self.from_ is None or closed_at is None or closed_at >= self.from_)
            and (self.to is None or incident.opened_at <= self.to)
            and (self.task_identifier is None or incident.task_identifier in self.task_identifier)
            and (self.problem is None or incident.problem in self.problem)
            and not (self.only_open and closed_at is not None)
        )
