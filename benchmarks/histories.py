"""A year of made-up histories of tasks, with what happens in practice, and with true faults."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from random import Random
from zoneinfo import ZoneInfo

from jobhistory.execution.ids import new_execution_id
from jobhistory.execution.status import Status
from jobhistory.expectations.facts import Run
from jobhistory.expectations.schedule import Cron

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = datetime(2027, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

_HOLIDAYS = {(1, 1), (1, 6), (4, 3), (4, 6), (5, 1), (5, 14), (5, 25), (10, 3), (12, 25), (12, 26)}


@dataclass(frozen=True)
class Fault:
    """Something that a check should find."""

    kind: str
    begin: datetime
    end: datetime


@dataclass(frozen=True)
class History:
    """The executions of a task in a year, and its faults after the training."""

    kind: str
    timezone: str
    trained_until: datetime
    runs: tuple[Run, ...]
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Kind:
    """How a task behaves.

    Attributes:
        name: how the report calls it.
        cron, every, events: when it starts: on a schedule, after a pause, or irregularly.
        timezone: that of the schedule; `asked` is the one that the user names.
        delay: the median delay of a start, and its spread (sigma of the log-normal distribution).
        runtime: the median time it takes, and its spread.
        growth: how much longer it takes at the end of the year.
        month_end: how much longer it takes on the last day of a month.
        skips_holidays: whether it does not run on public holidays.
        deployments: whether each second working day, at a random time, no run starts for two to
            six minutes. "skip" leaves the starts out, "wait" delays them.
        backlogs: how many times a month starts wait, for 20 to 90 minutes.
        manual: how many times a month somebody starts it by hand.
        failing: the share of runs that fail without a cause; `retries` repeats those at once.
        weekend_hours: on weekends, it starts only in these hours.
        training: how many days a suggestion is based on.
    """

    name: str
    cron: str = ""
    every: timedelta | None = None
    events: Callable[[Random], Iterator[datetime]] | None = None
    timezone: str = "Europe/Berlin"
    asked: str = "Europe/Berlin"
    delay: tuple[float, float] = (1, 0.2)
    runtime: tuple[float, float] = (40, 0.3)
    growth: float = 1.3
    month_end: float = 1
    skips_holidays: bool = False
    deployments: str = ""
    backlogs: float = 0
    manual: float = 0
    failing: float = 0
    retries: bool = False
    weekend_hours: tuple[int, ...] = tuple(range(24))
    training: int = 30
    outage_in_training: timedelta = timedelta(0)


def _cycle(random: Random) -> Iterator[datetime]:
    """Yield events that are four times as frequent in working hours: 40 a day on average."""
    now = BEGIN
    while now < END:
        rate = 80 if 8 <= now.hour < 18 else 15
        now += random.expovariate(rate) * DAY
        yield now


def _bursts(random: Random) -> Iterator[datetime]:
    """Yield bursts of 20 to 100 events, about two a week."""
    now = BEGIN
    while now < END:
        now += random.expovariate(2 / 7) * DAY
        for number in range(random.randint(20, 100)):
            yield now + number * random.uniform(1, 5) * SECOND


def _stream(random: Random) -> Iterator[datetime]:
    """Yield about 300 events a day."""
    now = BEGIN
    while now < END:
        now += random.expovariate(300) * DAY
        yield now


WRONG_ZONE = "daily, in UTC, asked for Berlin"

KINDS = (
    Kind("nightly", "17 2 * * *", runtime=(2400, 0.15), growth=1.5),
    Kind("nightly, New York", "30 23 * * *", timezone="America/New_York", asked="America/New_York"),
    Kind("daily, from a queue", "0 6 * * *", delay=(20, 1), runtime=(300, 0.5)),
    Kind("daily, an outage in the training", "0 4 * * *", outage_in_training=2 * DAY),
    Kind(WRONG_ZONE, "30 4 * * *", timezone="UTC"),
    Kind(
        "daily, month ends take five times as long", "30 1 * * *", runtime=(600, 0.2), month_end=5
    ),
    Kind("daily, with runs by hand", "0 7 * * *", manual=3, runtime=(900, 0.3)),
    Kind("daily, 2 % fail", "0 5 * * *", failing=0.02),
    Kind("weekdays", "0 8 * * 1-5", delay=(5, 0.8)),
    Kind("weekdays, not on holidays", "0 8 * * 1-5", skips_holidays=True),
    Kind("twice a day", "30 6,18 * * *", delay=(5, 1)),
    Kind("weekly", "0 3 * * 0", training=90, runtime=(7200, 0.2)),
    Kind("monthly", "0 5 1 * *", training=245, runtime=(3600, 0.2)),
    Kind("hourly", "7 * * * *", deployments="wait"),
    Kind("hourly, with backlogs", "0 * * * *", delay=(10, 1), backlogs=1, runtime=(120, 0.6)),
    Kind("hourly, 3 % fail and are retried", "0 * * * *", failing=0.03, retries=True),
    Kind("hourly, less on weekends", "0 * * * *", weekend_hours=(0, 6, 12, 18)),
    Kind("every 15 minutes, with deployments", "*/15 * * * *", deployments="skip", delay=(3, 1)),
    Kind("every 15 minutes in office hours", "*/15 8-18 * * 1-5", deployments="wait"),
    Kind("every 5 minutes, with deployments", "*/5 * * * *", deployments="skip", runtime=(20, 0.4)),
    Kind("every minute, with deployments", "* * * * *", deployments="skip", runtime=(5, 0.5)),
    Kind("20 minutes from start to start", every=20 * MINUTE, deployments="wait", delay=(2, 1)),
    Kind("40 events a day, more by day", events=_cycle),
    Kind("300 events a day", events=_stream, runtime=(20, 0.8)),
    Kind("two bursts a week", events=_bursts),
)


def history(kind: Kind, seed: int) -> History:
    """Return a year of a task, the same for each seed."""
    random = Random(f"{kind.name} {seed}")  # noqa: S311
    trained_until = BEGIN + kind.training * DAY
    starts = [*_starts(kind, random, trained_until)]
    runs = sorted(_runs(kind, random, starts), key=lambda run: run.started_at)
    runs, faults = _with_faults(kind, random, runs, trained_until)
    return History(kind.name, kind.asked, trained_until, tuple(runs), tuple(faults))


def _starts(kind: Kind, random: Random, trained_until: datetime) -> Iterator[datetime]:
    blocked = sorted(_blocked(kind, random))
    out = BEGIN + 9 * DAY + random.random() * 5 * DAY
    for due in _due(kind, random):
        local = due.astimezone(ZoneInfo(kind.timezone))
        if kind.skips_holidays and (local.month, local.day) in _HOLIDAYS:
            continue
        if local.isoweekday() > 5 and local.hour not in kind.weekend_hours:
            continue
        if out <= due < out + kind.outage_in_training:
            continue
        start = due + min(random.lognormvariate(0, kind.delay[1]) * kind.delay[0], 7200) * SECOND
        number = bisect_right(blocked, (start, END)) - 1
        if number >= 0 and start < blocked[number][1]:
            if kind.deployments == "skip":
                continue
            start = blocked[number][1] + random.random() * 20 * SECOND
        yield start
    for _ in range(round(kind.manual * 12)):
        yield BEGIN + random.random() * (END - BEGIN)


def _due(kind: Kind, random: Random) -> Iterator[datetime]:
    if kind.events is not None:
        yield from kind.events(random)
    elif kind.every is not None:
        now = BEGIN
        while now < END:
            now += kind.every + random.lognormvariate(0, kind.delay[1]) * kind.delay[0] * SECOND
            yield now
    else:
        cron, from_ = Cron(kind.cron, kind.timezone), BEGIN
        while from_ < END:
            yield from cron.slots((), from_, from_ + DAY / 2 - timedelta(microseconds=1))
            from_ += DAY / 2


def _blocked(kind: Kind, random: Random) -> Iterator[tuple[datetime, datetime]]:
    """Yield the periods in which no run starts."""
    for number in range(365):
        day = BEGIN + number * DAY
        if kind.deployments and day.isoweekday() < 6 and random.random() < 0.5:
            begin = day + random.uniform(9, 17) * HOUR
            yield begin, begin + random.uniform(2, 6) * MINUTE
        if random.random() < kind.backlogs / 30:
            begin = day + random.random() * DAY
            yield begin, begin + random.uniform(20, 90) * MINUTE


def _runs(kind: Kind, random: Random, starts: list[datetime]) -> Iterator[Run]:
    for start in starts:
        median, spread = kind.runtime
        grown = 1 + (kind.growth - 1) * ((start - BEGIN) / (END - BEGIN))
        if (start + DAY).day == 1:
            grown *= kind.month_end
        took = random.lognormvariate(0, spread) * median * grown * SECOND
        fails = random.random() < kind.failing
        yield _run(start, took, fails=fails, will_retry=kind.retries)
        if fails and kind.retries:
            yield _run(start + took + 10 * SECOND, took, attempt=2)


def _run(
    start: datetime,
    took: timedelta,
    *,
    fails: bool = False,
    will_retry: bool = False,
    attempt: int = 1,
) -> Run:
    status = Status.FAILED if fails else Status.COMPLETED
    milliseconds = took // timedelta(milliseconds=1)
    retried = will_retry if fails else None
    return Run(new_execution_id(start), start, status, start + took, milliseconds, attempt, retried)


def _with_faults(
    kind: Kind, random: Random, runs: list[Run], trained_until: datetime
) -> tuple[list[Run], list[Fault]]:
    """Leave out runs, let some hang, and let some fail: twice each, if there are enough."""
    span = END - trained_until - 20 * DAY
    kinds = ["skipped", "hung", "failing"] * (2 if kind.training == 30 else 1)
    random.shuffle(kinds)
    faults = []
    for number, fault in enumerate(kinds):
        begin = trained_until + 5 * DAY + span * (number + random.random() / 2) / len(kinds)
        following = [run for run in runs if run.started_at >= begin]
        if following:
            runs, end = _FAULTS[fault](kind, runs, following)
            faults.append(Fault(fault, following[0].started_at, end))
    return runs, faults


def _skipped(kind: Kind, runs: list[Run], following: list[Run]) -> tuple[list[Run], datetime]:
    """Leave out the next run, or those of the next three hours; of events, those of 12 days."""
    begin = following[0].started_at
    end = begin + (12 * DAY if kind.events else 3 * HOUR)
    return [run for run in runs if not begin <= run.started_at < end], end + 2 * DAY


def _hung(kind: Kind, runs: list[Run], following: list[Run]) -> tuple[list[Run], datetime]:
    """Let the next run take a day and a half."""
    hung = following[0]
    length = 1.5 * DAY
    end = hung.started_at + length
    ended = replace(hung, completed_at=end, execution_time_ms=length // timedelta(milliseconds=1))
    return [ended if run is hung else run for run in runs], end + 2 * DAY


def _failing(kind: Kind, runs: list[Run], following: list[Run]) -> tuple[list[Run], datetime]:
    """Let the next three runs fail, and those of the next six hours."""
    begin = following[0].started_at
    failed = {run.id for run in following[: 3 if kind.training == 30 else 1]}
    failed |= {run.id for run in following if run.started_at < begin + 6 * HOUR}
    last = max(run.started_at for run in following if run.id in failed)
    changed = [
        replace(run, status=Status.FAILED, will_retry=False) if run.id in failed else run
        for run in runs
    ]
    return changed, last + 2 * DAY


_FAULTS = {"skipped": _skipped, "hung": _hung, "failing": _failing}
