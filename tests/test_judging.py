"""Verdicts on expectations, from facts alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from jobhistory import InvalidInput
from jobhistory.execution.ids import new_execution_id
from jobhistory.execution.status import Status
from jobhistory.expectations.expectation import Expectation
from jobhistory.expectations.facts import Facts, Run
from jobhistory.expectations.judging import judge

DAY = datetime(2026, 11, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def at(days: float = 0, hours: float = 0, minutes: float = 0) -> datetime:
    return DAY + timedelta(days=days, hours=hours, minutes=minutes)


def run(started_at, took=MINUTE, status=Status.COMPLETED, will_retry=None, attempt=1):
    ended = None if status is Status.STARTED else started_at + took
    milliseconds = None if ended is None else took // timedelta(milliseconds=1)
    id_ = new_execution_id(started_at)
    return Run(id_, started_at, status, ended, milliseconds, attempt, will_retry)


def facts(*runs, checked_at=None, declared_at=DAY, **named):
    runs = tuple(sorted(runs, key=lambda each: each.started_at, reverse=True))
    running = tuple(each for each in runs if each.status is Status.STARTED)
    done = [each.completed_at for each in runs if each.status is Status.COMPLETED]
    known = {
        "running": running,
        "last_start": runs[0].started_at if runs else None,
        "last_success": max(done, default=None),
    }
    return Facts(declared_at, checked_at, runs, **(known | named))


def problems(expectation, facts, now):
    return [(each.problem.value, each.is_over) for each in judge(expectation, facts, now).verdicts]


NIGHTLY = Expectation("nightly", cron="17 2 * * *", grace="15m")
NIGHT = timedelta(hours=2, minutes=17)


def test_a_start_within_its_grace_period_is_fine():
    known = facts(run(at() + NIGHT + 14 * MINUTE))
    checked = judge(NIGHTLY, known, at(hours=12))
    assert checked.verdicts == ()
    assert checked.next_slot == at(1) + NIGHT
    assert checked.deadline == at(1) + NIGHT + 15 * MINUTE


def test_a_slot_is_missed_when_its_grace_period_is_over():
    known = facts(run(at() + NIGHT), checked_at=at(1))
    due = at(1) + NIGHT
    assert problems(NIGHTLY, known, due + 15 * MINUTE) == []
    checked = judge(NIGHTLY, known, due + 16 * MINUTE)
    assert [each.problem.value for each in checked.verdicts] == ["missed"]
    assert checked.verdicts[0].slots == (due,)
    assert "2026-11-02 02:17 UTC" in checked.verdicts[0].summary
    assert checked.deadline == due + 15 * MINUTE < due + 16 * MINUTE


def test_a_late_start_is_late_and_no_longer_missed():
    due = at(1) + NIGHT
    known = facts(run(at() + NIGHT), run(due + 40 * MINUTE), checked_at=due + 20 * MINUTE)
    assert problems(NIGHTLY, known, due + 41 * MINUTE) == [("late", False)]


def test_a_slot_that_was_missed_and_followed_by_a_good_one_is_reported_once():
    known = facts(run(at() + NIGHT), run(at(2) + NIGHT), checked_at=at(1))
    checked = judge(NIGHTLY, known, at(2, hours=3))
    assert [(each.problem.value, each.is_over) for each in checked.verdicts] == [("missed", True)]
    assert checked.severity == "ok"
    later = facts(run(at() + NIGHT), run(at(2) + NIGHT), checked_at=at(2, hours=3))
    assert problems(NIGHTLY, later, at(2, hours=4)) == []


def test_what_was_due_before_the_declaration_is_not_missed():
    known = facts(run(at(-9)), declared_at=at(hours=12))
    assert problems(NIGHTLY, known, at(hours=13)) == []


def test_a_task_without_any_start_never_ran():
    due = at() + NIGHT
    assert problems(NIGHTLY, facts(), due) == []
    assert problems(NIGHTLY, facts(), due + 16 * MINUTE) == [("never_ran", False)]


def test_a_retry_does_not_meet_the_next_slot():
    hourly = Expectation("hourly", cron="0 * * * *", failures_in_a_row=None)
    failed = run(at(hours=1), status=Status.FAILED, will_retry=True)
    again = run(at(hours=2, minutes=1), attempt=2)
    found = problems(hourly, facts(failed, again, checked_at=at(hours=1)), at(hours=2, minutes=6))
    assert found == [("missed", False)]


def test_starts_after_a_queue_was_stuck_meet_one_slot_each():
    often = Expectation("often", cron="* * * * *", grace="15m")
    starts = [run(at(minutes=10) + number * timedelta(seconds=1)) for number in range(10)]
    known = facts(run(at()), *starts, checked_at=at(minutes=5))
    assert problems(often, known, at(minutes=10, hours=0.01)) == []


def test_an_interval_counts_from_the_last_start():
    hourly = Expectation("hourly", every="1h", grace="5m")
    known = facts(run(at(hours=1)), checked_at=at(hours=1))
    assert problems(hourly, known, at(hours=2, minutes=5)) == []
    checked = judge(hourly, known, at(hours=4, minutes=6))
    assert checked.verdicts[0].slots == (at(hours=2), at(hours=3), at(hours=4))
    assert checked.deadline == at(hours=2, minutes=5)


def test_statistics_tell_the_last_start_when_its_row_is_gone():
    known = facts(last_start=at() + NIGHT, declared_at=at(-9))
    assert problems(NIGHTLY, known, at(hours=12)) == []


def test_executions_without_rows_meet_the_slots_of_their_hour():
    often = Expectation("often", cron="*/10 * * * *")
    last = at(hours=1, minutes=50)
    known = facts(last_start=last, counted=(at(minutes=50), last))
    assert problems(often, known, at(hours=1, minutes=55)) == []
    assert problems(often, known, at(hours=2, minutes=6)) == [("missed", False)]


@pytest.mark.parametrize(
    ("status", "now", "expected"),
    [
        (Status.STARTED, at(hours=1), []),
        (Status.STARTED, at(hours=1, minutes=1), [("too_long", False)]),
        (Status.COMPLETED, at(hours=3), [("too_long", False)]),
    ],
)
def test_too_long_whether_it_runs_or_has_ended(status, now, expected):
    limited = Expectation("import", max_runtime="1h")
    known = facts(run(at(), took=timedelta(hours=2), status=status))
    assert problems(limited, known, now) == expected


def test_too_short():
    limited = Expectation("import", min_runtime="10s")
    short = run(at(), took=timedelta(seconds=1))
    assert problems(limited, facts(short), at(hours=1)) == [("too_short", False)]
    known = facts(short, run(at(hours=1)), checked_at=at(hours=0.5))
    assert problems(limited, known, at(hours=2)) == []


def test_overlapping_now_and_since_the_last_check():
    single = Expectation("import", max_running=1)
    both = [run(at(minutes=number), status=Status.STARTED) for number in (0, 1)]
    assert problems(single, facts(*both), at(minutes=2)) == [("overlapping", False)]
    ended = [run(at(minutes=number), took=5 * MINUTE) for number in (0, 1)]
    known = facts(*ended, checked_at=at(minutes=1))
    assert problems(single, known, at(hours=1)) == [("overlapping", True)]
    assert problems(single, facts(*ended, checked_at=at(minutes=9)), at(hours=1)) == []
    apart = [run(at(minutes=number), took=5 * MINUTE) for number in (0, 5)]
    assert problems(single, facts(*apart), at(hours=1)) == []


def test_failures_in_a_row():
    twice = Expectation("import", failures_in_a_row=2)
    first = run(at(), status=Status.FAILED)
    retried = run(at(hours=1), status=Status.FAILED, will_retry=True)
    second = run(at(hours=2), status=Status.FAILED)
    good = run(at(hours=3))
    assert problems(twice, facts(first, retried), at(hours=4)) == []
    assert problems(twice, facts(first, retried, second), at(hours=4)) == [("failing", False)]
    known = facts(first, second, good, checked_at=at(hours=1))
    assert problems(twice, known, at(hours=4)) == [("failing", True)]
    assert problems(twice, facts(first, second, good, checked_at=at(3.9)), at(4)) == []


def test_the_failure_rate_of_the_last_hundred():
    rarely = Expectation("import", failures_in_a_row=None, max_failure_rate=0.1)
    good = [run(at(hours=number)) for number in range(18)]
    bad = [run(at(hours=20 + number), status=Status.FAILED) for number in range(3)]
    assert problems(rarely, facts(*good, *bad[:2]), at(2)) == []
    assert problems(rarely, facts(*good, *bad), at(2)) == [("failing_often", False)]
    assert problems(rarely, facts(*bad), at(2)) == []


def test_no_success_for_too_long():
    daily = Expectation("import", max_success_age="26h", failures_in_a_row=None)
    known = facts(run(at()), run(at(1), status=Status.FAILED))
    assert problems(daily, known, at(1, hours=2)) == []
    assert problems(daily, known, at(1, hours=3)) == [("silent", False)]


def test_nothing_is_expected_while_paused_or_before_the_pause_ended():
    paused = Expectation("nightly", cron="17 2 * * *", paused_until=at(2))
    known = facts(run(at() + NIGHT), checked_at=at(hours=12))
    checked = judge(paused, known, at(1, hours=12))
    assert checked.is_paused
    assert checked.verdicts == ()
    assert problems(paused, known, at(2, hours=2)) == []
    assert problems(paused, known, at(2, hours=3)) == [("missed", False)]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"cron": "61 2 * * *"}, "cron '61 2 * * *'"),
        ({"cron": "0 0 30 2 *"}, "cron '0 0 30 2 *'"),
        ({"cron": "* * * *"}, "does not have five fields"),
        ({"cron": "@daily", "every": "1d"}, "exclude each other"),
        ({"timezone": "Mars/Olympus"}, "timezone 'Mars/Olympus'"),
        ({"every": "0.5s"}, "every '0.5s'"),
        ({"max_failure_rate": 3}, "max_failure_rate 3"),
        ({"max_running": 0}, "max_running 0"),
        ({"paused_until": datetime(2026, 1, 1)}, "paused_until"),
        ({"owner": ""}, "owner ''"),
    ],
)
def test_invalid_arguments_are_named(arguments, named):
    with pytest.raises(InvalidInput) as caught:
        Expectation("nightly", **arguments)
    assert named in str(caught.value)


def test_an_expectation_survives_json():
    everything = Expectation(
        "nightly",
        labels={"tenant": "acme"},
        cron="@daily",
        timezone="Europe/Berlin",
        grace="1h",
        min_runtime="1s",
        max_runtime="2h",
        max_success_age="2d",
        failures_in_a_row=None,
        max_failure_rate=0.1,
        max_running=1,
        paused_until=at(1),
        owner="data team",
        runbook="https://example.org/nightly",
    )
    assert Expectation.of(json.loads(json.dumps(everything.to_dict()))) == everything
    assert everything.name == "nightly{tenant=acme}"
    assert Expectation("nightly", every="1h").to_dict() == {
        "task_identifier": "nightly",
        "every": "1 hour",
    }


def test_a_start_in_the_future_meets_nothing():
    hourly = Expectation("hourly", every="1h")
    ahead = run(at(365))
    known = facts(run(at(hours=1)), ahead, checked_at=at(hours=1))
    assert problems(hourly, known, at(hours=3)) == [("missed", False)]
    at_two = Expectation("nightly", cron="0 2 * * *")
    assert problems(at_two, facts(ahead), at(hours=3)) == [("never_ran", False)]


def test_failures_are_in_a_row_only_if_no_execution_without_a_row_lies_between():
    twice = Expectation("import", failures_in_a_row=2, max_failure_rate=0.1)
    failed = [run(at(hours=hour), status=Status.FAILED) for hour in (1, 5)]
    assert problems(twice, facts(*failed), at(hours=6)) == [("failing", False)]
    between = facts(*failed, counted=(at(hours=3, minutes=30),))
    assert problems(twice, between, at(hours=6)) == []
    once = Expectation("import")
    after = facts(failed[0], counted=(at(hours=3, minutes=30),), checked_at=at(hours=2))
    assert problems(once, after, at(hours=6)) == []
    many = [run(at(hours=hour), status=Status.FAILED) for hour in range(1, 30)]
    rate = Expectation("import", failures_in_a_row=None, max_failure_rate=0.5)
    assert problems(rate, facts(*many), at(2)) == [("failing_often", False)]
    assert problems(rate, facts(*many, counted=(at(hours=3, minutes=30),)), at(2)) == []


def test_labels_of_executions_without_rows_are_not_known():
    labelled = Expectation("import", labels={"tenant": "acme"}, cron="0 * * * *")
    known = facts(counted=tuple(at(hours=hour, minutes=59) for hour in range(5)))
    assert problems(labelled, known, at(hours=5)) == []
