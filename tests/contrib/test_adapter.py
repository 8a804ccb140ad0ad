"""What every adapter can rely on, whatever its framework is."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import types
from contextvars import Context
from datetime import UTC, datetime, timedelta
from threading import Thread, Timer
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import sessionmaker

from jobhistory import (
    Cancelled,
    Failure,
    InvalidInput,
    Recorder,
    WorkerLost,
    create_async_store,
    create_store,
    current_execution,
    new_execution_id,
)
from jobhistory.aio import AsyncHistoryStore
from jobhistory.contrib.adapter import Adapter, Attempt, Carried, Options, not_installed

NOW = datetime(2015, 11, 1, 12, tzinfo=UTC)  # where the tests' clock stands
HERE = f"{socket.gethostname()}:{os.getpid()}"


class SoftLimit(Exception):
    """A time limit of an imaginary framework."""


class Revoked(Exception):
    """The same framework's exception for jobs that are stopped."""


def attempt(**values):
    defaults = {"source": object(), "job_id": "job-1", "task_identifier": "resize"}
    return Attempt(**defaults | values)


def adapter_for(store, **options):
    return Adapter(store, options, time_limits=(SoftLimit,), cancellations=(Revoked,))


@pytest.fixture
def store(clock):
    return create_store(clock=clock)


@pytest.fixture
def adapter(store):
    return adapter_for(store)


def begin_elsewhere(adapter, attempt):
    """Begin an attempt in another context, as if in another process, and never end it."""
    return Context().run(adapter.begin, attempt)


def only(store):
    (record,) = store.query()
    return record


def test_an_attempt_is_one_row(adapter, store):
    recording = adapter.begin(
        attempt(
            args=("a.png",),
            kwargs={"width": 10},
            number=3,
            queue="images",
            correlation_id="root-1",
            run_at=NOW - timedelta(seconds=2),
        )
    )
    recording.end()

    record = only(store)
    assert (record.job_id, record.task_identifier, record.attempt_number) == ("job-1", "resize", 3)
    assert record.payload == {"args": ["a.png"], "kwargs": {"width": 10}}
    assert record.payload_is_exact
    assert record.labels == {
        "queue": "images",
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
    }
    assert (record.worker_id, record.correlation_id) == (HERE, "root-1")
    assert (record.status, record.queue_time_ms) == ("completed", 2000)


def test_it_is_the_current_execution_of_the_task(adapter, store):
    recording = adapter.begin(attempt())
    assert current_execution() is recording.execution
    current_execution().partial_success({"failed_steps": ["upload"]})
    recording.end()

    assert current_execution() is None
    assert only(store).status == "partial_success"


def test_a_failure_keeps_its_traceback(adapter, store):
    recording = adapter.begin(attempt())
    try:
        raise ValueError("no file")
    except ValueError as error:
        recording.end(error, will_retry=True)

    record = only(store)
    assert (record.status, record.error_type, record.will_retry) == ("failed", "ValueError", True)
    assert "test_a_failure_keeps_its_traceback" in record.error_stack


def test_whether_a_job_is_retried_may_be_any_truth_value(adapter, store):
    adapter.begin(attempt()).end(ValueError("no"), will_retry=1)

    assert only(store).will_retry is True
    assert current_execution() is None


def test_only_the_first_end_counts(adapter, store, caplog):
    recording = adapter.begin(attempt())
    recording.end()
    recording.end(ValueError("late"))

    assert only(store).status == "completed"
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SoftLimit(), ("failed", "jobhistory.TimedOut", "SoftLimit")),
        (SoftLimit("5 s"), ("failed", "jobhistory.TimedOut", "SoftLimit: 5 s")),
        (Revoked("by ann"), ("cancelled", None, "by ann")),
        (Revoked(), ("cancelled", None, "Revoked")),
        (Cancelled("why"), ("cancelled", None, "why")),
        (Failure("shop.OutOfStock", "none"), ("failed", "shop.OutOfStock", "none")),
        (SystemExit(3), ("failed", "SystemExit", "3")),
    ],
    ids=repr,
)
def test_outcomes_of_the_framework_get_our_names(adapter, store, error, expected):
    adapter.begin(attempt()).end(error)

    record = only(store)
    assert (record.status, record.error_type, record.error_message) == expected


def test_a_time_limit_keeps_the_traceback_of_the_job(adapter, store):
    recording = adapter.begin(attempt())
    try:
        raise SoftLimit
    except SoftLimit as error:
        recording.end(error)

    assert "test_a_time_limit_keeps_the_traceback_of_the_job" in only(store).error_stack


def test_results_are_stored_if_the_user_wants_that(store):
    adapter_for(store).begin(attempt()).end(result=1)
    adapter_for(store, result=True).begin(attempt(job_id="job-2")).end(result={"size": 2})

    assert [record.result for record in store.query()] == [{"size": 2}, None]


def test_options_choose_the_ids_the_payload_and_the_retention(store):
    adapter = adapter_for(
        store,
        worker_id=lambda job: f"worker of {job}",
        correlation_id=lambda job: f"request of {job}",
        payload=lambda job: [job],
        history_retention="1 day",
    )
    adapter.begin(attempt(source="source", worker_id="w", correlation_id="c")).end()

    record = only(store)
    assert record.worker_id == "worker of source"
    assert record.correlation_id == "request of source"
    assert record.payload == ["source"]
    assert record.expires_at - record.started_at == timedelta(days=1)


def test_a_function_of_the_user_that_raises_costs_only_its_value(store, caplog):
    def fail(job):
        raise KeyError("hunter2")

    adapter_for(store, worker_id=fail, correlation_id=fail, payload=fail).begin(attempt()).end()

    record = only(store)
    assert (record.worker_id, record.correlation_id, record.payload) == (HERE, "job-1", None)
    assert caplog.messages == [
        "payload() raised KeyError for a job of resize",
        "worker_id() raised KeyError for a job of resize",
        "correlation_id() raised KeyError for a job of resize",
    ]


@pytest.mark.parametrize("wrong", [1.5, [], "x" * 300, "", None, True], ids=lambda x: repr(x)[:9])
def test_a_function_that_returns_no_id_costs_only_its_value(store, caplog, wrong):
    options = dict.fromkeys(["worker_id", "correlation_id"], lambda job: wrong)
    adapter_for(store, **options).begin(attempt()).end()

    record = only(store)
    assert (record.worker_id, record.correlation_id) == (HERE, "job-1")
    assert len(caplog.messages) == (0 if wrong in ("", None) else 2)
    assert all("returned what is no id" in message for message in caplog.messages)


def test_a_function_may_return_zero_as_an_id(store):
    adapter_for(store, correlation_id=lambda job: 0).begin(attempt()).end()

    assert only(store).correlation_id == "0"


def test_a_time_limit_in_a_function_of_the_user_reaches_the_job(store):
    def wait(job):
        raise SoftLimit

    with pytest.raises(SoftLimit):
        adapter_for(store, payload=wait).begin(attempt())


def test_tasks_are_left_out_on_request(store):
    for options in ({"only": ["mail"]}, {"skip": {"resize"}}):
        adapter = adapter_for(store, **options)
        assert adapter.begin(attempt()) is None
        adapter.record(attempt(), WorkerLost("gone"))
    assert store.query() == []


def test_tasks_may_be_stored_only_if_they_do_not_complete(store):
    options = {"record": {"ping": "failures"}, "heartbeat": "10s"}
    adapter = adapter_for(store, **options)
    for task in ("ping", "resize"):
        adapter.begin(attempt(task_identifier=task)).end()
        adapter.begin(attempt(task_identifier=task)).end("no answer")
        adapter.record(attempt(task_identifier=task), WorkerLost("gone"))
    stored = [(record.task_identifier, str(record.status)) for record in store.recent()]
    assert stored == [
        ("ping", "failed"),
        ("ping", "failed"),
        ("resize", "completed"),
        ("resize", "failed"),
        ("resize", "failed"),
    ]

    adapter_for(store, record="failures").begin(attempt()).end()
    assert len(store.recent()) == 5


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"ony": ["mail"]}, "options"),
        ({"only": "mail"}, "only"),
        ({"only": b"mail"}, "only"),
        ({"skip": 1}, "skip"),
        ({"skipped": "drop"}, "skipped"),
        ({"payload": "yes"}, "payload"),
        ({"result": 1}, "result"),
        ({"end_leftovers": "no"}, "end_leftovers"),
        ({"correlation_id": "one"}, "correlation_id"),
        ({"history_retention": "soon"}, "history_retention"),
        ({"heartbeat": "1 ms"}, "heartbeat"),
        ({"log_tail": "-1"}, "log_tail"),
        ({"worker_id": ""}, "worker_id"),
        ({"record": "some"}, "record"),
        ({"record": {"ping": 2}}, r"record\['ping'\]"),
        ({"record": 0.1, "heartbeat": "10s"}, "heartbeat"),
    ],
    ids=repr,
)
def test_options_are_checked_when_the_adapter_is_made(store, options, argument):
    with pytest.raises(InvalidInput, match=argument):
        adapter_for(store, **options)


def test_something_else_than_a_store_is_refused_at_once():
    for wrong in (None, "sqlite://", 5, create_async_store()):
        with pytest.raises(InvalidInput, match=r"pass create_store\(url\)"):
            adapter_for(wrong)


def test_a_function_makes_the_store_when_it_is_first_needed(store):
    made = []

    def make():
        made.append(1)
        return store

    adapter = adapter_for(make)
    assert made == []
    adapter.begin(attempt()).end()
    adapter.begin(attempt(job_id="job-2")).end()

    assert made == [1]
    assert len(store.query()) == 2


def test_a_store_that_cannot_be_made_is_logged_and_tried_again(store, caplog):
    answers = [OSError("no such host"), store]

    def make():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    adapter = adapter_for(make)
    assert adapter.begin(attempt()) is None
    adapter.begin(attempt(job_id="job-2")).end()

    assert caplog.messages == ["not recorded: the start of resize: no such host"]
    assert only(store).job_id == "job-2"


def test_no_error_of_history_leaves_the_adapter(store, caplog, monkeypatch):
    adapter = adapter_for(store)
    assert adapter.begin(attempt(job_id="")) is None
    adapter.record(attempt(job_id=""), WorkerLost("gone"))
    recording = adapter.begin(attempt())

    def fail(*args, **kwargs):
        raise OperationalError("SELECT 'hunter2'", {}, Exception("no connection"))

    monkeypatch.setattr(store.internals.history, "end", fail)
    recording.end()

    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 3
    assert "no connection" in caplog.text
    assert "hunter2" not in caplog.text


def test_a_time_limit_that_interrupts_the_recording_reaches_the_job(store, monkeypatch):
    def interrupt(*args, **kwargs):
        raise SoftLimit

    adapter = adapter_for(store)
    monkeypatch.setattr(store, "track", interrupt)
    with pytest.raises(SoftLimit):
        adapter.begin(attempt())


@pytest.mark.parametrize("step", ["insert", "end"])
def test_a_time_limit_that_interrupts_a_statement_reaches_the_job(store, monkeypatch, caplog, step):
    """`track` contains errors of history, but this is none."""
    write, calls = getattr(store.internals.history, step), []

    def interrupt(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise SoftLimit("5 s")
        return write(*args, **kwargs)

    adapter = adapter_for(store)
    monkeypatch.setattr(store.internals.history, step, interrupt)
    with pytest.raises(SoftLimit):
        adapter.begin(attempt()).end()

    record = only(store)
    timed_out = ("failed", "jobhistory.TimedOut", "SoftLimit: 5 s")
    expected = timed_out if step == "insert" else ("completed", None, None)
    assert (record.status, record.error_type, record.error_message) == expected
    assert current_execution() is None
    assert caplog.text == ""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no such signals")
@pytest.mark.parametrize("step", ["begin", "end"])
@pytest.mark.parametrize("bind", ["engine", "sessions", "url"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_time_limit_while_the_database_is_busy_reaches_the_job(
    postgres_database, caplog, driver, bind, step
):
    """A signal handler interrupts a statement that waits for a lock."""
    url = postgres_database.url.set(drivername=f"postgresql+{driver}")
    engine = create_engine(url)
    binds = {"engine": engine, "sessions": sessionmaker(engine), "url": url}
    store = create_store(binds[bind])
    adapter = adapter_for(store)
    adapter.begin(attempt(job_id="first")).end()  # so that the engine has a connection
    recording = adapter.begin(attempt()) if step == "end" else None

    def interrupt(*_):
        raise SoftLimit("too long")

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with postgres_database.engine.connect() as other:
            other.execute(text("LOCK TABLE job_history IN ACCESS EXCLUSIVE MODE"))
            release = Timer(1.2, other.rollback)
            release.start()
            with pytest.raises(SoftLimit):  # noqa: PT012
                signal.setitimer(signal.ITIMER_REAL, 0.6)
                adapter.begin(attempt()) if recording is None else recording.end()
            release.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    adapter.begin(attempt(job_id="next")).end()
    statuses = {record.job_id: record.status.value for record in store.query()}
    ended = "completed" if step == "end" else "failed"
    assert statuses == {"first": "completed", "job-1": ended, "next": "completed"}
    assert caplog.text == ""
    store.close()
    engine.dispose()


def test_a_time_limit_that_cannot_be_printed_is_recorded(adapter, store):
    class Unprintable(SoftLimit):
        def __str__(self):
            raise RuntimeError("no text")

    adapter.begin(attempt()).end(Unprintable())

    assert (only(store).error_type, only(store).error_message) == (
        "jobhistory.TimedOut",
        "Unprintable",
    )
    assert current_execution() is None


def test_an_attempt_that_ended_elsewhere_is_recorded_once(adapter, store, clock):
    id_ = new_execution_id(NOW)
    begin_elsewhere(adapter, attempt(execution_id=id_))  # in a child, which is killed
    clock.advance(seconds=5)
    for _ in range(2):
        adapter.record(attempt(execution_id=id_), WorkerLost("signal 9"))

    record = only(store)
    assert (record.id, record.status, record.error_type) == (id_, "failed", "jobhistory.WorkerLost")
    assert record.execution_time_ms == 5000


def test_another_worker_ends_the_newest_execution_of_a_job_as_lost(adapter, store, caplog):
    lost = attempt(worker_id="worker-1")
    begin_elsewhere(adapter, lost)
    begin_elsewhere(adapter, attempt(worker_id="worker-2"))
    for _ in range(2):  # the second one finds nothing, and that is no error
        adapter.record_lost(lost, "abandoned", will_retry=True)

    records = {record.worker_id: record for record in store.query()}
    assert records["worker-1"].error_type == "jobhistory.WorkerLost"
    assert records["worker-1"].will_retry
    assert records["worker-2"].status == "started"
    assert not caplog.records


def test_the_outcome_of_the_child_stays_if_it_was_faster(adapter, store, caplog):
    id_ = new_execution_id(NOW)
    adapter.begin(attempt(execution_id=id_)).end()
    adapter.record(attempt(execution_id=id_), SoftLimit())

    assert only(store).status == "completed"
    assert caplog.text == ""


def test_an_attempt_whose_start_was_lost_is_inserted_whole(adapter, store):
    started_at = NOW - timedelta(seconds=5)
    adapter.record(
        attempt(
            execution_id=new_execution_id(started_at),
            args=(1,),
            run_at=started_at - timedelta(seconds=3),
            carried=Carried(
                traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
        ),
        WorkerLost("signal 9"),
        started_at=started_at,
        will_retry=True,
    )

    record = only(store)
    assert record.payload == {"args": [1], "kwargs": {}}
    assert (record.queue_time_ms, record.will_retry) == (3000, True)
    assert record.execution_time_ms == 5000
    assert record.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"


def test_what_never_began_is_recorded_on_request_only(store):
    adapter_for(store).skip(attempt(), "revoked")
    assert store.query() == []

    adapter_for(store, skipped="record").skip(attempt(), "revoked")
    record = only(store)
    assert (record.status, record.error_message) == ("cancelled", "revoked")


def test_the_retention_is_that_of_the_options_also_for_what_ended_elsewhere(store, clock):
    adapter = adapter_for(store, history_retention="1 day", skipped="record")
    clock.now = datetime.now(UTC)
    started_at = clock.now - timedelta(hours=1)
    adapter.record(attempt(), WorkerLost("gone"), started_at=started_at)
    adapter.skip(attempt(job_id="job-2"), "revoked")

    skipped, lost = store.query()
    assert lost.expires_at == started_at + timedelta(days=1)
    assert abs(skipped.expires_at - skipped.started_at - timedelta(days=1)) < timedelta(minutes=1)


def test_a_job_carries_what_ties_it_to_its_parent(adapter, store):
    parent = adapter.begin(attempt(correlation_id="request-1"))
    header = Carried.now().as_header()
    parent.end()
    adapter.begin(
        attempt(job_id="job-2", correlation_id="job-2", carried=Carried.read(header))
    ).end()

    child, first = store.query()
    assert (child.parent_id, child.correlation_id) == (first.id, "request-1")
    assert child.queue_time_ms == 0  # the tests' clock stands still


def test_a_job_that_is_enqueued_outside_of_executions_carries_its_time():
    assert Carried.now().as_header().keys() == {"enqueued_at"}


def test_a_replay_is_labelled(adapter, store):
    replayed = uuid4()
    adapter.begin(attempt(carried=Carried(correlation_id="c", replay_of=replayed))).end()

    record = only(store)
    assert record.labels["replay_of"] == str(replayed)
    assert record.correlation_id == "c"


def test_the_label_of_a_replay_does_not_count_towards_the_limit(clock):
    store = create_store(clock=clock, labels={f"l{n}": "x" for n in range(13)})
    carried = Carried(replay_of=uuid4())
    adapter_for(store).begin(attempt(queue="images", carried=carried)).end()

    assert len(only(store).labels) == 17


@pytest.mark.parametrize(
    "header",
    [
        None,
        "text",
        [],
        {"parent_id": "x", "replay_of": 5, "enqueued_at": "yesterday", "traceparent": "00-0"},
        {"enqueued_at": "2026-01-01T00:00:00", "correlation_id": ["a"]},
        {"enqueued_at": "0001-01-01T00:00:00+23:59"},
        {"enqueued_at": "9999-12-31T23:59:59-23:59"},
        {"other": 1},
    ],
    ids=repr,
)
def test_a_header_that_makes_no_sense_is_ignored(header):
    assert Carried.read(header) == Carried()


def test_a_header_is_read_as_it_was_written():
    carried = Carried(
        enqueued_at=NOW,
        parent_id=uuid4(),
        correlation_id="request-1",
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        replay_of=uuid4(),
    )
    assert Carried.read(carried.as_header()) == carried


def test_a_carried_correlation_id_that_is_too_long_is_ignored(adapter, store):
    adapter.begin(attempt(carried=Carried.read({"correlation_id": "x" * 300}))).end()

    assert only(store).correlation_id == "job-1"


def test_a_long_queue_name_is_cut(adapter, store):
    adapter.begin(attempt(queue="q" * 300)).end()

    assert only(store).labels["queue"] == "q" * 255


def test_a_worker_ends_what_its_previous_process_left(store):
    adapter = adapter_for(store)
    begin_elsewhere(adapter, attempt(worker_id="worker-1"))
    begin_elsewhere(adapter, attempt(job_id="job-2", worker_id="worker-2"))
    adapter.end_leftovers("worker-1")
    adapter.leftovers.join()

    by_worker = {record.worker_id: record for record in store.query()}
    assert by_worker["worker-1"].error_type == "jobhistory.WorkerLost"
    assert by_worker["worker-2"].status == "started"


def test_without_names_a_worker_ends_what_dead_processes_of_its_host_left(store):
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
    os.waitpid(child, 0)
    alive, host = os.getppid(), socket.gethostname()
    ids = {
        f"{host}:{child}": "jobhistory.WorkerLost",
        HERE: "jobhistory.WorkerLost",  # an earlier process had the same id
        f"{host}:{alive}": None,
        f"{host}:x": None,
        f"other-{host}:{child}": None,
    }
    adapter = adapter_for(store)
    for number, worker_id in enumerate(ids):
        begin_elsewhere(adapter, attempt(job_id=number, worker_id=worker_id))
    adapter.end_leftovers()
    adapter.leftovers.join()

    assert {record.worker_id: record.error_type for record in store.query()} == ids


def test_a_worker_does_not_end_what_its_own_process_runs_for_another_app():
    store = create_store()
    begin_elsewhere(adapter_for(store), attempt())
    other = adapter_for(store)
    other.end_leftovers()
    other.leftovers.join()

    assert only(store).status == "started"


def test_an_impossible_process_id_does_not_keep_the_others(store, caplog):
    adapter, host = adapter_for(store), socket.gethostname()
    for number in range(2):
        worker_id = f"{host}:{10 ** (20 * number) * (2**31 - 1)}"
        begin_elsewhere(adapter, attempt(job_id=number, worker_id=worker_id))
    adapter.end_leftovers()
    adapter.leftovers.join()

    assert {record.error_type for record in store.query()} == {"jobhistory.WorkerLost"}
    assert caplog.messages == ["2 executions of a previous process were lost"]


def test_leftovers_stay_on_request(store):
    for options in ({"end_leftovers": False}, {"worker_id": lambda job: "w"}):
        adapter = adapter_for(store, **options)
        adapter.end_leftovers("worker-1")
        assert adapter.leftovers is None


def test_a_worker_starts_even_if_leftovers_cannot_be_ended(store, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise OSError("no connection")

    monkeypatch.setattr(store, "reap_lost", fail)
    adapter = adapter_for(store)
    adapter.end_leftovers("worker-1")
    adapter.leftovers.join()

    assert caplog.messages == [
        "executions of a previous process may have no outcome: no connection"
    ]


def test_a_recorder_is_flushed_when_the_process_ends(store):
    with Recorder(store, max_delay=60) as recorder:
        adapter = adapter_for(recorder)
        adapter.begin(attempt(worker_id="worker-1")).end()
        adapter.end_leftovers("worker-1")  # reads and writes through the store of the recorder
        adapter.leftovers.join()
        adapter.close()
        assert only(store).status == "completed"


def test_a_store_that_the_adapter_has_made_is_closed(tmp_path):
    closed = []
    store = create_store(f"sqlite:///{tmp_path}/history.db")
    store.close = lambda: closed.append(store)

    adapter_for(store).close()
    assert closed == []

    for make in (lambda: store, lambda: Recorder(store)):
        adapter = adapter_for(make)
        adapter.close()  # never used
        assert closed == []
        assert adapter.store
        adapter.close()
        assert closed == [store]
        closed.clear()


def test_after_close_the_adapter_makes_another_store_when_it_is_needed(store):
    adapter = adapter_for(lambda: Recorder(store))
    adapter.begin(attempt()).end()
    adapter.close()
    adapter.begin(attempt(job_id="job-2")).end()
    adapter.close()

    assert {record.job_id for record in store.query()} == {"job-1", "job-2"}


def test_threads_make_one_store_between_them(store):
    made = []

    def make():
        made.append(1)
        return store

    adapter = adapter_for(make)
    threads = [Thread(target=lambda n=n: adapter.begin(attempt(job_id=n)).end()) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert made == [1]
    assert {record.status for record in store.query()} == {"completed"}


@pytest.mark.parametrize("kind", ["sync", "async", "made"])
def test_asyncio_takes_either_kind_of_store(clock, kind):
    async def record():
        store = create_store(clock=clock) if kind == "sync" else create_async_store(clock=clock)
        adapter = Adapter(
            (lambda: store) if kind == "made" else store, Options(skipped="record"), is_async=True
        )
        recording = await adapter.begin_async(attempt())
        assert current_execution() is recording.execution
        await recording.end_async(ValueError("no"))
        await adapter.record_async(attempt(job_id="job-2"), WorkerLost("gone"))
        await adapter.skip_async(attempt(job_id="job-3"), "revoked")
        await adapter.begin_async(attempt(job_id="job-4", worker_id="worker-1"))
        assert await adapter.begin_async(attempt(job_id="")) is None
        adapter.end_leftovers("worker-1")
        if isinstance(adapter.leftovers, Thread):
            await asyncio.to_thread(adapter.leftovers.join)
        else:
            await adapter.leftovers
        await adapter.close_async()
        records = store.query()
        return await records if isinstance(store, AsyncHistoryStore) else records

    found = {r.job_id: (r.status.value, r.error_type) for r in asyncio.run(record())}
    lost = ("failed", "jobhistory.WorkerLost")
    assert found == {
        "job-1": ("failed", "ValueError"),
        "job-2": lost,
        "job-3": ("cancelled", None),
        "job-4": lost,
    }


def test_the_span_of_the_worker_comes_before_the_carried_one(adapter, store, monkeypatch):
    carried = Carried(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    adapter.begin(attempt(carried=carried)).end()
    context = types.SimpleNamespace(trace_id=1, span_id=2)
    span = types.SimpleNamespace(get_span_context=lambda: context)
    telemetry = types.SimpleNamespace(get_current_span=lambda: span)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", telemetry)
    adapter.begin(attempt(job_id="job-2", carried=carried)).end()

    own, carried_one = store.query()
    assert own.trace_id == f"{1:032x}"
    assert carried_one.span_id == "00f067aa0ba902b7"


def test_a_missing_framework_is_named_with_what_to_install():
    error = not_installed("celery", ImportError("No module named 'celery'", name="celery"))

    assert str(error) == (
        "jobhistory.contrib.celery needs a package that is not installed (No module named "
        "'celery'); install it with: pip install 'jobhistory[celery]'"
    )


def test_a_retry_that_runs_after_the_job_has_left_is_not_its_child(adapter, store):
    first = adapter.begin(attempt())
    first.leave()
    assert current_execution() is None
    second = adapter.begin(attempt(number=2))
    second.end()
    first.end(LookupError("x"), will_retry=True)

    records = store.query()
    assert [each.parent_id for each in records] == [None, None]
    assert {each.status.value for each in records} == {"completed", "failed"}
    assert current_execution() is None


def test_a_store_for_asyncio_is_closed_after_the_leftovers_have_ended():
    made = []

    def make():
        made.append(create_async_store())
        return made[-1]

    async def run():
        adapter = Adapter(make, {}, is_async=True)
        adapter.end_leftovers()
        await adapter.close_async()
        return adapter.leftovers.done()

    assert asyncio.run(run())
