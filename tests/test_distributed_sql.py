"""The statements for a table that Citus distributes by job, executed by a plain PostgreSQL.

What Citus refuses is told by their text: row locks and places of rows across shards, and functions
that depend on settings in a SET. A statement that names the job goes to one shard only.
"""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, event, text

from jobhistory import (
    ExecutionAlreadyFinished,
    InvalidInput,
    Job,
    Recorder,
    RetentionRule,
    Status,
    create_store,
    migrate,
    new_execution_id,
)
from jobhistory.database import transaction
from jobhistory.database.functions import elapsed_ms, later, seconds_after
from jobhistory.database.layout import Layout
from jobhistory.rollup_schema import TRIGGERS
from jobhistory.schema import COLUMNS

JOB = Job("job-1", "ship")
IDS = ("job-1", "w", "c")
DISTRIBUTED = Layout(("id", "job_id"), "job_id")


@pytest.fixture(scope="module")
def database_url(new_postgres_database):
    """A database whose history has the key and the triggers of one that is distributed."""
    with new_postgres_database() as url:
        engine = create_engine(url)
        migrate.upgrade(engine)
        with engine.begin() as connection:
            for name in TRIGGERS["postgresql"]:
                connection.execute(text(f"DROP TRIGGER {name} ON job_history"))
            key = "DROP CONSTRAINT pk_job_history, ADD PRIMARY KEY (id, job_id)"
            connection.execute(text(f"ALTER TABLE job_history {key}"))
        engine.dispose()
        yield url


@pytest.fixture
def engine(database_url, monkeypatch):
    monkeypatch.setattr(transaction, "layout_of", lambda connection, schema: DISTRIBUTED)
    engine = create_engine(database_url)
    yield engine
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM job_history"))
        connection.execute(text("DELETE FROM job_history_state"))
    engine.dispose()


@pytest.fixture
def executed(engine):
    """The statements on the history table that the test has executed."""
    statements = []

    def note(connection, cursor, statement, parameters, context, many):
        if re.search(r"\bjob_history\b", statement):
            statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    return statements


@pytest.fixture
def store(engine, clock):
    return create_store(engine, clock=clock)


def record(store, job_id="job-1", **values):
    ended = {"job_id": job_id, "worker_id": "w", "correlation_id": "c", "task_identifier": "ship"}
    return store.record_execution(ended, **({"status": "completed"} | values))


def names_the_job(statement):
    """Whether a statement says outside of subqueries of which job the rows are."""
    outside = re.sub(r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)", "", statement)
    return re.search(r"job_history\.job_id = ", outside) is not None


def updates(statements):
    return [each for each in statements if each.startswith("UPDATE")]


def test_an_outcome_by_the_three_ids_names_the_job_outside_too(store, executed):
    store.record_start(JOB, "w", "c")
    store.record_completion(*IDS)
    (update,) = updates(executed)
    assert names_the_job(update)
    assert update.count("job_history.job_id = ") == 2


def test_an_outcome_by_its_record_names_the_job(store, executed):
    store.record_failure(store.record_start(JOB, "w", "c"), error="timed out")
    (update,) = updates(executed)
    assert names_the_job(update)


def test_tracked_executions_and_heartbeats_name_the_job(store, executed):
    with store.track(JOB, "w") as execution:
        execution.progress(0.5)
    beat, outcome = updates(executed)
    assert names_the_job(beat)
    assert names_the_job(outcome)


def test_a_repeated_outcome_names_the_job(store, executed):
    started = store.record_start(JOB, "w", "c")
    store.record_completion(started)
    del executed[:]
    store.record_completion(started)
    with pytest.raises(ExecutionAlreadyFinished):
        store.record_failure(started, error="timed out")
    assert len(executed) == 4
    assert all(names_the_job(each) for each in executed)


def test_an_outcome_in_place_of_a_presumed_one_names_the_job(store, clock, executed):
    started = store.record_start(JOB, "w", "c")
    clock.advance(hours=3)
    assert store.reap_lost("1 hour") == 1
    del executed[:]
    assert store.record_completion(*IDS).id == started.id
    assert len(updates(executed)) == 2
    assert all(names_the_job(each) for each in executed)


def test_outcomes_of_a_recorder_name_the_job(store, executed):
    with Recorder(store) as recorder:
        with recorder.track(JOB, "w"):
            recorder.flush()
        recorder.flush()
    (update,) = updates(executed)
    assert names_the_job(update)


def test_labels_are_exchanged_in_one_shard(store, executed):
    done = record(store)
    assert store._history.exchange_label(done.id, "job-1", "at", None, "now")
    assert not store._history.exchange_label(done.id, "another", "at", "now", None)
    assert all(names_the_job(each) for each in updates(executed))
    assert store.get(done.id).labels == {"at": "now"}


def test_an_outcome_by_an_execution_id_is_looked_for_in_all_shards(store, executed):
    started = store.record_start(JOB, "w", "c")
    assert store.record_completion(execution_id=started.id).status == "completed"
    (update,) = updates(executed)
    assert "job_id = " not in update
    assert "FOR UPDATE" not in update


@pytest.fixture
def maintained(store, engine, clock, executed):
    """What maintenance has executed; it has found rows of each kind."""
    for number in range(5):
        store.record_start(Job(f"lost-{number}", "ship"), "w", "c")
        record(store, f"old-{number}")
    clock.advance(hours=3)
    assert store.reap_lost("1 hour", batch_size=2) == 5
    assert store.reap_lost("1 hour") == 0
    clock.advance(days=400)
    record(store, "new")
    assert store.expire(dry_run=True) == 10
    assert store.expire(batch_size=3) == 10
    assert store.expire() == 0
    keep = RetentionRule(task_identifier="ship", keep_last=2)
    ruled = create_store(engine, clock=clock, retention_rules=[keep], history_retention="never")
    for number in range(7):
        record(ruled, f"more-{number}")
    assert ruled.expire(batch_size=2) == 5
    assert ruled.purge(task_identifier="ship", batch_size=1) == 3
    assert store.query() == []
    return executed


def test_maintenance_locks_no_rows_and_knows_no_places(maintained):
    assert len(maintained) > 20
    for each in maintained:
        assert "FOR UPDATE" not in each
        assert "ctid" not in each
        assert "pg_inherits" not in each


def after_finding(engine, change):
    """Let another session change rows that a batch has found, as it locks none."""

    met = []

    @event.listens_for(engine, "before_cursor_execute")
    def meet(connection, cursor, statement, parameters, context, many):
        if statement.startswith(("DELETE FROM job_history ", "UPDATE job_history ")) and not met:
            met.append(statement)
            with engine.begin() as other:
                other.execute(text(f"UPDATE job_history SET {change}"))


def test_what_gets_a_later_expiry_while_a_batch_is_deleted_stays(store, engine, clock, caplog):
    record(store)
    clock.advance(days=400)
    after_finding(engine, "expires_at = now() + interval '1 day'")
    assert store.expire() == 0
    assert store.count().value == 1
    assert not caplog.records


def test_what_a_rule_no_longer_covers_while_a_batch_is_deleted_stays(engine, clock):
    keep = RetentionRule(task_identifier="ship", keep_last=1)
    ruled = create_store(engine, clock=clock, retention_rules=[keep], history_retention="never")
    for number in range(2):
        record(ruled, f"job-{number}")
    after_finding(engine, "expires_at = now() + interval '1 day'")
    assert ruled.expire() == 0
    assert len(ruled.query()) == 2


def test_a_heartbeat_while_a_batch_is_ended_keeps_an_execution_from_being_lost(
    store, engine, clock, caplog
):
    with store.track(JOB, "w") as execution:
        execution.progress(0.5)
        clock.advance(hours=3)
        after_finding(engine, "heartbeat_at = now()")
        assert store.reap_lost(heartbeat_older_than="1 hour") == 0
    assert "or others have just changed them" in caplog.text
    assert [each.status for each in store.query()] == [Status.COMPLETED]


def test_no_text_is_made_of_a_time_where_it_is_set(maintained):
    changed = updates(maintained)
    assert any("error_message=" in each for each in changed)
    assert not any("to_char" in each for each in changed)


def test_lost_executions_have_the_message_of_other_stores(store, clock):
    store.record_start(JOB, "w", "c")
    clock.advance(hours=3)
    assert store.reap_lost("1 hour") == 1
    (lost,) = store.recent()
    assert lost.status is Status.FAILED
    assert lost.error_message == (
        "no outcome since it started at 2015-11-01T12:00:00Z; its worker is presumed lost"
    )
    assert [each.id for each in store.query()] == [lost.id]


@pytest.mark.parametrize(
    "value",
    [
        seconds_after(COLUMNS.started_at, 90),
        elapsed_ms(COLUMNS.started_at, COLUMNS.completed_at),
        later(COLUMNS.started_at, COLUMNS.completed_at),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_outcomes_compute_from_columns_depends_on_no_setting(value, engine):
    # PostgreSQL asks the same of an index: its expression must be immutable.
    sql = value.compile(dialect=engine.dialect, compile_kwargs={"literal_binds": True})
    with engine.connect() as connection:
        connection.execute(text(f"CREATE INDEX ON job_history (({sql}))"))
        connection.rollback()


def test_seconds_are_added_across_a_change_of_the_clocks(engine, store, clock):
    done = record(store)
    value = seconds_after(COLUMNS.started_at, 86_400 * 200)
    with engine.connect() as connection:
        connection.execute(text("SET TIME ZONE 'Europe/Berlin'"))
        assert connection.scalar(value.select()) == done.started_at + timedelta(days=200)


def test_an_existing_row_is_found_by_the_key_of_the_table(store, clock, executed):
    execution_id = new_execution_id(clock())
    store.record_start(JOB, "w", "c", execution_id=execution_id)
    store.record_start(JOB, "w", "c", execution_id=execution_id)
    record(store, execution_id=execution_id)
    record(store, execution_id=execution_id)
    assert [each.status for each in store.query()] == [Status.COMPLETED]
    inserts = [each for each in executed if each.startswith("INSERT")]
    assert len(inserts) == 4
    assert all("ON CONFLICT (id, job_id) DO" in each for each in inserts)


def test_an_id_belongs_to_one_job_although_the_key_has_both(store, clock):
    execution_id = new_execution_id(clock())
    store.record_start(JOB, "w", "c", execution_id=execution_id)
    with pytest.raises(InvalidInput, match="belongs to an execution of job 'job-1'"):
        store.record_start(Job("job-2", "ship"), "w", "c", execution_id=execution_id)
    with pytest.raises(InvalidInput, match="belongs to an execution of job 'job-1'"):
        record(store, "job-2", execution_id=execution_id)
    assert [each.job_id for each in store.query()] == ["job-1"]


def test_pages_leave_the_plan_to_each_shard(store, executed):
    for number in range(5):
        record(store, f"job-{number}", labels={"n": str(number)})
    del executed[:]
    first = store.page(limit=2)
    assert len(store.page(limit=9, after=first.next_cursor)) == 3
    assert len(list(store.iterate(task_identifier="ship"))) == 5
    assert store.count(cap=3).is_capped
    assert all("LIMIT (SELECT" not in each for each in executed)


def test_new_groups_of_failures_are_found_without_searching_a_shard_from_another(store, clock):
    record(store, status="failed", error="E: known")
    clock.advance(hours=2)
    record(store, status="failed", error="E: known")
    record(store, status="failed", error="F: new")
    groups = store.failure_groups(from_=clock(), known_for="1 day")
    assert {group.message: group.is_new for group in groups} == {"E: known": False, "F: new": True}


def test_statistics_are_of_rows(store):
    record(store)
    (stats,) = store.stats()
    assert (stats.completed, stats.is_exact) == (1, True)


def test_a_check_misses_no_start_whose_row_is_deleted(store, clock):
    store.expect("ship", every="1h")
    for _ in range(3):
        record(store)
        clock.advance(hours=1)
    assert store.purge(task_identifier="ship") == 3
    (checked,) = store.check()
    assert checked.verdicts == ()


def test_nothing_is_suggested_for_a_task_that_has_not_ended(store):
    store.record_start(JOB, "w", "c")
    assert store.suggest_expectations() == []


def test_archives_are_refused(store, clock, tmp_path):
    store.record_start(JOB, *IDS[1:])
    clock.advance(days=60)
    with pytest.raises(InvalidInput, match=r"archive '.*' cannot be used: Citus distributes"):
        store.expire(archive=tmp_path)
    assert store.count().value == 1
