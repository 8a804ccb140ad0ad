"""When a task should start: the slots of a cron expression, or of an interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise, takewhile
from typing import Literal, Protocol

from cronsim import CronSim, CronSimError

from jobhistory.errors import InvalidInput
from jobhistory.expectations.local_time import Span, spans, zone_of

MOST_SLOTS = 1000
"""The maximum number of slots that are looked at, the latest ones."""

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_DAY = timedelta(days=1)
_LONGEST_GAP = timedelta(hours=3)
_LONGEST_BACK = timedelta(hours=-3, minutes=-1)
_LONGEST_YEARS = 50  # no expression of five fields takes longer
_TICK = timedelta(microseconds=1)


def read_cron(text: str, argument: str) -> str:
    """Return a cron expression of five fields, with single spaces. `@daily` and its like work.

    Raises:
        InvalidInput: if it is not one.
    """
    example = "write minute, hour, day, month and weekday, such as '17 2 * * *'"
    if not isinstance(text, str):
        raise InvalidInput(argument, text, f"is not a cron expression; {example}")
    expression = _ALIASES.get(text.strip().lower(), " ".join(text.split()))
    if len(expression.split()) != 5:
        raise InvalidInput(argument, text, f"does not have five fields; {example}")
    try:
        next(CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise InvalidInput(
            argument, text, f"is not a cron expression ({error}); {example}"
        ) from None
    except StopIteration:
        raise InvalidInput(argument, text, f"never comes; {example}") from None
    return expression


def read_timezone(name: str, argument: str) -> str:
    """Return the name of a time zone that this machine knows.

    Raises:
        InvalidInput: if it does not.
    """
    try:
        zone_of(name)
    except (KeyError, ValueError, TypeError, OSError):
        raise InvalidInput(
            argument,
            name,
            "is not a time zone that this machine knows; write it like 'Europe/Berlin', and "
            "install the package tzdata if there are none",
        ) from None
    return name


class Schedule(Protocol):
    """When a task should start."""

    def slots(self, starts: Sequence[datetime], from_: datetime, to: datetime) -> list[datetime]:
        """Return the times at which the task should have started, oldest first.

        Args:
            starts: when it did start, oldest first.
            from_, to: the period of the slots, both included. Of many, the latest 1,000 come.
        """
        ...

    def next_slot(self, last_start: datetime | None, now: datetime) -> datetime | None:
        """Return the next time at which the task should start; `None` if it is not known."""
        ...


@dataclass(frozen=True)
class Cron:
    """The slots of a cron expression in a time zone, as Debian's cron starts jobs.

    Jobs whose minute or hour field begins with a `*` follow the clock: when clocks go forward, what
    falls into the gap does not start, and when they go back, they start in both hours. All others
    start as often as on any other day: those of the gap right after it, each of them, and those of
    the repeated hour in the first one. Only a change of more than three hours is different.
    """

    expression: str
    timezone: str

    def slots(self, starts: Sequence[datetime], from_: datetime, to: datetime) -> list[datetime]:
        """Return the slots in a period, whenever the task did start."""
        found: list[datetime] = []
        for span in [*takewhile(lambda span: span.start <= to, spans(self.timezone, from_))][::-1]:
            end = min(span.local_end, span.local(to) + _TICK)
            for local in _pattern(self.expression).between(self._first_of(span), end, -1):
                slot = max(span.utc(local), span.start)
                if slot < from_ or len(found) == MOST_SLOTS:
                    return found[::-1]
                found.append(slot)
        return found[::-1]

    def next_slot(self, last_start: datetime | None, now: datetime) -> datetime | None:
        """Return the next slot, whenever the task did start."""
        last_year = now.year + _LONGEST_YEARS
        for span in takewhile(lambda span: span.start.year < last_year, spans(self.timezone, now)):
            first = self._first_of(span)
            if now >= span.start:
                first = max(first, span.local(now) + _TICK)
            for local in _pattern(self.expression).between(first, span.local_end, 1):
                return max(span.utc(local), span.start)
        return None

    def _first_of(self, span: Span) -> datetime:
        """Return the local time from which on jobs start in a period."""
        change = span.local_start - span.reached
        if self._follows_clock or not _LONGEST_BACK < change < _LONGEST_GAP:
            return span.local_start
        return span.reached

    @property
    def _follows_clock(self) -> bool:
        minute, hour, *_ = self.expression.split()
        return minute.startswith("*") or hour.startswith("*")


@dataclass(frozen=True)
class Interval:
    """Slots that follow each start at equal distances, until the next start."""

    length: timedelta

    def slots(self, starts: Sequence[datetime], from_: datetime, to: datetime) -> list[datetime]:
        """Return the slots in a period; without a start, they count from its beginning."""
        found: list[datetime] = []
        for start, end in pairwise([*(starts or [from_]), to + _TICK]):
            count = (end - start) // self.length
            first = max(1, count - MOST_SLOTS + 1)
            found += [start + number * self.length for number in range(first, count + 1)]
        return [slot for slot in found if from_ <= slot <= to][-MOST_SLOTS:]

    def next_slot(self, last_start: datetime | None, now: datetime) -> datetime | None:
        """Return when the task is due after its last start, which may be in the past."""
        return None if last_start is None else last_start + self.length


class _Pattern:
    """The local times that match a cron expression."""

    def __init__(self, expression: str) -> None:
        self._fields = CronSim(expression, datetime(2026, 1, 1))
        self._times = tuple(
            timedelta(hours=hour, minutes=minute)
            for hour in sorted(self._fields.hours)
            for minute in sorted(self._fields.minutes)
        )

    def between(self, first: datetime, end: datetime, step: Literal[1, -1]) -> Iterator[datetime]:
        """Yield the times from the first one on and before the end, in order or in reverse."""
        midnight = datetime.combine(first if step == 1 else end - _TICK, time())
        while first - _DAY < midnight < end:
            if midnight.month in self._fields.months and self._fields.match_day(midnight):
                for time_of_day in self._times[::step]:
                    if first <= midnight + time_of_day < end:
                        yield midnight + time_of_day
            midnight += step * _DAY


_pattern = lru_cache(maxsize=1024)(_Pattern)
