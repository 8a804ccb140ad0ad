"""When Debian's cron starts jobs: its main loop, minute by minute, with a virtual clock.

Written from the facts of cron 3.0pl1-162 (Debian 12), `main`, `find_jobs` and `set_time` in cron.c,
and `load_entry` in entry.c:

- The daemon counts minutes of local time. It wakes up when that number changes, and compares it
  with the last minute whose jobs have run.
- One minute later, all jobs of the minute start.
- Up to 5 minutes later, all jobs of each minute since start.
- Up to 180 minutes later, jobs with a wildcard start as of now; then those without one start for
  each minute since, with a pause of 10 s after each. When the minute is over, the daemon compares
  again.
- Not later, or up to 179 minutes earlier, only jobs with a wildcard start, until local time has
  caught up.
- Otherwise all jobs of the current minute start, and the minutes between are forgotten.
- A job has a wildcard if its minute or hour field begins with `*`.
- A day matches if its month day or its weekday does; both must, if one of the fields begins with
  `*`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo

_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


class Entry:
    """A line of a crontab."""

    def __init__(self, expression: str) -> None:
        fields = expression.split()
        self.expression = expression
        self.sets = [_numbers(text, *limits) for text, limits in zip(fields, _FIELDS, strict=True)]
        self.has_wildcard = fields[0].startswith("*") or fields[1].startswith("*")
        self.needs_both = fields[2].startswith("*") or fields[4].startswith("*")

    def matches_day(self, day: datetime) -> bool:
        _, _, month_days, months, weekdays = self.sets
        weekday = day.isoweekday()
        in_month, in_week = day.day in month_days, bool({weekday, weekday % 7} & weekdays)
        matches = (in_month and in_week) if self.needs_both else (in_month or in_week)
        return day.month in months and matches


def starts(
    timezone: str, expressions: Sequence[str], from_: datetime, to: datetime
) -> dict[str, list[datetime]]:
    """Return when jobs start, for each expression of one crontab."""
    found: dict[str, list[datetime]] = {expression: [] for expression in expressions}
    for expression, start in _Daemon(timezone, expressions, from_).run(to):
        found[expression].append(start)
    return found


class _Daemon:
    def __init__(self, timezone: str, expressions: Sequence[str], from_: datetime) -> None:
        self._zone = ZoneInfo(timezone)
        self._entries = [Entry(expression) for expression in expressions]
        self._now = int(from_.timestamp())
        self._queue: list[str] = []
        self._of_day = cache(self._matching_day)
        self._offset_of = cache(self._find_offset)

    def run(self, to: datetime) -> Iterator[tuple[str, datetime]]:
        last = running = self._minute()
        end = to.timestamp()
        while self._now <= end:
            self._sleep(running)
            if self._minute() == running:
                continue
            running = self._minute()
            behind = running - last
            if behind == 1:
                last = running
                self._find(last, True, True)
            elif 0 < behind <= 5:
                while last < running:
                    yield from self._start(pause=10)
                    last += 1
                    self._find(last, True, True)
            elif 5 < behind <= 180:
                self._find(running, True, False)
                while True:
                    yield from self._start(pause=10)
                    last += 1
                    self._find(last, False, True)
                    if last >= running or self._minute() != running:
                        break
            elif -180 < behind <= 0:
                self._find(running, True, False)
            else:
                last = running
                self._find(running, True, True)
            yield from self._start()

    def _minute(self) -> int:
        return (self._now + self._offset()) // 60

    def _offset(self) -> int:
        return self._offset_of(self._now // 900)  # clocks change at a quarter of an hour

    def _find_offset(self, quarter: int) -> int:
        local = datetime.fromtimestamp(quarter * 900, self._zone)
        return int(local.replace(tzinfo=UTC).timestamp()) - quarter * 900

    def _sleep(self, running: int) -> None:
        wait = (running + 1) * 60 - (self._now + self._offset()) + 1
        if 0 < wait < 65:
            self._now += wait

    def _find(self, minute: int, wildcards: bool, others: bool) -> None:
        day, of_day = divmod(minute, 24 * 60)
        for entry in self._of_day(day).get(of_day, ()):
            is_wanted = wildcards if entry.has_wildcard else others
            if is_wanted and entry.expression not in self._queue:
                self._queue.append(entry.expression)

    def _matching_day(self, day: int) -> dict[int, list[Entry]]:
        """Return the entries for each minute of a day."""
        found: dict[int, list[Entry]] = {}
        date = datetime.fromtimestamp(day * 24 * 3600, UTC)
        for entry in self._entries:
            if entry.matches_day(date):
                minutes, hours, *_ = entry.sets
                for hour in hours:
                    for minute in minutes:
                        found.setdefault(hour * 60 + minute, []).append(entry)
        return found

    def _start(self, pause: int = 0) -> Iterator[tuple[str, datetime]]:
        for expression in self._queue:
            yield expression, datetime.fromtimestamp(self._now, UTC)
        self._now += pause if self._queue else 0
        self._queue.clear()


def _numbers(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = (f"{low}-{high}" if span == "*" else span).partition("-")
        found.update(range(int(first), int(last or first) + 1, int(step or 1)))
    return found
