"""An execution that starts only if no other one of its task runs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import create_engine, event

from jobhistory import Job, RetentionRule, Status, create_store
from jobhistory.database.deadlines import TimeLimits
from jobhistory.query.overlap import AT_ONCE, Overlap

MINUTE = timedelta(minutes=1)


def claim(store, job_id, *, task="backup", is_running=None):
    """Try to start an execution; `is_running` is what is known of the processes of others."""
    internals = store.internals
    row = internals.rows.started(Job(job_id, task), "w", "c", None, None)
    row["heartbeat_at"] = row["started_at"]
    rivals = Overlap(task, lambda record: is_running, MINUTE)
    return internals.history.claim(row, rivals, internals.rows.now())


def holder(claimed):
    return None if claimed.holder is None else claimed.holder.job_id


def lost(claimed):
    return [(each.job_id, each.status, each.error_type) for each in claimed.lost]


def test_one_execution_of_a_task_runs_at_a_time(plain_store):
    assert claim(plain_store, "1") == (None, [])
    assert holder(claim(plain_store, "2")) == "1"
    assert holder(claim(plain_store, "other", task="mail")) is None
    assert [each.job_id for each in plain_store.running()] == ["1", "other"]

    plain_store.record_completion("1", "w", "c", 5)
    assert holder(claim(plain_store, "3")) is None


def test_an_execution_without_heartbeats_counts_as_running(plain_store, clock):
    plain_store.record_start(Job("1", "backup"), "w", "c")
    clock.advance(days=10)
    assert holder(claim(plain_store, "2")) == "1"


def test_an_execution_is_lost_when_its_heartbeats_have_stopped_for_a_while(plain_store, clock):
    claim(plain_store, "1")
    clock.advance(seconds=59)
    assert holder(claim(plain_store, "2")) == "1"
    clock.advance(seconds=1)
    assert lost(claim(plain_store, "3")) == [("1", Status.FAILED, "jobhistory.WorkerLost")]
    (ended,) = plain_store.get_by_job_id("1")
    assert ended.error_message.startswith("no heartbeat since 20")
    assert [each.job_id for each in plain_store.recent()] == ["1"]
    assert [each.job_id for each in plain_store.running()] == ["3"]


def test_what_is_known_of_the_processes_decides(plain_store, clock):
    plain_store.record_start(Job("1", "backup"), "w", "c")
    assert holder(claim(plain_store, "2", is_running=True)) == "1"
    assert lost(claim(plain_store, "3", is_running=False))[0][0] == "1"
    (ended,) = plain_store.get_by_job_id("1")
    assert ended.error_message.startswith("no outcome since it started at 20")

    clock.advance(hours=1)  # its wrapper is killed, its command runs
    assert holder(claim(plain_store, "4", is_running=True)) == "3"


def test_the_outcome_of_an_execution_that_was_taken_for_lost_replaces_the_presumption(plain_store):
    claim(plain_store, "1")
    claim(plain_store, "2", is_running=False)
    record = plain_store.record_completion("1", "w", "c", 5)
    assert (record.status, record.error_type) == (Status.COMPLETED, None)


def test_any_number_of_lost_executions_is_ended(plain_store):
    for number in range(AT_ONCE + 1):
        plain_store.record_start(Job(f"j{number}", "backup"), "w", "c")
    claimed = claim(plain_store, "new", is_running=False)
    assert (claimed.holder, len(claimed.lost)) == (None, AT_ONCE + 1)


def test_lost_executions_of_a_task_are_ended_beside_those_that_run(plain_store, clock):
    claim(plain_store, "1")
    clock.advance(hours=1)
    plain_store.record_start(Job("2", "backup"), "w", "c")
    internals = plain_store.internals
    rivals = Overlap("backup", lambda record: None, MINUTE)
    (ended,) = internals.history.end_lost(rivals, internals.rows.now())
    assert ended.job_id == "1"
    assert internals.history.end_lost(rivals, internals.rows.now()) == []
    assert [each.job_id for each in plain_store.running()] == ["2"]


def test_lost_executions_are_kept_as_long_as_the_rules_say(database, clock):
    rules = [RetentionRule(status="failed", keep="90 days")]
    create_store(database.engine, clock=clock, retention_rules=rules).expire()
    store = create_store(database.engine, clock=clock)  # it follows the rules of the other one
    claim(store, "1")
    started_at = clock()
    claim(store, "2", is_running=False)
    assert store.get_by_job_id("1")[0].expires_at == started_at + timedelta(days=90)


ENGINES = {
    "the library's": None,
    "an app's": {},
    "one of snapshots": {"isolation_level": "REPEATABLE READ"},
    "one that begins by itself": {"isolation_level": "AUTOCOMMIT"},
}


@pytest.mark.parametrize("kind", ENGINES)
def test_of_those_who_start_at_once_exactly_one_does(database, kind):
    if kind == "one of snapshots" and database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite knows no such level")
    options = ENGINES[kind]
    engine = None if options is None else create_engine(database.url, **options)
    store = create_store(database.url if engine is None else engine)
    store.internals.history.limits = TimeLimits(call=60)  # a loaded machine may take longer
    rivals, rounds = 4, 5
    barrier = Barrier(rivals)

    def start(number):
        won = []
        for round_ in range(rounds):
            barrier.wait(60)
            if claim(store, f"{number}-{round_}", task=f"task-{round_}").holder is None:
                won.append(round_)
        return won

    with ThreadPoolExecutor(rivals) as pool:
        won = [each for rounds_ in pool.map(start, range(rivals)) for each in rounds_]
    store.close()
    if engine is not None:
        engine.dispose()
    assert sorted(won) == list(range(rounds))


def test_one_who_starts_waits_for_another_one_to_commit(database):
    """Otherwise both would see no other row."""
    first = create_engine(database.url)
    # By another name of the file, lest they take turns as threads of one process do.
    is_file = database.engine.dialect.name == "sqlite"
    url = f"sqlite:///file:{database.url.database}?uri=true" if is_file else database.url
    second = create_engine(url)
    stores = [create_store(engine) for engine in (first, second)]
    with ThreadPoolExecutor(1) as pool:
        begun = []

        @event.listens_for(first, "commit")
        def try_meanwhile(connection):
            if not begun:
                begun.append(pool.submit(claim, stores[1], "2"))
                with pytest.raises(TimeoutError):
                    begun[0].result(0.1)

        assert holder(claim(stores[0], "1")) is None
        assert holder(begun[0].result(60)) == "1"
    first.dispose()
    second.dispose()
