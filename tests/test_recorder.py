"""Recording in the background."""

from __future__ import annotations

import inspect
import logging
import multiprocessing
import queue
import random
import sqlite3
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, event, text

from jobhistory import (
    HistoryStore,
    InvalidInput,
    Job,
    NotWritten,
    Recorder,
    RecorderClosed,
    RecorderCounts,
    RecorderFull,
    Status,
    create_async_store,
    create_store,
    new_execution_id,
)
from jobhistory.database import postgresql_copy as pg_copy
from jobhistory.database import recorder_batch
from jobhistory.database.transaction import Purpose
from jobhistory.execution.batch import Batch
from jobhistory.schema import values_of
from tests.recorders import IDS, Gate, record


@pytest.fixture
def recorder(database_store):
    # Nothing is written before a test asks for it.
    with Recorder(database_store, max_delay=3600) as recorder:
        yield recorder


@contextmanager
def statements_of(engine):
    """Collect the statements of a block, as (statement, number of parameter sets)."""
    seen = []

    def note(conn, cursor, statement, parameters, context, executemany):
        seen.append((statement.split()[0], len(parameters) if executemany else 1))

    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


def test_every_kind_of_outcome_arrives(recorder, database_store, clock):
    recorder.record_start(Job("1", "t", {"token": "x"}), "w", "c", history_retention="1 day")
    recorder.record_completion("1", "w", "c", 5)
    record(recorder, "2", "failure", ValueError("why"))
    record(recorder, "3", "partial_success", {"failed_steps": ["upload"]})
    recorder.record_execution(
        job_id="4", worker_id="w", correlation_id="c", task_identifier="t", error="x"
    )
    recorder.record_start(Job("5", "t"), "w", "c")
    recorder.flush()

    found = {r.job_id: r for r in database_store.query()}
    assert {job_id: str(r.status) for job_id, r in found.items()} == {
        "1": "completed",
        "2": "failed",
        "3": "partial_success",
        "4": "failed",
        "5": "started",
    }
    assert found["1"].payload == {"token": "[redacted]"}
    assert found["1"].expires_at == clock.now + timedelta(days=1)
    assert (found["2"].error_type, found["2"].error_message) == ("ValueError", "why")
    assert found["3"].failed_steps == ["upload"]
    assert [r.job_id for r in database_store.recent()] == ["1", "2", "3", "4"]
    assert recorder.counts == RecorderCounts(8, 8, 0, 0, 0, 0)


def test_it_has_the_recording_methods_of_a_store_with_the_same_arguments():
    for name in ("start", "completion", "failure", "partial_success", "execution"):
        name = f"record_{name}"
        ours, theirs = (inspect.signature(getattr(each, name)) for each in (Recorder, HistoryStore))
        assert ours.parameters == theirs.parameters, name


def test_executions_are_begun_and_tracked_in_the_background(recorder, database_store):
    older = recorder.begin(Job("1", "t"), "w", "c")
    younger = recorder.begin(Job("1", "t"), "w", "c")
    older.end("why")
    younger.end()
    with recorder.track(Job("2", "t"), "w") as execution:
        execution.partial_success({"failed_steps": ["upload"]})
    assert database_store.query() == []
    recorder.flush()

    found = {record.id: record.status for record in database_store.query(job_id="1")}
    assert found == {older.id: "failed", younger.id: "completed"}
    assert database_store.query(job_id="2")[0].failed_steps == ["upload"]
    assert recorder.counts == RecorderCounts(6, 6, 0, 0, 0, 0)
    assert len(recorder._writer.intake._started) == 0


@pytest.mark.parametrize("is_in_one_batch", [True, False])
def test_progress_is_written_with_the_outcome(recorder, database_store, is_in_one_batch):
    execution = recorder.begin(Job("1", "t"), "w", "c")
    other = recorder.begin(Job("2", "t"), "w", "c")
    if not is_in_one_batch:
        recorder.flush()
    execution.progress(0.2)
    execution.progress(0.25)
    other.end()
    execution.end("why")
    recorder.flush()

    found = {each.job_id: each for each in database_store.query(status=["failed", "completed"])}
    assert (found["1"].progress, found["2"].progress) == (0.25, None)
    assert [each.job_id for each in database_store.recent()] == ["2", "1"]


def test_an_execution_begun_while_the_queue_is_full_is_recorded_at_its_end(database_store, caplog):
    gate = Gate(database_store)
    with Recorder(database_store, queue_size=1, max_delay=0, when_full="raise") as recorder:
        recorder.record_start(Job("1", "t"), "w", "c")
        execution = recorder.begin(Job("2", "t"), "w", "c")
        with pytest.raises(RecorderFull):
            recorder.begin(Job("3", "t"), "w", on_history_error="raise")
        gate.open.set()
        recorder.flush()
        execution.end()
    assert database_store.query(job_id="2")[0].status == "completed"
    assert "not recorded: the start of t: the queue is full" in caplog.text
    assert database_store.query(job_id="3") == []


def test_an_outcome_names_its_execution_by_a_record_or_its_id(recorder, database_store, clock):
    id_ = new_execution_id(clock())
    begun = database_store.record_start(Job("1", "t"), "w", "c")
    recorder.record_start(Job("2", "t"), "w", "c", execution_id=id_)
    recorder.record_completion(begun)
    recorder.record_failure(execution_id=id_, error="why")
    recorder.flush()

    found = {record.id: record.status for record in database_store.query()}
    assert found == {begun.id: "completed", id_: "failed"}
    assert len(recorder._writer.intake._started) == 0


def test_a_start_and_an_outcome_by_id_are_one_insert(recorder, database_store, database, clock):
    ids = [new_execution_id(clock()) for _ in range(20)]
    record(recorder, "first")
    recorder.flush()
    with statements_of(database.engine) as statements, copies() as copied:
        for id_ in ids:
            recorder.record_start(Job("1", "t"), "w", "c", execution_id=id_)
        for id_ in ids:
            recorder.record_completion(execution_id=id_)
        recorder.flush()

    if database.name == "postgresql":
        assert (statements, copied) == ([], [20])
    else:
        assert statements == [("INSERT", 20)]
    assert len(database_store.query(status="completed")) == 21


def test_a_repeated_start_is_one_execution(recorder, database_store, clock):
    id_ = new_execution_id(clock())
    for _ in range(2):
        recorder.record_start(Job("1", "t"), "w", "c", execution_id=id_)
    recorder.flush()
    recorder.record_start(Job("1", "t"), "w", "c", execution_id=id_)
    recorder.record_completion(execution_id=id_)
    recorder.flush()
    recorder.record_start(Job("1", "t"), "w", "c", execution_id=id_)
    recorder.flush()

    assert [each.status for each in database_store.query()] == ["completed"]
    assert recorder.counts.refused == 0


def test_a_start_with_the_id_of_another_job_is_refused(recorder, database_store, clock, caplog):
    id_ = database_store.record_start(Job("1", "t"), "w", "c").id
    recorder.record_start(Job("2", "t"), "w", "c", execution_id=id_)
    recorder.flush()

    assert recorder.counts.refused == 1
    assert "refused: start of job '2': execution_id" in caplog.text
    assert [each.job_id for each in database_store.query()] == ["1"]


def test_nothing_is_in_the_ring_buffer_before_it_is_written(recorder, database_store):
    record(recorder, "1")
    assert database_store.recent() == database_store.query() == []
    assert recorder.counts == RecorderCounts(2, 0, 0, 0, 0, 2)
    recorder.flush()
    assert len(database_store.recent()) == len(database_store.query()) == 1


def test_a_start_and_its_outcome_in_one_batch_are_one_insert(recorder, database):
    record(recorder, "first")  # the first COPY of a connection asks whether it may
    recorder.flush()
    with statements_of(database.engine) as statements, copies() as copied:
        for number in range(20):
            record(recorder, number)
        recorder.flush()

    if database.name == "postgresql":
        assert (statements, copied) == ([], [20])
    else:
        assert statements == [("INSERT", 20)]


@contextmanager
def copies():
    """Collect the number of rows of each COPY in a block."""
    counted, original = [], pg_copy.copy_rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pg_copy,
            "copy_rows",
            lambda connection, rows, options: (
                counted.append(len(rows)) or original(connection, rows, options)
            ),
        )
        yield counted


def test_outcomes_of_an_earlier_batch_are_one_statement(recorder, database, database_store):
    for number in range(20):
        recorder.record_start(Job(number, "t"), *IDS[1:])
    recorder.flush()
    with statements_of(database.engine) as statements:
        for number in range(20):
            if number % 2:
                recorder.record_completion(number, *IDS[1:], number)
            else:
                recorder.record_failure(number, *IDS[1:], number, "x")
        recorder.flush()

    assert statements == [("UPDATE", 20)]
    assert {r.job_id: r.execution_time_ms for r in database_store.query()} == {
        str(number): number for number in range(20)
    }
    assert [r.job_id for r in database_store.recent()] == [str(number) for number in range(20)]
    assert all(r.task_identifier == "t" for r in database_store.recent())


def test_a_batch_is_written_when_it_is_full(database_store):
    with Recorder(database_store, batch_size=10, max_delay=3600) as recorder:
        written = threading.Event()
        original = database_store._history.write

        def write(batch, *, may_exist, **named):
            result = original(batch, may_exist=may_exist, **named)
            written.set()
            return result

        database_store._history.write = write
        for number in range(5):
            record(recorder, number)
        assert written.wait(10)
    assert len(database_store.query()) == 5


def test_a_batch_is_written_when_it_is_old_enough(database_store):
    recorder = Recorder(database_store, max_delay=0.01)
    seen = threading.Event()
    database_store._ring.extend, original = (
        lambda rows: original(rows) or seen.set(),
        database_store._ring.extend,
    )
    record(recorder, "1")
    assert seen.wait(10)
    recorder.close()


def test_twins_end_each_once(recorder, database_store):
    """Three executions have the same ids, in one batch and in several."""
    for _ in range(2):
        recorder.record_start(Job(*IDS[:1], "t"), *IDS[1:])
    recorder.record_completion(*IDS, 1)
    recorder.flush()
    recorder.record_start(Job(*IDS[:1], "t"), *IDS[1:])
    recorder.record_failure(*IDS, 2, "x")
    recorder.record_completion(*IDS, 3)
    recorder.flush()

    assert sorted(r.execution_time_ms for r in database_store.query()) == [1, 2, 3]
    assert len(database_store.recent()) == 3


def test_what_others_started_can_be_ended(recorder, database_store):
    database_store.record_start(Job("1", "t"), *IDS[1:])
    recorder.record_completion("1", *IDS[1:], 5)
    recorder.flush()

    assert [r.status for r in database_store.query()] == [Status.COMPLETED]
    assert [r.job_id for r in database_store.recent()] == ["1"]


def test_more_starts_than_are_remembered_end_all_the_same(monkeypatch, recorder, database_store):
    recorder._writer.intake._started._most = 3
    for number in range(10):
        recorder.record_start(Job(number, "t"), *IDS[1:])
    recorder.flush()
    assert len(recorder._writer.intake._started) == 3
    for number in range(10):
        recorder.record_completion(number, *IDS[1:], number)
    recorder.flush()

    assert {r.status for r in database_store.query()} == {Status.COMPLETED}
    assert len(recorder._writer.intake._started) == 0
    assert len(database_store.recent()) == 10


def test_an_outcome_that_history_refuses_is_logged_and_counted(
    recorder, database_store, clock, caplog
):
    recorder.record_start(Job("reaped", "t"), *IDS[1:])
    recorder.record_start(Job("good", "t"), *IDS[1:])
    recorder.flush()
    clock.advance(hours=3)
    database_store.reap_lost("2h", task_identifier="t", batch_size=10)
    recorder.record_start(Job("good", "t"), *IDS[1:])
    recorder.record_completion("reaped", *IDS[1:], 1)
    recorder.record_completion("good", *IDS[1:], 1)
    recorder.record_completion("unknown", *IDS[1:], 1)
    recorder.flush()

    counts = recorder.counts
    assert (counts.accepted, counts.written, counts.refused, counts.waiting) == (6, 5, 1, 0)
    assert [r.levelno for r in caplog.records] == [logging.ERROR]
    assert "outcome completed of job 'unknown'" in caplog.text
    assert [r.status for r in database_store.get_by_job_id("reaped")] == ["completed"]
    assert [r.status for r in database_store.get_by_job_id("good")] == ["completed", "failed"]


def test_a_value_that_the_database_refuses_holds_up_nothing(
    recorder, database, database_store, caplog
):
    store = database_store
    with database.engine.begin() as connection:
        if database.name == "sqlite":
            connection.execute(
                text(
                    "CREATE TRIGGER refuse BEFORE INSERT ON job_history WHEN NEW.job_id = '7' "
                    "BEGIN SELECT RAISE(ABORT, 'not seven'); END"
                )
            )
        else:
            connection.execute(
                text("ALTER TABLE job_history ADD CONSTRAINT refuse CHECK (job_id <> '7')")
            )
    try:
        for number in range(10):
            record(recorder, number)
        recorder.flush()
    finally:
        with database.engine.begin() as connection:
            if database.name == "postgresql":
                connection.execute(text("ALTER TABLE job_history DROP CONSTRAINT refuse"))

    assert sorted(int(r.job_id) for r in store.query(status="completed")) == [
        number for number in range(10) if number != 7
    ]
    assert recorder.counts.refused == 2
    assert "execution of job '7'" in caplog.text
    assert len(store.recent()) == 9


ENDED = {"task_identifier": "t", "worker_id": "worker-1", "correlation_id": "request-1"}


def test_a_whole_execution_ends_the_start_that_history_has(database_store, recorder, caplog):
    """A repeated one changes nothing, as with `record_execution`."""
    started = database_store.record_start(Job("1", "t", "mine"), *IDS[1:])
    for _ in range(2):
        recorder.record_execution(ENDED, job_id="1", status="completed", id=started.id)
        recorder.flush()
        database_store._rows.clock.advance(seconds=1)
    (record,) = database_store.query()
    assert (record.id, record.status, record.payload) == (started.id, "completed", "mine")
    assert [r.id for r in database_store.recent()] == [started.id]
    assert (recorder.counts.written, recorder.counts.refused, caplog.messages) == (2, 0, [])


def test_one_id_for_two_executions_in_one_batch_is_refused(database_store, recorder, caplog):
    ids = [new_execution_id(database_store._rows.now()) for _ in range(2)]
    recorder.record_execution(ENDED, job_id="mine", status="completed", id=ids[0])
    recorder.record_execution(ENDED, job_id="other", status="completed", id=ids[0])
    recorder.record_execution(ENDED, job_id="twice", status="completed", id=ids[1])
    recorder.record_execution(ENDED, job_id="twice", error="no stock", id=ids[1])
    recorder.flush()
    records = database_store.query(status="completed")
    assert (
        sorted(r.job_id for r in records)
        == ["mine", "twice"]
        == sorted(r.job_id for r in database_store.recent())
    )
    assert (recorder.counts.written, recorder.counts.refused) == (2, 2)
    assert "refused: outcome completed of job 'other'" in caplog.text
    assert "refused: outcome failed of job 'twice'" in caplog.text


@pytest.mark.parametrize("is_reaped", [False, True])
def test_a_replayed_start_changes_nothing(database_store, clock, is_reaped):
    row = database_store._rows.started(Job("1", "t"), *IDS[1:], None)
    database_store._history.write(Batch.of([row], database_store._rows.retention), may_exist=False)
    if is_reaped:
        clock.advance(hours=1)
        database_store.reap_lost("1s")
    (before,) = database_store.query()
    database_store._history.write(Batch.of([row], database_store._rows.retention), may_exist=True)
    (after,) = database_store.query()
    assert values_of(after) == values_of(before)


@pytest.mark.parametrize("refusal", ["trigger", "own sqlstate", "policy", "index"])
def test_one_row_that_postgresql_refuses_holds_up_nothing(postgres_database, caplog, refusal):
    """The driver does not report some refusals as errors of data or integrity."""
    statements = {
        "trigger": [
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF NEW.job_id = '7' THEN RAISE EXCEPTION 'not seven'; END IF; "
            "RETURN NEW; END $$",
            "CREATE TRIGGER refuse BEFORE INSERT ON job_history "
            "FOR EACH ROW EXECUTE FUNCTION refuse()",
        ],
        "policy": [
            "ALTER TABLE job_history ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY refuse ON job_history USING (true) WITH CHECK (job_id <> '7')",
            "CREATE ROLE refused_seven",
            "GRANT SELECT, INSERT, UPDATE ON job_history TO refused_seven",
        ],
        "index": ["CREATE INDEX refuse ON job_history ((payload ->> 'text'))"],
    }
    statements["own sqlstate"] = [
        each.replace("'not seven'", "'not seven' USING ERRCODE = '45000'")
        for each in statements["trigger"]
    ]
    undo = {
        "own sqlstate": ["DROP FUNCTION refuse CASCADE"],
        "trigger": ["DROP FUNCTION refuse CASCADE"],
        "policy": [
            "DROP POLICY refuse ON job_history",
            "ALTER TABLE job_history DISABLE ROW LEVEL SECURITY",
            "DROP OWNED BY refused_seven",
            "DROP ROLE refused_seven",
        ],
        "index": ["DROP INDEX refuse"],
    }
    options = {"options": "-c role=refused_seven"} if refusal == "policy" else {}
    with postgres_database.engine.begin() as connection:
        for statement in statements[refusal]:
            connection.execute(text(statement))
    engine = create_engine(postgres_database.url.update_query_dict(options))
    try:
        with Recorder(create_store(engine, redact=None), max_delay=0.2) as recorder:
            for number in range(10):
                too_large = {"text": random.Random(7).randbytes(6000).hex()}
                payload = too_large if refusal == "index" and number == 7 else None
                recorder.record_start(Job(number, "t", payload), *IDS[1:])
            recorder.flush(30)
    finally:
        engine.dispose()
        with postgres_database.engine.begin() as connection:
            for statement in undo[refusal]:
                connection.execute(text(statement))

    records = create_store(postgres_database.engine).query()
    assert sorted(int(r.job_id) for r in records) == [n for n in range(10) if n != 7]
    assert (recorder.counts.written, recorder.counts.refused) == (9, 1)
    assert "refused: execution of job '7'" in caplog.text


def test_what_the_role_may_not_do_is_tried_again(postgres_database):
    """A missing grant has the same sqlstate as row-level security, but someone may grant it."""
    with postgres_database.engine.begin() as connection:
        connection.execute(text("CREATE ROLE without_grants"))
    role, granted = {"options": "-c role=without_grants"}, "SELECT, INSERT, UPDATE"
    engine = create_engine(postgres_database.url.update_query_dict(role))
    try:
        with Recorder(create_store(engine), max_delay=0) as recorder:
            recorder.record_start(Job("1", "t"), *IDS[1:])
            with pytest.raises(NotWritten):
                recorder.flush(0.3)
            assert recorder.counts.refused == 0
            with postgres_database.engine.begin() as connection:
                connection.execute(text(f"GRANT {granted} ON job_history TO without_grants"))
            recorder.flush(30)
    finally:
        engine.dispose()
        with postgres_database.engine.begin() as connection:
            connection.execute(text("DROP OWNED BY without_grants"))
            connection.execute(text("DROP ROLE without_grants"))
    assert (recorder.counts.written, recorder.counts.refused) == (1, 0)


def test_a_missing_partition_is_waited_for(postgres_database):
    """PostgreSQL reports it like a row that a constraint refuses."""
    engine = postgres_database.engine
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA parts"))
        connection.execute(
            text(
                "CREATE TABLE parts.job_history (LIKE public.job_history, PRIMARY KEY (id)) "
                "PARTITION BY RANGE (id)"
            )
        )
    try:
        with Recorder(create_store(engine, schema="parts"), max_delay=0) as recorder:
            recorder.record_start(Job("1", "t"), *IDS[1:])
            with pytest.raises(NotWritten):
                recorder.flush(0.3)
            with engine.begin() as connection:
                connection.execute(
                    text("CREATE TABLE parts.leaf PARTITION OF parts.job_history DEFAULT")
                )
            recorder.flush(30)
            assert (recorder.counts.written, recorder.counts.refused) == (1, 0)
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA parts CASCADE"))


def test_arguments_are_checked_at_once_and_taken_as_they_are(recorder, database_store):
    with pytest.raises(InvalidInput, match=r"job\.id"):
        recorder.record_start({}, "w", "c")
    with pytest.raises(InvalidInput, match="execution_time_ms"):
        recorder.record_completion("1", "w", "c", -1)
    payload = [1]
    recorder.record_start(Job("1", "t", payload), "w", "c")
    payload.append("later")
    recorder.flush()

    assert database_store.query()[0].payload == [1]
    assert recorder.counts.accepted == 1


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"queue_size": "many"}, "queue_size 'many'"),
        ({"max_delay": -1}, "max_delay -1"),
        ({"max_delay": "1s"}, "max_delay '1s'"),
        ({"when_full": "drop"}, "when_full 'drop'"),
        ({"batch_bytes": 0}, "batch_bytes 0"),
        ({"queue_bytes": 0.5}, "queue_bytes 0.5"),
        ({"spool": "/dev/null/spool.db"}, "spool '/dev/null/spool.db'"),
    ],
)
def test_options_are_checked(option, says):
    with pytest.raises(InvalidInput, match=says):
        Recorder(create_store(), **option)
    with pytest.raises(InvalidInput, match="store"):
        Recorder(create_async_store())


def test_a_file_that_is_no_spool_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database" * 100)
    with pytest.raises(InvalidInput, match="spool"):
        Recorder(create_store(), spool=tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text().startswith("not a database")


def test_a_full_recorder_raises_if_told_to(database_store):
    gate = Gate(database_store)
    recorder = Recorder(database_store, batch_size=1, queue_size=4, max_delay=0, when_full="raise")
    recorder.record_start(Job("in hand", "t"), *IDS[1:])
    gate.wait_for_tries(1)
    for number in range(3):
        recorder.record_start(Job(number, "t"), *IDS[1:])
    with pytest.raises(RecorderFull, match=r"4 operations .* wait") as caught:
        recorder.record_start(Job("too many", "t"), *IDS[1:])

    assert isinstance(caught.value, queue.Full)
    assert recorder.counts.accepted == recorder.counts.waiting == 4
    gate.open.set()
    recorder.close()
    assert len(database_store.query()) == 4
    assert recorder.counts == RecorderCounts(4, 4, 0, 0, 0, 0)


def test_a_full_recorder_blocks_otherwise_until_there_is_room(database_store):
    gate = Gate(database_store)
    recorder = Recorder(database_store, batch_size=1, queue_size=2, max_delay=0)
    recorder.record_start(Job("in hand", "t"), *IDS[1:])
    gate.wait_for_tries(1)
    recorder.record_start(Job("queued", "t"), *IDS[1:])
    waiting = threading.Thread(target=recorder.record_start, args=(Job("late", "t"), *IDS[1:]))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    assert recorder.counts.accepted == 2
    gate.open.set()
    waiting.join()
    recorder.close()
    assert len(database_store.query()) == 3


def test_who_waits_for_room_hears_that_the_recorder_is_closed(database_store):
    gate = Gate(database_store)
    recorder = Recorder(database_store, batch_size=1, queue_size=2, max_delay=0)
    recorder.record_start(Job("in hand", "t"), *IDS[1:])
    gate.wait_for_tries(1)
    recorder.record_start(Job("queued", "t"), *IDS[1:])
    told = []

    def start_late():
        try:
            recorder.record_start(Job("late", "t"), *IDS[1:])
        except RecorderClosed as error:
            told.append(error)

    waiting = threading.Thread(target=start_late)
    waiting.start()
    waiting.join(0.05)
    closing = threading.Thread(target=recorder.close)
    closing.start()
    waiting.join()
    gate.open.set()
    closing.join()
    assert len(told) == 1
    assert len(database_store.query()) == 2


def test_flush_gives_up_in_time_and_nothing_is_lost(database_store):
    gate = Gate(database_store)
    recorder = Recorder(database_store, max_delay=0)
    record(recorder, "1")
    with pytest.raises(NotWritten, match="2 operations are not written") as caught:
        recorder.flush(timeout=0.01)
    assert isinstance(caught.value, TimeoutError)
    gate.open.set()
    recorder.flush()
    assert len(database_store.query()) == 1
    recorder.close()


def test_what_fails_is_tried_again_until_it_works(database_store, caplog):
    gate = Gate(database_store)
    gate.error = ConnectionError("the database is away")
    gate.open.set()
    recorder = Recorder(database_store, max_delay=0)
    record(recorder, "1")
    gate.wait_for_tries(3)
    with pytest.raises(NotWritten, match="because: the database is away"):
        recorder.flush(timeout=0.01)
    gate.error = None
    recorder.flush()

    assert recorder.counts.retried >= 2
    assert len(database_store.query()) == len(database_store.recent()) == 1
    assert caplog.messages == ["history cannot be written; retrying: the database is away"]
    recorder.close()


def test_closing_says_what_is_lost_without_a_spool(database_store):
    gate = Gate(database_store)
    gate.error = ConnectionError("the database is away")
    gate.open.set()
    recorder = Recorder(database_store, max_delay=0)
    record(recorder, "1")
    with pytest.raises(NotWritten, match=r"2 operations .* the database is away"):
        recorder.close(timeout=0.3)
    recorder.close()
    with pytest.raises(RecorderClosed):
        recorder.record_start(Job("2", "t"), "w", "c")


def test_a_spool_keeps_what_cannot_be_written_for_the_next_recorder(
    database_store, clock, tmp_path
):
    spool = tmp_path / "spool.db"
    database_store.record_start(Job("others", "t"), *IDS[1:])
    gate = Gate(database_store)
    with Recorder(database_store, spool=spool, max_delay=0) as first:
        first.record_start(Job("early", "t", {"n": [1, None]}), *IDS[1:])
        gate.open.set()
        first.flush()
        gate.error = ConnectionError("away")
        clock.advance(seconds=1)
        first.record_completion("early", *IDS[1:], 5)
        gate.wait_for_tries(2)
        record(first, "whole", "failure", ValueError("why"))
        first.record_completion("others", *IDS[1:], 7)
        first.record_start(Job("only started", "t"), *IDS[1:])
    assert spool.exists()
    assert first.counts.spooled == 5
    assert first.counts.waiting == 0

    gate.error = None
    with Recorder(database_store, spool=spool) as second:
        assert second.counts.accepted == 0
        second.record_start(Job("new", "t"), *IDS[1:])
        second.flush()
        assert second.counts == RecorderCounts(1, 6, 0, 0, 0, 0)
    assert not spool.exists()

    found = {r.job_id: r for r in database_store.query()}
    assert {job_id: str(r.status) for job_id, r in found.items()} == {
        "early": "completed",
        "whole": "failed",
        "others": "completed",
        "only started": "started",
        "new": "started",
    }
    assert found["early"].completed_at == clock.now
    assert found["early"].payload == {"n": [1, None]}
    assert found["whole"].error_message == "why"
    assert len(database_store.recent()) == 3


def test_a_replay_of_what_had_got_through_changes_nothing(database_store, clock, tmp_path):
    """If the answer to a commit is lost, the whole batch is retried, and matched by key, too."""
    database_store.record_start(Job("others", "t"), *IDS[1:])
    database_store.record_start(Job("others", "t"), *IDS[1:])
    original = database_store._history.write
    lose = [True]

    def commit(transaction, batch, may_exist):
        recorder_batch.write(transaction, batch, may_exist=may_exist)
        transaction.ended.clear()  # the ring buffer learns nothing, as nobody knows of the commit

    def write(batch, *, may_exist, **named):
        if lose:
            database_store._history.run(Purpose.RECORD_MANY, lambda t: commit(t, batch, may_exist))
            raise ConnectionError("the answer got lost")
        return original(batch, may_exist=may_exist, **named)

    with Recorder(database_store, spool=tmp_path / "spool.db", max_delay=3600) as recorder:
        recorder.record_start(Job("early", "t"), *IDS[1:])
        recorder.flush()
        database_store._history.write = write
        recorder.record_completion("early", *IDS[1:], 5)
        recorder.record_completion("others", *IDS[1:], 7)
        record(recorder, "whole")
    lose.clear()
    with Recorder(database_store, spool=tmp_path / "spool.db") as recorder:
        recorder.flush()
        assert recorder.counts.written == 4
        assert recorder.counts.refused == 0

    statuses = sorted((r.job_id, str(r.status)) for r in database_store.query())
    assert statuses == [
        ("early", "completed"),
        ("others", "completed"),
        ("others", "started"),
        ("whole", "completed"),
    ]
    assert sorted(r.job_id for r in database_store.recent()) == ["early", "others", "whole"]


def test_a_replay_that_comes_after_the_reaper_replaces_its_outcome(database_store, clock, tmp_path):
    """The start is committed, its answer is lost, and then its worker is presumed lost."""
    spool = tmp_path / "spool.db"
    original = database_store._history.write

    def write(batch, *, may_exist, **named):
        original(Batch([row | STARTED for row in batch.rows]), may_exist=may_exist)
        raise ConnectionError("the answer got lost")

    database_store._history.write = write
    with Recorder(database_store, spool=spool, max_delay=3600) as recorder:
        record(recorder, "reaped")
    database_store._history.write = original
    clock.advance(hours=3)
    assert database_store.reap_lost("2h") == 1
    with Recorder(database_store, spool=spool) as recorder:
        record(recorder, "good")
        recorder.flush()
        assert recorder.counts == RecorderCounts(2, 4, 0, 0, 0, 0)

    assert [r.status for r in database_store.get_by_job_id("reaped")] == ["completed"]
    assert [(r.job_id, str(r.status)) for r in database_store.recent()] == [
        ("reaped", "failed"),
        ("reaped", "completed"),
        ("good", "completed"),
    ]


STARTED = {"status": Status.STARTED, "completed_at": None, "execution_time_ms": None}


def test_a_spool_in_use_gets_a_sibling_and_the_next_one_takes_both(database_store, tmp_path):
    spool = tmp_path / "spool.db"
    gate = Gate(database_store)
    gate.error = ConnectionError("away")
    gate.open.set()
    recorders = [Recorder(database_store, spool=spool, max_delay=0) for _ in range(3)]
    for number, recorder in enumerate(recorders):
        record(recorder, number)
    for recorder in recorders:
        recorder.close()
    assert sorted(file.name for file in tmp_path.glob("spool*")) == [
        "spool.db",
        "spool.db.2",
        "spool.db.3",
    ]

    gate.error = None
    with Recorder(database_store, spool=spool) as recorder:
        recorder.flush()
    assert sorted(r.job_id for r in database_store.query(status="completed")) == ["0", "1", "2"]
    assert list(tmp_path.glob("spool*")) == []


def test_memory_stays_empty_while_the_spool_takes_what_comes(database_store, tmp_path):
    gate = Gate(database_store)
    gate.error = ConnectionError("away")
    gate.open.set()
    with Recorder(
        database_store, spool=tmp_path / "spool.db", queue_size=10, batch_size=10, max_delay=0
    ) as recorder:
        for number in range(200):
            recorder.record_start(Job(number, "t"), *IDS[1:])
        assert recorder.counts.accepted == 200
        gate.error = None
        recorder.flush()
    assert len(database_store.query(limit=None)) == 200


def test_a_spool_that_cannot_be_written_costs_nothing_but_memory(database_store, tmp_path, caplog):
    gate = Gate(database_store)
    gate.error = ConnectionError("away")
    gate.open.set()
    with Recorder(database_store, spool=tmp_path / "spool.db", max_delay=0) as recorder:

        def fail(_):
            raise sqlite3.OperationalError("database or disk is full")

        recorder._writer._spool.append = fail
        record(recorder, "1")
        gate.wait_for_tries(3)
        gate.error = None
        recorder.flush()
    assert "disk is full" in caplog.text
    assert len(database_store.query(status="completed")) == 1


def test_a_memory_store_has_one_too(clock):
    store = create_store(clock=clock)
    with Recorder(store) as recorder:
        record(recorder, "1")
        recorder.record_start(Job("2", "t"), *IDS[1:])
        recorder.flush()
        recorder.record_completion("2", *IDS[1:], 1)
        recorder.record_completion("3", *IDS[1:], 1)
    assert recorder.counts == RecorderCounts(5, 4, 1, 0, 0, 0)
    assert [r.job_id for r in store.recent()] == ["1", "2"]


AT_EXIT = """
import sys
from sqlalchemy import create_engine
from jobhistory import *
recorder = Recorder(create_store(create_engine(sys.argv[1])), max_delay=3600)
recorder.record_start(Job("1", "t"), "w", "c")
recorder.record_completion("1", "w", "c", 5)
{}
"""


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise ValueError"])
def test_the_end_of_the_process_writes_what_is_left(database, end):
    url = database.url.render_as_string(hide_password=False)
    subprocess.run(
        [sys.executable, "-c", AT_EXIT.format(end), url], timeout=60, capture_output=True
    )
    assert [r.status for r in create_store(database.engine).query()] == [Status.COMPLETED]


def test_the_end_of_a_process_says_what_it_lost():
    script = AT_EXIT.format("jobhistory._runtime.at_exit.AT_EXIT_SECONDS = 0.1")
    script = script.replace("import sys", "import sys, jobhistory")
    result = subprocess.run(
        [sys.executable, "-c", script, "postgresql://app:hunter2@127.0.0.1:1/app"],
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert "at the end of the process, 2 operations are not written" in result.stderr
    assert "hunter2" not in result.stderr


def _record_in_child(recorder, job_id):
    record(recorder, job_id)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_a_recorder_of_its_own(database_store, tmp_path):
    recorder = Recorder(database_store, max_delay=3600, spool=tmp_path / "spool.db")
    record(recorder, "parent")
    context = multiprocessing.get_context("fork")
    children = [
        context.Process(target=_record_in_child, args=(recorder, f"child-{number}"))
        for number in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0

    written = database_store.query(status="completed")
    assert sorted(r.job_id for r in written) == ["child-0", "child-1", "child-2"]
    assert recorder.counts.waiting == 2
    recorder.close()
    assert len(database_store.query(status="completed")) == 4
    assert [r.job_id for r in database_store.recent()] == ["parent"]
    assert list(tmp_path.glob("spool*")) == []


def test_a_child_that_finds_a_spool_flushes_its_own_operations_too(database_store, tmp_path):
    """A child opens its spool later than its parent, possibly after it accepted operations."""
    spool = tmp_path / "spool.db"
    recorder = Recorder(database_store, spool=spool)
    gate = Gate(database_store)
    gate.error = ConnectionError("away")
    gate.open.set()
    with Recorder(database_store, spool=spool, max_delay=0) as other:
        for number in range(20):
            record(other, f"left-{number}")
    gate.error = None

    recorder._writer._options = replace(recorder._writer._options, batch_size=5)
    recorder._writer.reset_after_fork()  # as in a child; the parent's lock stays
    record(recorder, "own")
    recorder.flush()

    assert len(database_store.query(status="completed", limit=None)) == 21
    assert database_store.get_by_job_id("own") != []
    assert recorder.counts == RecorderCounts(2, 42, 0, 0, 0, 0)
    recorder.close()


def test_many_threads_share_a_recorder(database_store):
    with Recorder(database_store, batch_size=50, queue_size=100) as recorder:

        def work(thread):
            for number in range(100):
                record(recorder, f"{thread}-{number}")

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        recorder.flush()
        assert recorder.counts == RecorderCounts(1600, 1600, 0, 0, 0, 0)
    assert len({r.job_id for r in database_store.query(status="completed", limit=None)}) == 800
    assert len({r.id for r in database_store.recent()}) == 800
