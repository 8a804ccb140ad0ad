"""What to expect of a task, from its history."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from typing import Any

from jobhistory._runtime.durations import took
from jobhistory.execution.status import Status
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.facts import Run
from jobhistory.expectations.rhythm import Rhythm, rhythm_of
from jobhistory.expectations.robust import rounded_up, usual_most

MOST_STARTS = 5000
"""The number of executions that a suggestion is based on at most, the newest ones."""

_FEWEST_STARTS = 7
_FEWEST_FOR_AGE = 20
_FEWEST_FOR_OVERLAPS = 30
_OFTEN = timedelta(minutes=30)
_ENOUGH_IF_OFTEN = timedelta(days=14)
_SHORTEST_SILENCE = timedelta(minutes=10)
_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)
_MILLISECOND = timedelta(milliseconds=1)
_MONTH = timedelta(days=30)
_RUNTIME_FACTOR = 4
_AGE_FACTOR = 3
_FAILING_BY_CHANCE = 0.1
_SUCCESSES = (Status.COMPLETED, Status.PARTIAL_SUCCESS)


@dataclass(frozen=True)
class Suggestion:
    """What to expect of a task.

    Attributes:
        task_identifier: the task.
        expectation: what its history suggests; `None` if that is nothing.
        reason: the evidence, such as "29 of 30 days between 02:00 and 02:04 (UTC)", or why there
            is no expectation.
    """

    task_identifier: str
    expectation: Expectation | None
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        expectation = None if self.expectation is None else self.expectation.to_dict()
        return vars(self) | {"expectation": expectation}


def infer(
    task_identifier: str, runs: Sequence[Run], now: datetime, timezone: str = "UTC"
) -> Suggestion:
    """Return what the history of a task suggests to expect.

    Args:
        runs: its executions, newest first.
        timezone: a time zone to try besides UTC.
    """
    runs = sorted(runs[:MOST_STARTS], key=lambda run: run.started_at)
    starts = [run.started_at for run in runs if run.is_first_attempt]
    if len(starts) < _FEWEST_STARTS:
        number = "1 start" if len(starts) == 1 else f"{len(starts)} starts"
        reason = f"has {number} in history, at least {_FEWEST_STARTS} are needed"
        return Suggestion(task_identifier, None, reason)
    gaps = [(after, after - before) for before, after in pairwise(starts)]
    usual = usual_most(gaps)
    if now - starts[-1] > 3 * usual + _MINUTE:
        return Suggestion(task_identifier, None, f"has not started since {starts[-1]:%Y-%m-%d}")
    for arguments, reason in _schedules(runs, starts, gaps, timezone):
        found = Expectation(task_identifier, **arguments, **_limits(runs, starts))
        return Suggestion(task_identifier, found, reason)
    return Suggestion(task_identifier, None, "starts at irregular times")


Found = tuple[dict[str, Any], str]


def _schedules(
    runs: Sequence[Run],
    starts: Sequence[datetime],
    gaps: Sequence[tuple[datetime, timedelta]],
    timezone: str,
) -> Iterator[Found]:
    """Yield what tells when the task should run, the best first, each with the evidence."""
    rhythm = rhythm_of(starts, (timezone, "UTC"))
    if rhythm is not None and _is_worth_it(rhythm, starts):
        cron = {"cron": rhythm.cron.expression, "timezone": rhythm.cron.timezone}
        yield cron | {"grace": rhythm.grace}, rhythm.in_words()
    yield from _interval(gaps, has_rhythm=rhythm is not None)
    yield from _success_age(runs, starts)


def _is_worth_it(rhythm: Rhythm, starts: Sequence[datetime]) -> bool:
    """Return whether each start matters, and most of them are on the schedule."""
    if rhythm.gap <= _OFTEN and (rhythm.missed or starts[-1] - starts[0] < _ENOUGH_IF_OFTEN):
        return False
    return len(rhythm.delays) >= 0.6 * len(starts)


def _interval(gaps: Sequence[tuple[datetime, timedelta]], *, has_rhythm: bool) -> Iterator[Found]:
    """Yield the time between two starts, if it is about always the same."""
    lengths = sorted(length for _, length in gaps)
    count = len(lengths)
    low, middle, high = (lengths[int(share * (count - 1))] for share in (0.05, 0.5, 0.95))
    longest = usual_most(gaps)
    if not has_rhythm and (high - low > middle / 2 or longest > 10 * middle):
        return
    if (middle <= _OFTEN and longest > 1.5 * middle) or middle < _SHORTEST_SILENCE:
        every = rounded_up(max(1.5 * longest, _SHORTEST_SILENCE))
    elif longest <= 2 * middle:
        every = -(-middle // _MINUTE) * _MINUTE
    else:
        every = rounded_up(longest)
    grace = rounded_up(max(3 * (longest - every), every / 2))
    reason = f"{took(middle // _MILLISECOND)} from start to start, usually at most {_took(longest)}"
    yield {"every": every, "grace": grace}, reason


def _success_age(runs: Sequence[Run], starts: Sequence[datetime]) -> Iterator[Found]:
    """Yield the longest time without a success, if there are enough of them."""
    ends = sorted(run.completed_at for run in runs if run.status in _SUCCESSES and run.completed_at)
    if len(ends) < _FEWEST_FOR_AGE:
        return
    longest = max(after - before for before, after in pairwise(ends))
    age = rounded_up(max(_AGE_FACTOR * longest, _SHORTEST_SILENCE))
    if ends[-1] - ends[0] >= 2 * age:
        reason = f"irregular, at most {_took(longest)} between two successes"
        yield {"max_success_age": age}, reason


def _limits(runs: Sequence[Run], starts: Sequence[datetime]) -> dict[str, Any]:
    """Return how long the task may take, and how often it may fail and run at the same time."""
    limits: dict[str, Any] = {"failures_in_a_row": _failures_in_a_row(runs, starts)}
    times = [
        (run.started_at, (run.execution_time_ms or 0) * _MILLISECOND)
        for run in runs
        if run.status in _SUCCESSES
    ]
    if len(times) < _FEWEST_STARTS:
        return limits
    longest = usual_most(times)
    limits["max_runtime"] = rounded_up(max(_RUNTIME_FACTOR * longest, _MINUTE))
    usual_gap = sorted(after - before for before, after in pairwise(starts))[len(starts) // 2]
    if len(runs) >= _FEWEST_FOR_OVERLAPS and longest > usual_gap / 10 and not _have_overlaps(runs):
        limits["max_running"] = 1
    return limits


def _have_overlaps(runs: Sequence[Run]) -> bool:
    return any(
        before.completed_at is None or before.completed_at > after.started_at
        for before, after in pairwise(runs)
    )


def _failures_in_a_row(runs: Sequence[Run], starts: Sequence[datetime]) -> int:
    """Return how many failures in a row come about by chance less than once in ten months.

    The longest streak is no chance if it is more than twice as long as all others.
    """
    final = [run for run in runs if run.is_final]
    streaks = sorted(
        (
            len([*group])
            for failed, group in groupby(final, lambda run: run.is_final_failure)
            if failed
        ),
        reverse=True,
    )
    if not streaks:
        return 1
    if streaks[0] > 2 * (streaks[1] if len(streaks) > 1 else 1):
        del streaks[0]
    if not streaks:
        return 1
    share = min(0.5, sum(streaks) / len(final))
    a_month = len(final) * (_MONTH / max(starts[-1] - starts[0], _MONTH / 30))
    number = streaks[0] + 1
    while a_month * share**number > _FAILING_BY_CHANCE:
        number += 1
    return number


def _took(duration: timedelta) -> str:
    return took(duration // _MILLISECOND)
