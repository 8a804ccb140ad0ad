"""How long statistics by hour and by day are kept."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from jobhistory._runtime.durations import parse_duration
from jobhistory.statistics.cover import Marks
from jobhistory.statistics.spans import Span
from jobhistory.typing import Duration


class Keeping(NamedTuple):
    """How long hours and days are kept. Months are kept forever."""

    hours: timedelta
    days: timedelta

    @classmethod
    def of(cls, hourly: Duration, daily: Duration) -> Keeping:
        """Return it for the arguments of a store.

        Raises:
            InvalidInput: if an argument is not a duration.
        """
        return cls(
            parse_duration(hourly, "hourly_statistics"), parse_duration(daily, "daily_statistics")
        )

    def marks(self, now: datetime) -> Marks:
        """Return the times from which hours and days are kept; `None` if all of them are.

        Hours are kept for whole days, and days for whole months.
        """
        return Marks(
            hours_from=_start(Span.DAY, now, self.hours),
            days_from=_start(Span.MONTH, now, self.days),
        )


def _start(span: Span, now: datetime, kept: timedelta) -> datetime | None:
    try:
        return span.start(now - kept)
    except OverflowError:  # longer ago than there are years
        return None
