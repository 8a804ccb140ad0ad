"""How often suggested expectations raise false alarms in a year, and which faults they find.

python -m benchmarks --inference
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from random import Random

from benchmarks.histories import END, KINDS, WRONG_ZONE, History, Kind, history
from benchmarks.measuring import Table
from jobhistory.execution.status import Status
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.facts import Run
from jobhistory.expectations.inference import Suggestion, infer
from tests.checkers import Checker

TICK = timedelta(minutes=5)
MICROSECOND = timedelta(microseconds=1)
MONTH = timedelta(days=30)
FINDS = {
    "skipped": ("missed", "silent", "never_ran"),
    "hung": ("too_long", "overlapping"),
    "failing": ("failing", "silent"),
}


@dataclass(frozen=True)
class Replayed:
    """What a year of checks found.

    Attributes:
        kind: the kind of task.
        suggestion: what the training suggested.
        months: the length of the replay.
        false_alarms: incidents for which there was no fault, by problem.
        found, missed: faults, by kind.
    """

    kind: str
    suggestion: Suggestion
    months: float
    false_alarms: Counter[str]
    found: Counter[str]
    missed: Counter[str]


def measure(seeds: int, kinds: Iterable[Kind] = KINDS) -> list[Replayed]:
    """Train on the beginning of each history and replay the rest."""
    return [replay(history(kind, seed)) for kind in kinds for seed in range(seeds)]


def replay(history: History) -> Replayed:
    """Check the rest of a year every five minutes by what its beginning suggests."""
    begin = history.trained_until
    known = [run for run in history.runs if run.started_at < begin]
    suggestion = infer("task", known[::-1], begin, history.timezone)
    incidents = (
        []
        if suggestion.expectation is None
        else [*_incidents(suggestion.expectation, history, begin)]
    )
    false_alarms = Counter(
        problem
        for problem, opened in incidents
        if not any(fault.begin <= opened <= fault.end for fault in history.faults)
    )
    found, missed = Counter[str](), Counter[str]()
    for fault in history.faults:
        is_found = any(
            problem in FINDS[fault.kind] and fault.begin <= opened <= fault.end
            for problem, opened in incidents
        )
        (found if is_found else missed)[fault.kind] += 1
    months = (END - begin) / MONTH
    return Replayed(history.kind, suggestion, months, false_alarms, found, missed)


def _incidents(
    expectation: Expectation, history: History, begin: datetime
) -> Iterator[tuple[str, datetime]]:
    """Yield the problem and the beginning of each incident of the checks after a time."""
    checker = Checker(expectation, history.runs, begin)
    random = Random(0)  # noqa: S311
    some = {begin + random.randrange((END - begin) // TICK) * TICK for _ in range(20)}
    times = {_next_check(begin, moment) for moment in _moments(expectation, history.runs, begin)}
    open_: set[str] = set()
    for now in sorted(times | some):
        if now > END:
            break
        checker.checked_at = now - TICK
        verdicts = checker.check(now).verdicts
        assert now in times or {each.problem.value for each in verdicts} <= open_
        for verdict in verdicts:
            if verdict.problem.value not in open_:
                yield verdict.problem.value, now
        open_ = {each.problem.value for each in verdicts if not each.is_over}


def _completed_at(run: Run) -> datetime:
    assert run.completed_at is not None
    return run.completed_at


def _next_check(begin: datetime, moment: datetime) -> datetime:
    return begin + max(0, (moment - begin) // TICK + 1) * TICK


def _moments(
    expectation: Expectation, runs: tuple[Run, ...], begin: datetime
) -> Iterator[datetime]:
    """Yield when verdicts may change. Checks at other times find what the one before found."""
    later = [run for run in runs if run.started_at >= begin - timedelta(days=2)]
    starts = [run.started_at for run in later if run.is_first_attempt]
    yield from _moments_of_slots(expectation, starts, begin)
    longest = later[0]
    for run in later[1:]:
        if expectation.max_running and longest.completed_at > run.started_at:
            yield from (run.started_at, run.completed_at, longest.completed_at)
        longest = max(longest, run, key=_completed_at)
    limit = expectation.max_runtime
    for run, following in pairwise([*later, later[-1]]):
        is_long = limit is not None and run.completed_at - run.started_at > limit
        if is_long:
            yield run.started_at + limit
        if is_long or run.status is Status.FAILED:
            yield from (run.completed_at, following.completed_at)
    age = expectation.max_success_age
    ends = sorted(run.completed_at for run in later if run.status is Status.COMPLETED)
    for before, after in pairwise([*ends, END]):
        if age is not None and after - before > age:
            yield from (before + age, after)


def _moments_of_slots(
    expectation: Expectation, starts: list[datetime], begin: datetime
) -> Iterator[datetime]:
    grace, every = expectation.grace, expectation.every
    if every is not None:
        for before, after in pairwise([*starts, END]):
            if after - before > every + grace:
                missed = (after - before - grace) // every
                yield from (before + number * every + grace for number in range(1, missed + 1))
                yield after
    if expectation.cron is None:
        return
    met: set[datetime] = set()
    early = timedelta(seconds=30)
    for slot in _slots(expectation, begin):
        number = bisect_right(starts, slot - early - MICROSECOND)
        if number < len(starts) and starts[number] <= slot + grace:
            met.add(starts[number])
            continue
        yield slot + grace
        if number < len(starts):
            yield starts[number]
    for number, start in enumerate(starts):
        if start not in met:
            yield start
            yield from starts[number + 1 : number + 2]


def _slots(expectation: Expectation, from_: datetime) -> Iterator[datetime]:
    assert expectation.schedule is not None
    while from_ < END:
        yield from expectation.schedule.slots((), from_, from_ + TICK * 150 - MICROSECOND)
        from_ += TICK * 150


PROBLEMS = ("missed", "late", "too_long", "overlapping", "failing", "silent")


def report(replayed: list[Replayed]) -> Table:
    """Return the false alarms for each task and month, and the share of faults found."""
    of_kind: defaultdict[str, list[Replayed]] = defaultdict(list)
    for each in replayed:
        of_kind[each.kind].append(each)
    right = [each for each in replayed if each.kind != WRONG_ZONE]
    rows = [(kind, *_cells(some)) for kind, some in of_kind.items()]
    rows.append(("**all, asked for the right time zone**", *_cells(right)))
    rows.append(("**all**", *_cells(replayed)))
    alarms = [problem.replace("_", " ") for problem in PROBLEMS]
    return Table(
        "Suggested expectations in a year of synthetic histories",
        f"{len(replayed)} tasks. False alarms for each task and month, by problem; then the faults "
        "that were found.",
        ["task", "suggestions", *alarms, "all", *FINDS],
        rows,
    )


def _cells(replayed: list[Replayed]) -> list[str]:
    months = sum(each.months for each in replayed)
    alarms = sum((each.false_alarms for each in replayed), Counter[str]())
    found = sum((each.found for each in replayed), Counter[str]())
    missed = sum((each.missed for each in replayed), Counter[str]())
    made = sum(each.suggestion.expectation is not None for each in replayed)
    return [
        f"{made} of {len(replayed)}",
        *(_rate(alarms[problem], months) for problem in PROBLEMS),
        _rate(alarms.total(), months),
        *(f"{found[kind]} of {found[kind] + missed[kind]}" for kind in FINDS),
    ]


def _rate(number: int, months: float) -> str:
    return f"{number / months:.2f}" if number else "0"
