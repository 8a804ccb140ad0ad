"""What histories suggest to expect."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from jobhistory.execution.ids import new_execution_id
from jobhistory.execution.status import Status
from jobhistory.expectations.facts import Run
from jobhistory.expectations.inference import infer
from jobhistory.expectations.schedule import Cron

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def run(start, took=MINUTE, status=Status.COMPLETED, attempt=1):
    milliseconds = took // timedelta(milliseconds=1)
    return Run(new_execution_id(start), start, status, start + took, milliseconds, attempt, None)


def on_schedule(expression, timezone="UTC", days=30, begin=BEGIN, delay=lambda random: 2):
    """Runs that start when cron starts them, and some seconds later."""
    random = Random(1)
    cron, runs = Cron(expression, timezone), []
    for number in range(days * 2):
        from_ = begin + number * DAY / 2
        for slot in cron.slots((), from_, from_ + DAY / 2 - timedelta(microseconds=1)):
            runs.append(run(slot + delay(random) * SECOND))
    return runs


def suggested(runs, timezone="UTC", now=None):
    runs = sorted(runs, key=lambda each: each.started_at, reverse=True)
    return infer("task", runs, now or runs[0].started_at + MINUTE, timezone)


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("17 2 * * *", 7),
        ("0 0 * * *", 30),
        ("59 23 * * *", 30),
        ("30 6,18 * * *", 30),
        ("5 9 * * 1-5", 15),
        ("0 22 * * 0", 60),
        ("0 4 * * 2,5", 40),
        ("0 5 1 * *", 250),
        ("0 5 1,15 * *", 150),
        ("30 3 L * *", 250),
        ("0 * * * *", 7),
        ("42 * * * *", 7),
        ("0 */2 * * *", 14),
        ("*/15 * * * *", 20),
        ("7,22,37,52 * * * *", 20),
        ("*/20 8-18 * * 1-5", 30),
        ("0 9-17 * * 1-5", 30),
    ],
)
@pytest.mark.parametrize("timezone", ["UTC", "America/New_York"])
def test_schedules_are_found(expression, days, timezone):
    delay = {"delay": lambda random: random.lognormvariate(1, 1)}
    found = suggested(on_schedule(expression, timezone, days, **delay), timezone).expectation
    assert (found.cron, found.timezone) == (expression, timezone)


@pytest.mark.parametrize(
    ("of_task", "given"), [("Europe/Berlin", "Europe/Berlin"), ("UTC", "Europe/Berlin")]
)
def test_the_zone_is_the_one_whose_clocks_the_task_follows(of_task, given):
    begin = datetime(2026, 3, 15, tzinfo=UTC)
    found = suggested(on_schedule("30 4 * * *", of_task, 30, begin), given).expectation
    assert (found.cron, found.timezone) == ("30 4 * * *", of_task)


def test_the_evidence_is_in_words():
    runs = on_schedule("0 2 * * *", days=30, delay=lambda random: random.uniform(1, 240))
    del runs[7]
    suggestion = suggested(runs)
    assert suggestion.reason == "29 of 30 days between 02:00 and 02:03 (UTC)"
    assert suggestion.expectation.grace == 30 * MINUTE


def test_the_grace_period_is_three_times_the_usual_delay():
    runs = on_schedule("0 2 * * *", delay=lambda random: random.uniform(0, 3600))
    assert suggested(runs).expectation.grace == 3 * HOUR


@pytest.mark.parametrize("what", ["outage", "late", "by hand", "hung", "failures"])
def test_what_is_unusual_does_not_fool_it(what):
    runs = on_schedule("0 2 * * *", days=30)
    usual = suggested(runs).expectation
    if what == "outage":
        del runs[10:13]
    elif what == "late":
        runs[10] = run(runs[10].started_at + 5 * HOUR)
    elif what == "by hand":
        runs += [run(BEGIN + number * DAY + 13 * HOUR) for number in (3, 17, 18)]
    elif what == "hung":
        runs[10] = run(runs[10].started_at, 20 * HOUR)
    else:
        runs[10:14] = [run(each.started_at, status=Status.FAILED) for each in runs[10:14]]
    assert suggested(runs).expectation == usual


def test_a_job_that_pauses_between_runs_has_an_interval():
    random, start, runs = Random(2), BEGIN, []
    for _ in range(500):
        start += 20 * MINUTE + random.uniform(0, 40) * SECOND
        runs.append(run(start))
    found = suggested(runs).expectation
    assert (found.cron, found.every) == (None, 21 * MINUTE)


def test_a_task_that_often_loses_a_start_may_be_silent_for_longer():
    random = Random(3)
    runs = [each for each in on_schedule("*/5 * * * *", days=14) if random.random() > 0.02]
    found = suggested(runs).expectation
    assert found.cron is None
    assert 15 * MINUTE <= found.every <= HOUR


@pytest.mark.parametrize("seed", range(20))
def test_events_have_no_schedule(seed):
    random, start, runs = Random(seed), BEGIN, []
    while start < BEGIN + 30 * DAY:
        start += random.expovariate(20) * DAY
        runs.append(run(start))
    found = suggested(runs).expectation
    assert (found.cron, found.every) == (None, None)
    assert found.max_success_age > 6 * HOUR


@pytest.mark.parametrize("seed", range(20))
def test_bursts_suggest_nothing(seed):
    random, start, runs = Random(seed), BEGIN, []
    for _ in range(9):
        start += random.expovariate(1 / 3) * DAY
        runs += [run(start + number * SECOND) for number in range(30)]
    suggestion = suggested(runs)
    assert suggestion.expectation is None or suggestion.expectation.max_success_age > 3 * DAY


def test_too_little_history_and_abandoned_tasks_suggest_nothing():
    runs = on_schedule("0 2 * * *", days=6)
    assert suggested(runs).reason == "has 6 starts in history, at least 7 are needed"
    runs = on_schedule("0 2 * * *", days=30)
    later = suggested(runs, now=BEGIN + 60 * DAY)
    assert (later.expectation, later.reason) == (None, "has not started since 2026-01-30")


def test_limits_come_from_what_is_usual():
    random = Random(4)
    starts = [each.started_at for each in on_schedule("0 * * * *", days=30)]
    runs = [run(start, random.uniform(10, 14) * MINUTE) for start in starts]
    found = suggested(runs).expectation
    assert found.max_runtime == HOUR
    assert found.max_running == 1
    assert found.failures_in_a_row == 1
    short = suggested([run(start, SECOND) for start in starts]).expectation
    assert (short.max_runtime, short.max_running) == (MINUTE, None)


def test_tasks_that_fail_now_and_then_may_do_so():
    runs = on_schedule("0 * * * *", days=30)
    for number in (20, 100, 101, 250, 400, 401, 600):
        runs[number] = run(runs[number].started_at, status=Status.FAILED)
    assert suggested(runs).expectation.failures_in_a_row == 3


def test_a_suggestion_takes_bounded_time_and_only_the_newest_starts():
    runs = [run(BEGIN + number * MINUTE) for number in range(6000)]
    suggestion = suggested(runs)
    assert suggestion.expectation.every <= 15 * MINUTE


def test_the_figures_of_the_documentation_are_those_of_the_benchmark():
    root = Path(__file__).parents[1]
    text = " ".join((root / "docs/howto/suggest.md").read_text().split())
    table = (root / "benchmarks/README.md").read_text()
    rows = {name.strip("*"): rest.split(" | ") for name, rest in ROW.findall(table)}
    rate, *found = rows["all, asked for the right time zone"][7:]
    assert f"{rate} false alarms for each task and month" in text
    assert all(re.search(rf"\b{each}\b", text) for each in found)
    for name, words in EXCEPTIONS.items():
        assert words.format(rows[name][7]) in text


ROW = re.compile(r"^\| (\S.*?) \| (\d+ of \d+ \| [\d.]+ \|.*) \|$", re.MULTILINE)
EXCEPTIONS = {
    "daily, in UTC, asked for Berlin": "{} false alarms a month",
    "hourly, with backlogs": "raised {} a month",
    "every 15 minutes, with deployments": "raised {} a month",
    "weekdays, not on holidays": "raised {} a month",
}
