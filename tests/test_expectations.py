"""Expectations that are declared, checked, and become incidents, on every kind of store."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from jobhistory import Expectation, HistoryStore, InvalidInput, Job, create_store, load_expectations
from jobhistory.database.transaction import Purpose
from jobhistory.expectation_schema import EXPECTATION
from jobhistory.expectations.incidents import News
from tests.conftest import stores_of_kind

KINDS = [
    *("memory", "sqlite", "postgresql", "url-postgresql", "postgresql_by_psycopg2"),
    *("async-memory", "async-sqlite", "async-postgresql", "postgresql_as_app"),
]
MIDNIGHT = datetime(2026, 11, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(params=KINDS)
def expecting(request, clock):
    clock.now = MIDNIGHT
    with stores_of_kind(request.param, request, clock) as make:
        yield make()


def run(store, clock, task="nightly", error=None, took=MINUTE, **job):
    execution = store.begin(Job("1", task, **job), "w")
    clock.advance(seconds=took.total_seconds())
    execution.end(error=error) if error else execution.end()


def verdicts(store, **named):
    return [
        (checked.expectation.name, verdict.problem.value)
        for checked in store.check(**named)
        for verdict in checked.verdicts
    ]


def states(store, **named):
    return [
        (each.expectation, each.problem.value, "open" if each.is_open else "closed")
        for each in store.incidents(**named)
    ]


def test_a_missed_start_opens_an_incident_and_the_next_one_closes_it(expecting, clock):
    expecting.expect("nightly", cron="0 2 * * *", grace="15m")
    clock.now = MIDNIGHT + timedelta(hours=2)
    run(expecting, clock)
    assert verdicts(expecting) == states(expecting) == []
    clock.now = due = MIDNIGHT + timedelta(days=1, hours=2)
    clock.advance(minutes=16)
    assert verdicts(expecting) == [("nightly", "missed")]
    clock.advance(hours=1)
    assert verdicts(expecting) == [("nightly", "missed")]
    (incident,) = expecting.incidents()
    assert incident.slots == (due,)
    assert incident.opened_at == due + 16 * MINUTE
    assert incident.seen_at == due + 76 * MINUTE
    assert states(expecting, only_open=True) == [("nightly", "missed", "open")]
    clock.now = MIDNIGHT + timedelta(days=2, hours=2)
    run(expecting, clock)
    assert verdicts(expecting) == []
    assert states(expecting) == [("nightly", "missed", "closed")]
    assert expecting.incidents()[0].slots == (due,)
    assert states(expecting, only_open=True) == []


def test_a_late_start_is_not_missing_from_the_slots_any_more(expecting, clock):
    expecting.expect("nightly", cron="0 2 * * *", grace="15m")
    clock.now = MIDNIGHT + timedelta(hours=2, minutes=20)
    assert verdicts(expecting) == [("nightly", "never_ran")]
    clock.now = MIDNIGHT + timedelta(days=1, hours=2)
    run(expecting, clock)
    clock.now = MIDNIGHT + timedelta(days=2, hours=2, minutes=20)
    assert verdicts(expecting) == [("nightly", "missed")]
    run(expecting, clock)
    assert verdicts(expecting) == [("nightly", "late")]
    late, missed, never = expecting.incidents()
    assert (late.problem, missed.problem, never.problem) == ("late", "missed", "never_ran")
    assert missed.slots == ()
    assert len(late.slots) == 1


def test_each_problem_is_found_in_history(expecting, clock):
    expecting.expect("slow", max_runtime="10m")
    expecting.expect("quick", min_runtime="10s")
    expecting.expect("single", max_running=1)
    expecting.expect("broken", failures_in_a_row=2)
    expecting.expect("silent", max_success_age="2h", failures_in_a_row=None)
    expecting.expect("unknown", every="1h")
    expecting.expect("fine", every="1h", max_runtime="2h", max_success_age="5h")
    running = [expecting.begin(Job(str(n), "single"), "w") for n in range(2)]
    expecting.begin(Job("1", "slow"), "w")
    run(expecting, clock, "quick", took=timedelta(seconds=1))
    for _ in range(2):
        run(expecting, clock, "broken", error=ValueError("no"))
    run(expecting, clock, "silent", error=ValueError("no"))
    clock.advance(hours=2)
    run(expecting, clock, "fine")
    expected = {
        ("slow", "too_long"),
        ("quick", "too_short"),
        ("single", "overlapping"),
        ("broken", "failing"),
        ("silent", "silent"),
        ("unknown", "never_ran"),
    }
    assert {*verdicts(expecting)} == expected
    found = {each.problem.value: each for each in expecting.incidents()}
    assert {*found["overlapping"].executions} == {each.id for each in running}
    assert len(found["failing"].executions) == 2


def test_labels_choose_the_executions(expecting, clock):
    expecting.expect("import", labels={"tenant": "acme"}, every="1h")
    expecting.expect("import", labels={"tenant": "other"}, every="1h")
    clock.advance(minutes=30)
    run(expecting, clock, "import", labels={"tenant": "acme", "queue": "q"})
    clock.advance(minutes=40)
    assert verdicts(expecting) == [("import{tenant=other}", "never_ran")]
    assert verdicts(expecting, task_identifier="export") == []


@pytest.mark.parametrize("expecting", [*KINDS[:-1]], indirect=True)  # which may read statistics
def test_statistics_know_starts_whose_rows_are_gone_or_were_never_stored(expecting, clock):
    expecting.expect("daily", cron="0 2 * * *", max_success_age="26h")
    expecting.expect("often", cron="*/10 * * * *")
    for number in range(6):
        clock.now = MIDNIGHT + timedelta(hours=1, minutes=10 * number)
        record = expecting.begin(Job("1", "often"), "w", record="failures")
        record.end()
    clock.now = MIDNIGHT + timedelta(hours=2)
    run(expecting, clock, "daily")
    expecting.purge(task_identifier="daily")
    clock.now = MIDNIGHT + timedelta(hours=2, minutes=4)
    assert verdicts(expecting) == []
    clock.advance(minutes=2)
    assert verdicts(expecting) == [("often", "missed")]
    clock.now = MIDNIGHT + timedelta(days=1, hours=3)
    assert ("daily", "missed") in verdicts(expecting)


def test_declaring_the_same_again_changes_nothing(expecting, clock):
    expecting.expect("nightly", every="1h", owner="ann")
    (before,) = expecting.expectations()
    clock.advance(minutes=5)
    expecting.expect(Expectation("nightly", every="1h", owner="ann"))
    assert expecting.expectations() == [before]
    expecting.expect("nightly", every="1h", owner="bob", source="crontab:x")
    (changed,) = expecting.expectations()
    assert changed.declared_at == before.declared_at
    assert (changed.expectation.owner, changed.source) == ("bob", "crontab:x")
    expecting.expect("nightly", every="2h")
    (changed,) = expecting.expectations()
    assert changed.declared_at == before.declared_at + timedelta(minutes=5)


def test_removing_an_expectation_closes_its_incidents(expecting, clock):
    expecting.expect("nightly", every="1h")
    clock.advance(hours=2)
    assert verdicts(expecting) == [("nightly", "never_ran")]
    assert expecting.remove_expectation("nightly")
    assert not expecting.remove_expectation("nightly")
    assert expecting.expectations() == []
    assert states(expecting) == [("nightly", "never_ran", "closed")]


def test_deleted_executions_of_others_do_not_hide_that_a_task_never_ran(expecting, clock, request):
    if "as_app" in request.node.name:
        pytest.skip("without statistics, nobody knows whether its starts were deleted")
    expecting.expect("nightly", every="10 minutes")
    for number in range(3):
        clock.advance(minutes=20)
        expecting.begin(Job(str(number), "other"), "w").end()
        expecting.purge(job_id=str(number))
        assert verdicts(expecting) == [("nightly", "never_ran")]


def test_a_dry_run_writes_nothing(expecting, clock):
    expecting.expect("nightly", every="1h")
    clock.advance(hours=2)
    assert verdicts(expecting, dry_run=True) == [("nightly", "never_ran")]
    assert states(expecting) == []
    assert expecting.expectations()[0].checked_at is None


def test_incidents_of_a_window(expecting, clock):
    expecting.expect("nightly", every="1h")
    clock.advance(hours=2)
    expecting.check()
    opened = clock.now
    clock.advance(hours=1)
    run(expecting, clock)
    expecting.check()
    clock.advance(hours=1)
    assert len(expecting.incidents(from_=opened, to=opened)) == 1
    assert expecting.incidents(to=opened - MINUTE) == []
    assert expecting.incidents(from_=clock.now) == []
    assert expecting.incidents(task_identifier=["other"]) == []


def test_of_two_checks_at_the_same_time_one_writes(database, clock):
    clock.now = MIDNIGHT
    first, second = (create_store(database.engine, clock=clock) for _ in range(2))
    first.expect("nightly", every="1h")
    clock.advance(hours=2)
    threads = [threading.Thread(target=store.check) for store in (first, second) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states(first) == [("nightly", "never_ran", "open")]


def test_news_is_claimed_by_one_sender_and_sent_once(expecting, clock):
    if not isinstance(expecting, HistoryStore):
        pytest.skip("it is for senders, and the same for asyncio")
    history = expecting.internals.history
    expecting.expect("nightly", every="1h")
    clock.advance(hours=2)
    expecting.check()
    day = clock.now - timedelta(days=1)

    def claim(minutes=5):
        now = clock.now
        return [
            (each.incident.problem.value, each.kind, each.is_known)
            for each in history.claim_news(day, now, now + minutes * MINUTE, 10)
        ]

    assert claim() == [("never_ran", "opened", False)]
    assert claim() == []
    clock.advance(minutes=6)  # the sender has died
    assert claim() == [("never_ran", "opened", False)]
    (incident,) = expecting.incidents()
    history.settle_news([News(incident, is_known=False)], clock.now)
    assert history.number_sent(clock.now) == 1
    clock.advance(minutes=6)
    assert claim() == []
    run(expecting, clock)
    expecting.check()
    assert claim() == [("never_ran", "closed", True)]
    history.settle_news([News(*expecting.incidents(), is_known=True)], clock.now)
    clock.advance(minutes=6)
    assert claim() == []


def test_expectations_from_a_file(tmp_path):
    path = tmp_path / "expected.toml"
    path.write_text(
        "[[expectation]]\n"
        "task_identifier = 'nightly'\n"
        "cron = '17 2 * * *'\n"
        "timezone = 'Europe/Berlin'\n"
        "labels = {tenant = 'acme'}\n"
        "paused_until = 2026-12-24T00:00:00Z\n"
    )
    assert load_expectations(path) == [
        Expectation(
            "nightly",
            cron="17 2 * * *",
            timezone="Europe/Berlin",
            labels={"tenant": "acme"},
            paused_until=datetime(2026, 12, 24, tzinfo=UTC),
        )
    ]
    path.write_text("[[expectation]]\ntask_identifier = 'a'\nevery = 'often'\n")
    with pytest.raises(InvalidInput, match=r"\[\[expectation\]\] number 1: every 'often'"):
        load_expectations(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_runtime": "2h", "max_runtime": "1h"}, "min_runtime '2h' exceeds the longest time"),
        ({"failures_in_a_row": 101}, "failures_in_a_row 101 exceeds the newest 100 executions"),
    ],
)
def test_what_nothing_can_meet_is_not_expected(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        Expectation("nightly", **arguments)


def test_wrong_arguments_are_named(expecting):
    with pytest.raises(InvalidInput, match="expectation 3"):
        expecting.expect(3)
    with pytest.raises(InvalidInput, match="task_identifier ''"):
        expecting.check("")
    with pytest.raises(InvalidInput, match="limit 0"):
        expecting.incidents(limit=0)


def test_labels_are_judged_only_where_they_were_searched_for(database_store, clock):
    clock.now = MIDNIGHT
    database_store.expect("import", labels={"tenant": "rare"}, every="1d", grace="1h")
    clock.advance(hours=1)
    database_store.begin(Job("1", "import", labels={"tenant": "rare"}), "w").end()
    others = [
        {
            "job_id": str(number),
            "worker_id": "w",
            "correlation_id": "c",
            "task_identifier": "import",
            "status": "completed",
            "labels": {"tenant": "often"},
            "started_at": MIDNIGHT + timedelta(hours=2, minutes=number),
            "execution_time_ms": 1,
        }
        for number in range(1200)
    ]
    database_store.record_many(others)
    clock.now = MIDNIGHT + timedelta(hours=23)
    assert verdicts(database_store) == []
    clock.advance(days=1, hours=8)  # a day and the grace after the first that was looked at
    assert verdicts(database_store) == [("import{tenant=rare}", "missed")]
    database_store.expect("import", labels={"tenant": "often"}, every="1d")
    (rare, often) = sorted(database_store.check(dry_run=True), key=lambda each: len(each.verdicts))[
        ::-1
    ]
    assert often.last_start == others[-1]["started_at"]
    assert rare.last_start is None


def test_a_pause_survives_that_the_app_declares_the_same_again(expecting, clock):
    until = MIDNIGHT + timedelta(days=1)
    expecting.expect("nightly", every="1h", paused_until=until)
    expecting.expect("nightly", every="1h", owner="ann")
    (declared,) = expecting.expectations()
    assert (declared.expectation.paused_until, declared.expectation.owner) == (until, "ann")
    expecting.expect("nightly", every="1h", paused_until=clock.now)
    assert expecting.expectations()[0].expectation.paused_until == clock.now


def test_an_expectation_that_cannot_be_read_here_stops_no_other(database_store, clock, caplog):
    clock.now = MIDNIGHT
    database_store.expect("good", every="1h")
    database_store.expect("bad", cron="0 2 * * *", timezone="Europe/Berlin")
    history = database_store.internals.history
    history.run(
        Purpose.MAINTAIN,
        lambda transaction: transaction.execute(
            EXPECTATION.update()
            .where(EXPECTATION.c.name == "bad")
            .values(definition={"task_identifier": "bad", "timezone": "Mars/Olympus"})
        ),
    )
    clock.advance(hours=3)
    assert verdicts(database_store) == [("good", "never_ran")]
    assert "'bad' is not checked: timezone 'Mars/Olympus'" in caplog.text
    database_store.expect("bad", every="1h")
    assert len(database_store.expectations()) == 2


@pytest.mark.parametrize("expecting", [*KINDS[:-1]], indirect=True)  # which may read statistics
def test_failures_among_executions_without_rows_are_not_in_a_row(expecting, clock):
    expecting.expect("ping", failures_in_a_row=2, max_failure_rate=0.5)
    for number in range(20):
        execution = expecting.begin(Job(str(number), "ping"), "w", record="failures")
        clock.advance(hours=1)
        execution.end(error=ValueError("no")) if number in (3, 15) else execution.end()
    assert [each for each in verdicts(expecting) if each[1].startswith("failing")] == []
