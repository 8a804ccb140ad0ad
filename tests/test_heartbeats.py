"""Signs of life and progress of executions that run."""

from __future__ import annotations

import logging

import pytest

from jobhistory import InvalidInput, Job, create_store
from jobhistory import lifecycle as lifecycle_module

JOB = Job("job-1", "import")


@pytest.fixture
def pace(monkeypatch):
    """Seconds that pass for the limit of one write per second; they go by by hand."""
    seconds = [100.0]
    monkeypatch.setattr(lifecycle_module, "monotonic", lambda: seconds[0])

    def wait(count):
        seconds[0] += count

    return wait


def stored(store):
    (record,) = store.get_by_job_id("job-1")
    return record.heartbeat_at, record.progress


def test_a_heartbeat_is_recorded(store, clock):
    execution = store.begin(JOB, "w")
    assert stored(store) == (None, None)
    clock.advance(seconds=3)
    execution.heartbeat()
    assert stored(store) == (clock.now, None)
    assert execution.record.heartbeat_at == clock.now
    execution.end()
    (record,) = store.get_by_job_id("job-1")
    assert (record.status, record.heartbeat_at) == ("completed", clock.now)


def test_progress_is_a_heartbeat_and_at_most_one_write_a_second(store, clock, pace):
    execution = store.begin(JOB, "w")
    execution.progress(0.1)
    first = clock.now
    clock.advance(seconds=1)
    pace(0.9)
    execution.progress(0.2)
    assert stored(store) == (first, 0.1)
    assert execution.record.progress == 0.2
    pace(0.1)
    execution.heartbeat()
    assert stored(store) == (clock.now, 0.2)


@pytest.mark.parametrize("outcome", [None, "no space"])
def test_the_outcome_records_progress_that_was_held_back(store, clock, pace, outcome):
    execution = store.begin(JOB, "w")
    execution.progress(0.1)
    execution.progress(1)
    execution.end(outcome)
    assert stored(store) == (clock.now, 1.0)
    execution.progress(0.5)
    execution.heartbeat()
    assert stored(store) == (clock.now, 1.0), "an execution that has ended stays as it is"


def test_signs_of_life_never_revive_an_execution(store, clock):
    execution = store.begin(JOB, "w")
    clock.advance(hours=3)
    store.reap_lost("2h")
    execution.heartbeat()
    (record,) = store.get_by_job_id("job-1")
    assert (record.status, record.heartbeat_at) == ("failed", None)


@pytest.mark.parametrize("share", [-0.1, 1.1, "half", None, True, float("nan")])
def test_progress_is_a_number_from_0_to_1(plain_store, share):
    execution = plain_store.begin(JOB, "w")
    with pytest.raises(InvalidInput, match="share"):
        execution.progress(share)


def test_an_outage_during_heartbeats_never_breaks_the_job(database, caplog, pace):
    store = create_store(database.engine)
    execution = store.begin(JOB, "w")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE job_history RENAME TO away")
    try:
        caplog.set_level(logging.ERROR, logger="jobhistory")
        execution.progress(0.3)
        assert "not recorded: the heartbeat of import" in caplog.text
    finally:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO job_history")
    pace(1)
    execution.heartbeat()
    assert stored(store)[1] == 0.3


def test_a_start_that_was_not_recorded_is_recorded_with_its_signs_of_life(database, clock):
    store = create_store(database.engine, clock=clock)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE job_history RENAME TO away")
    try:
        execution = store.begin(JOB, "w")
        execution.progress(0.3)
    finally:
        with database.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE away RENAME TO job_history")
    execution.end()
    assert stored(store)[1] == 0.3
