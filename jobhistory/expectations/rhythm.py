"""The schedule that explains the starts of a task best, if there is one."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise

from jobhistory._runtime.durations import took
from jobhistory.expectations.local_time import offset_at
from jobhistory.expectations.robust import outages_among, rounded_up, shortest_arc, usual_most
from jobhistory.expectations.schedule import MOST_SLOTS, Cron

_MILLISECOND = timedelta(milliseconds=1)
_MINUTE = timedelta(minutes=1)
_DAY = timedelta(days=1)
_EARLY = timedelta(seconds=30)
_LONGEST_GAP = timedelta(days=31)
_DAY_MINUTES = 24 * 60
_PERIODS = (1440, 720, 480, 360, 240, 180, 120, 60, 30, 20, 15, 12, 10, 6, 5, 4, 3, 2, 1)
_USUAL_SHARE = 0.8
_FEWEST_SLOTS = 7
_LEAST_GRACE = timedelta(minutes=5)
_WEEKDAYS = ("Sundays", "Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays")


@dataclass(frozen=True)
class Rhythm:
    """How well a cron expression explains starts.

    Attributes:
        cron: the schedule.
        slots: the slots between the first start and the last.
        delays: pairs of a slot and how much later its start was.
        missed: the slots without a start.
    """

    cron: Cron
    slots: tuple[datetime, ...]
    delays: tuple[tuple[datetime, timedelta], ...]
    missed: tuple[datetime, ...]

    @property
    def gap(self) -> timedelta:
        """The shortest time between two slots, apart from a change of the clocks."""
        gaps = sorted(after - before for before, after in pairwise(self.slots))
        return gaps[len(gaps) // 20]

    @property
    def latest(self) -> timedelta:
        """The largest delay that is usual."""
        return usual_most(self.delays)

    @property
    def days_with_misses(self) -> int:
        """The number of times that starts were missing, at most one a day."""
        missed = set(self.missed)
        before = (None, *self.slots)
        return len(
            {
                now.date()
                for last, now in zip(before, self.slots, strict=False)
                if now in missed and last not in missed
            }
        )

    @property
    def grace(self) -> timedelta:
        """Three times the largest usual delay, at least 1/50 of the gap, at most half of it."""
        least = max(_LEAST_GRACE, self.gap / 50)
        return rounded_up(max(min(max(3 * self.latest, least), self.gap / 2), _MINUTE))

    @property
    def merit(self) -> int:
        """The number of starts that it explains, less three for each that it does not have."""
        return len(self.delays) - 3 * len(self.missed)

    @property
    def is_kept(self) -> bool:
        """Whether the task can be expected to keep it."""
        days = len({slot.date() for slot in self.slots})
        return (
            len(self.slots) >= _FEWEST_SLOTS
            and self.days_with_misses <= max(1, outages_among(days) // 2)
            and len(self.missed) <= len(self.slots) / 4
            and self.latest <= self.gap / 2
        )

    def in_words(self) -> str:
        """The evidence, such as "29 of 30 days between 02:00 and 02:04"."""
        met = f"{len(self.delays)} of {len(self.slots)} {self._unit()}"
        minutes, hours, *_ = self.cron.expression.split()
        if not (minutes + hours).isdigit():
            return f"{met}, usually at most {took(self.latest // _MILLISECOND)} late"
        begin = self.slots[-1] + offset_at(self.cron.timezone, self.slots[-1])
        times = [f"{begin:%H:%M}", f"{begin + self.latest:%H:%M}"]
        when = f"at {times[0]}" if times[0] == times[1] else f"between {' and '.join(times)}"
        return f"{met} {when} ({self._zone()})"

    def _zone(self) -> str:
        """The time zone, and whether others would explain the starts as well."""
        timezone = self.cron.timezone
        offsets = {offset_at(timezone, slot) for slot in self.slots}
        changed = len(offsets) > 1 or timezone == "UTC"
        return timezone if changed else f"{timezone}, whose clocks did not change meanwhile"

    def _unit(self) -> str:
        minutes, hours, month_days, _, weekdays = self.cron.expression.split()
        if not (minutes + hours).isdigit():
            return "starts"
        if month_days != "*":
            return "days of the month" if "," in month_days else "months"
        if weekdays.isdigit():
            return _WEEKDAYS[int(weekdays)]
        return {"*": "days", "1-5": "weekdays"}.get(weekdays, "days of the week")


def rhythm_of(starts: Sequence[datetime], timezones: Iterable[str]) -> Rhythm | None:
    """Return the cron schedule that explains starts best; `None` if none does.

    Args:
        starts: in UTC, oldest first.
        timezones: the time zones to try. Among equals, the first one is chosen.
    """
    found = [
        rhythm
        for timezone in dict.fromkeys(timezones)
        for expression in _expressions(starts, timezone)
        if (rhythm := _explain(Cron(expression, timezone), starts)).is_kept
    ]
    # Small differences come from where history begins and ends.
    return max(
        found,
        key=lambda each: (round(each.merit / len(starts), 1), -(each.latest // _MINUTE)),
        default=None,
    )


def _explain(cron: Cron, starts: Sequence[datetime]) -> Rhythm:
    first = cron.slots((), starts[0] - _LONGEST_GAP, starts[0] + _EARLY)[-1:]
    slots = _all_slots(cron, first[0] if first else starts[0], starts[-1])
    delays, missed = [], []
    for slot, following in pairwise([*slots, starts[-1] + _DAY]):
        number = bisect_left(starts, slot - _EARLY)
        if number < len(starts) and starts[number] < max(following - _EARLY, slot + _EARLY):
            delays.append((slot, max(starts[number] - slot, timedelta(0))))
        else:
            missed.append(slot)
    return Rhythm(cron, tuple(slots), tuple(delays), tuple(missed))


def _all_slots(cron: Cron, from_: datetime, to: datetime) -> list[datetime]:
    slots: list[datetime] = []
    while from_ <= to:
        end = min(to, from_ + (MOST_SLOTS - 1) * _MINUTE)  # one slot a minute at most
        slots += cron.slots((), from_, end)
        from_ = end + timedelta(microseconds=1)
    return slots


def _expressions(starts: Sequence[datetime], timezone: str) -> Iterator[str]:
    """Yield cron expressions that may explain starts."""
    local = [start.replace(tzinfo=None) + offset_at(timezone, start) for start in starts]
    minutes = [(each - datetime.min) / _MINUTE for each in local]
    for period in _PERIODS:
        phase = _phase(minutes, period)
        if phase is None:
            continue
        slots = [int((each - phase) // period) * period + phase for each in minutes]
        if len(set(slots)) < 0.8 * len(slots) and period != 1:
            continue  # several starts in one period
        for days, fields in _day_fields(slots):
            for times in _time_fields(slots, days, period):
                yield f"{times} {fields}"
        return


def _phase(minutes: Sequence[float], period: int) -> int | None:
    """Return the minute of a period before which nearly no start is, if they are close together."""
    folded = sorted(each % period for each in minutes)
    start, length = shortest_arc(folded, period, 0.85)
    if length > period / (4 if period > 5 else 2):
        return None
    earlier = [each - period for each in folded if each > start] + [e for e in folded if e < start]
    near = [each for each in earlier if each > start - max(length, 1)]
    return int((min(near, default=start) + 1 / 12) // 1) % period


def _day_fields(slots: Sequence[int]) -> Iterator[tuple[frozenset[date], str]]:
    """Yield days that the starts may be on, with the last three fields of the cron expression."""
    on = Counter(map(_date, set(slots)))
    first, last = min(on), max(on)
    days = [first + number * _DAY for number in range((last - first).days + 1)]
    yield frozenset(days), "* * *"
    for key, fewest, field in ((_weekday, 2, "* * {}"), (_month_day, 3, "{} * *")):
        usual = _usual(Counter(map(key, days)), on, key, fewest)
        if usual:
            yield frozenset(day for day in days if key(day) in usual), field.format(_numbers(usual))
    if not any(_weekday(day) in (0, 6) for day in on) and last - first >= 3 * _DAY:
        yield frozenset(day for day in days if _weekday(day) not in (0, 6)), "* * 1-5"
    if all((day + _DAY).day == 1 for day in on):
        yield frozenset(day for day in days if (day + _DAY).day == 1), "L * *"


def _usual(
    total: Counter[int], on: Counter[date], key: Callable[[date], int], fewest: int
) -> list[int]:
    """Return the weekdays or days of the month with at least half the starts of the busiest one.

    Return none if these are all, or if some have not come often enough to tell.
    """
    starts: Counter[int] = Counter()
    for day, count in on.items():
        starts[key(day)] += count
    rates = {each: starts[each] / total[each] for each in total}
    usual = [each for each, rate in rates.items() if rate >= max(rates.values()) / 2]
    is_known = min(total[each] for each in usual) >= fewest
    return usual if is_known and len(usual) < len(total) else []


def _time_fields(slots: Sequence[int], days: frozenset[date], period: int) -> Iterator[str]:
    """Yield the first two fields of cron expressions for the usual times on some days."""
    seen = Counter(slot % _DAY_MINUTES for slot in set(slots) if _date(slot) in days)
    usual = {time for time, count in seen.items() if count >= _USUAL_SHARE * len(days)}
    if not usual and len(days) <= 2:
        usual = set(seen)
    minutes = sorted({time % 60 for time in usual})
    hours = [
        hour
        for hour in sorted({time // 60 for time in usual})
        if sum(hour * 60 + minute in usual for minute in minutes) >= _USUAL_SHARE * len(minutes)
    ]
    if minutes and hours:
        yield f"{_field(minutes, 60)} {_field(hours, 24)}"


def _field(numbers: Sequence[int], circle: int) -> str:
    """Return a field of a cron expression, as people would write it."""
    if len(numbers) == circle:
        return "*"
    step = numbers[1] - numbers[0] if len(numbers) > 1 else circle
    if numbers[0] == 0 and [*range(0, circle, step)] == [*numbers] and len(numbers) > 2:
        return f"*/{step}"
    return _numbers(numbers)


def _numbers(numbers: Iterable[int]) -> str:
    """Return numbers as a list with ranges: "1-5", "6,18"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs
    )


def _date(slot: int) -> date:
    return (datetime.min + slot * _MINUTE).date()


def _weekday(day: date) -> int:
    return day.isoweekday() % 7


def _month_day(day: date) -> int:
    return day.day
