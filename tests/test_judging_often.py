"""What a checker reports, whenever it looks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import example, given
from hypothesis import strategies as st

from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.judging import judge
from jobhistory.expectations.matching import match
from tests.checkers import Checker, completed

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)

crons = st.sampled_from(["*/10 * * * *", "0 * * * *", "7,40 * * * *", "0 */6 * * *", "5 0,1 * * *"])
delays = st.lists(st.integers(-30, 9 * 60), min_size=12, max_size=12)
moments = st.lists(st.integers(0, 100_000), min_size=1, max_size=30)
grace = timedelta(minutes=9)


def seconds(number):
    return number * SECOND


def history(cron, late):
    """A checker, and the slots and the starts of a task that is never later than its grace."""
    expectation = Expectation("task", cron=cron, grace=grace)
    assert expectation.schedule is not None
    slots = expectation.schedule.slots((), BEGIN, BEGIN + timedelta(days=9))[1:13]
    return (
        expectation,
        slots,
        [slot + seconds(each) for slot, each in zip(slots, late, strict=True)],
    )


def checks_between(first, last, moments):
    """Moments that are spread over a period, and some a moment after one another."""
    span = (last - first) // SECOND
    return sorted(first + seconds(moment % span) for moment in moments)


def check_all(expectation, starts, declared_at, checks):
    """Return the slots of each check that are said to be missed."""
    runs = [completed(start, start + SECOND) for start in starts]
    checker = Checker(expectation, runs, declared_at)
    found = []
    for now in checks:
        verdicts = checker.check(now).verdicts
        assert {verdict.problem for verdict in verdicts} <= {"missed"}
        found.append([slot for verdict in verdicts for slot in verdict.slots])
    return found


@given(crons, delays, moments)
def test_a_task_that_runs_in_time_never_gets_a_verdict(cron, late, moments):
    expectation, slots, starts = history(cron, late)
    checks = checks_between(slots[0] - MINUTE, starts[-1], moments)
    assert not any(check_all(expectation, starts, slots[0] - MINUTE, checks))


@given(crons, delays, moments, st.sets(st.integers(1, 11)), st.booleans())
@example("0 * * * *", [0] * 12, [], {5}, True)
def test_each_missed_slot_is_reported_once(cron, late, moments, missed, is_exact):
    expectation, slots, starts = history(cron, late)
    kept = [start for number, start in enumerate(starts) if number not in missed]
    checks = checks_between(slots[0] + grace, slots[-1] + grace, moments or [1])
    if is_exact:
        checks = sorted([*checks, *(slot + grace for slot in slots)])
    checks.append(slots[-1] + grace + MINUTE / 2)
    found = check_all(expectation, kept, slots[0] - MINUTE, checks)
    reported = [
        slot
        for before, now in zip([[], *found], found, strict=False)
        for slot in now
        if slot not in before
    ]
    assert sorted(reported) == [slots[number] for number in sorted(missed)]


@given(st.lists(st.integers(0, 55), min_size=12, max_size=12), moments)
def test_each_late_start_is_missed_until_it_comes_and_then_reported_once(late, moments):
    expectation, slots, _ = history("0 * * * *", [0] * 12)
    starts = [slot + number * MINUTE + SECOND for slot, number in zip(slots, late, strict=True)]
    runs = [completed(start, start + SECOND) for start in starts]
    checker = Checker(expectation, runs, slots[0] - MINUTE)
    reported, before = [], set()
    for now in checks_between(slots[0], starts[-1] + MINUTE, [*moments, -1]):
        checked = checker.check(now)
        found = {each.problem.value: each for each in checked.verdicts}
        now_late = set(found["late"].slots if "late" in found else ())
        reported += now_late - before
        before = now_late
        due = [
            slot for slot, start in zip(slots, starts, strict=True) if slot + grace < now < start
        ]
        missing = [
            each for name in ("missed", "never_ran") if name in found for each in found[name].slots
        ]
        assert missing == due
    expected = [
        slot for slot, number in zip(slots, late, strict=True) if number * MINUTE + SECOND > grace
    ]
    assert sorted(reported) == expected


@given(delays, moments, st.integers(10, 300))
def test_an_interval_that_is_kept_never_gets_a_verdict(late, moments, length):
    every = length * MINUTE
    expectation = Expectation("task", every=every, grace=grace)
    starts = [BEGIN]
    for each in late:
        starts.append(starts[-1] + every + seconds(each))
    checks = checks_between(BEGIN - MINUTE, starts[-1], moments)
    assert not any(check_all(expectation, starts, BEGIN - MINUTE, checks))


def test_a_start_is_not_taken_for_an_early_one_if_it_meets_the_slot_before():
    slots = [BEGIN + number * MINUTE for number in range(6)]
    late = [slot + seconds(10 if number < 3 else 40) for number, slot in enumerate(slots)]
    assert match(slots, late[:5], 5 * MINUTE).missed(timedelta(0), slots[5]) == ()


def test_an_early_start_after_a_missed_one_is_not_called_late():
    daily = Expectation("task", cron="17 2 * * *")
    due = BEGIN + timedelta(hours=2, minutes=17)
    day = timedelta(days=1)
    early = due + 2 * day - 10 * SECOND
    runs = [completed(due, due + SECOND), completed(early, early + SECOND)]
    checker = Checker(daily, runs, BEGIN)
    checker.checked_at = due + day + timedelta(hours=1)
    now = early + 5 * SECOND
    assert judge(daily, checker.facts(now), now).verdicts == ()
