"""SQLite on an app's own engine: many writers, one at a time, and none of them fails."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import sessionmaker

from jobhistory import Job, Status, create_async_store, create_store, new_execution_id
from jobhistory.database.deadlines import TimeLimits

THREADS, PROCESSES = 16, 4

ENGINES = ["default", "wal", "autocommit", "savepoint"]


@pytest.fixture
def path(tmp_path, migrated_sqlite):
    path = tmp_path / "app.db"
    path.write_bytes(migrated_sqlite.read_bytes())
    return path


def app_engine(path, kind="default", **connect_args):
    """An engine as an app makes it; the last one by SQLAlchemy's recipe for savepoints."""
    options = {"isolation_level": "AUTOCOMMIT"} if kind == "autocommit" else {}
    engine = create_engine(f"sqlite:///{path}", connect_args=connect_args, **options)
    if kind == "wal":
        event.listen(engine, "connect", lambda c, _: c.execute("PRAGMA journal_mode = WAL").close())
    if kind == "savepoint":
        event.listen(engine, "connect", lambda c, _: setattr(c, "isolation_level", None))
        event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN"))
    return engine


@pytest.fixture
def make_engine(path):
    with ExitStack() as stack:

        def make_engine(kind="default", **connect_args):
            engine = app_engine(path, kind, **connect_args)
            stack.callback(engine.dispose)
            return engine

        yield make_engine


def record(store, writer, count):
    for number in range(count):
        ids = (f"{writer}-{number}", f"worker-{writer}", "busy")
        store.record_start(Job(ids[0], "t", {"n": number}), *ids[1:])
        store.record_completion(*ids, number)


def record_in_threads(store, count):
    errors = []

    def work(thread):
        try:
            record(store, thread, count)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def assert_everything_is_there_once(store, writers, count):
    records = store.query(limit=None)
    assert sorted(r.job_id for r in records) == sorted(
        f"{writer}-{number}" for writer in range(writers) for number in range(count)
    )
    assert {r.status for r in records} == {Status.COMPLETED}
    assert all(r.execution_time_ms == r.payload["n"] for r in records)


@pytest.mark.parametrize("kind", ENGINES)
def test_threads_record_everything_once(make_engine, kind):
    store = create_store(make_engine(kind), buffer_size=10_000)
    record_in_threads(store, 10)
    assert_everything_is_there_once(store, THREADS, 10)
    assert len(store.recent()) == THREADS * 10


def record_in_process(path, kind, writer, count):
    engine = app_engine(path, kind)
    record(create_store(engine), writer, count)
    engine.dispose()


def record_in_processes(path, kind, count):
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=record_in_process, args=(path, kind, n, count))
        for n in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES


@pytest.mark.parametrize(
    "kind", ["default", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ENGINES[1:])]
)
def test_processes_record_everything_once(make_engine, path, kind):
    record_in_processes(path, kind, 25)
    assert_everything_is_there_once(create_store(make_engine(kind)), PROCESSES, 25)


@contextmanager
def busy_machine():
    """A busy loop on each core."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["default", "wal"])
def test_threads_and_processes_record_everything_once_on_a_busy_machine(make_engine, path, kind):
    store = create_store(make_engine(kind))
    with busy_machine():
        record_in_threads(store, 60)
        assert_everything_is_there_once(store, THREADS, 60)
        with store._history._session_factory() as session, session.begin():
            session.connection().exec_driver_sql("DELETE FROM job_history")
        record_in_processes(path, kind, 60)
    assert_everything_is_there_once(store, PROCESSES, 60)


@pytest.mark.parametrize("kind", ENGINES)
def test_writers_of_a_process_are_never_in_each_others_way(make_engine, kind):
    """This engine does not wait at all, so any two that met would be an error, if only to retry."""
    engine = make_engine(kind, timeout=0)
    if kind == "wal":
        engine.connect().close()  # to change the mode is a write of its own
    met = []
    event.listen(engine, "handle_error", lambda context: met.append(context.original_exception))
    record_in_threads(create_store(engine), 5)
    assert met == []


class Lock:
    """Another connection that is writing; by default until it was in the way once."""

    def __init__(self, path, engine):
        self._other = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
        self._connection = self._other.connect()
        self._connection.exec_driver_sql("BEGIN IMMEDIATE")
        self.met = 0
        event.listen(engine, "handle_error", self._note)

    def _note(self, context):
        self.met += 1
        if self.met == self.release_after:
            self.release()

    release_after = 3

    def release(self):
        self._connection.rollback()
        self._connection.close()
        self._other.dispose()


ended = {
    "job_id": "2",
    "worker_id": "w",
    "correlation_id": "c",
    "task_identifier": "t",
    "status": "completed",
}


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize(
    ("write", "rows", "buffered"),
    [
        (lambda store: store.record_start(Job("2", "t"), "w", "c"), 2, 0),
        (lambda store: store.record_completion("1", "w", "c", 1), 1, 1),
        (lambda store: store.record_many([ended, ended | {"job_id": "3"}]), 3, 2),
        (lambda store: store.reap_lost("1h"), 1, 1),
        (lambda store: store.expire(), 0, 0),
    ],
    ids=["start", "completion", "many", "reap", "expire"],
)
def test_a_busy_database_is_tried_again(
    make_engine, path, kind, write, rows, buffered, monkeypatch, clock
):
    monkeypatch.setattr("jobhistory.database.busy._IMPATIENT_MILLISECONDS", 0)
    engine = make_engine(kind, timeout=0)
    store = create_store(engine, clock=clock, history_retention="1h")
    store.record_start(Job("1", "t"), "w", "c")
    clock.advance(hours=2)
    lock = Lock(path, engine)
    write(store)

    assert lock.met == lock.release_after
    assert len(store.query()) == rows
    assert len(store.recent()) == buffered
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 0, "as the app set it"


@pytest.mark.parametrize("kind", ENGINES)
def test_many_rows_are_one_transaction_that_can_be_repeated(make_engine, kind):
    store = create_store(make_engine(kind))
    same = ended | {"id": new_execution_id()}
    with pytest.raises(IntegrityError):
        store.record_many([ended, same, same])
    assert store.query() == []


def test_on_an_event_loop_a_busy_database_is_tried_again(path, monkeypatch):
    monkeypatch.setattr("jobhistory.database.busy._IMPATIENT_MILLISECONDS", 0)

    async def scenario():
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", connect_args={"timeout": 0})
        store = create_async_store(engine)
        lock = Lock(path, engine.sync_engine)
        await store.record_start(Job("1", "t"), "w", "c")
        assert lock.met == lock.release_after
        assert len(await store.query()) == 1
        await engine.dispose()

    asyncio.run(scenario())


def test_a_database_that_stays_busy_is_an_error_in_the_end(make_engine, path):
    engine = make_engine(timeout=0)
    store = create_store(engine)
    store._history.limits = TimeLimits(call=0, busy=0.1)
    lock = Lock(path, engine)
    lock.release_after = None
    for _ in range(2):  # and no reason to give up on the database
        with pytest.raises(OperationalError, match="database is locked"):
            store.record_start(Job("1", "t"), "w", "c")
    assert lock.met > 2
    assert store.query() == []
    lock.release()


def test_a_transaction_of_the_callers_is_not_repeated(make_engine, path):
    engine = make_engine(timeout=0)
    lock = Lock(path, engine)
    with engine.connect() as connection:
        store = create_store(sessionmaker(connection))
        with pytest.raises(OperationalError, match="database is locked"):
            store.record_start(Job("1", "t"), "w", "c")
    assert lock.met == 1
    lock.release()


def test_an_app_that_records_while_a_transaction_of_ours_commits_waits_for_nothing(make_engine):
    """As a listener does that is called within it: the turn is its thread's, and so is the lock."""
    engine = make_engine(timeout=60)
    store = create_store(engine)
    inner = create_store(engine)
    calls = []

    def listener(connection):
        if not calls:
            calls.append(1)
            with pytest.raises(OperationalError, match="database is locked"):
                inner.record_start(Job("inner", "t"), "w", "c")

    inner._history.limits = TimeLimits(busy=600)  # it would wait so long for itself
    event.listen(engine, "commit", listener)
    store.record_start(Job("1", "t"), "w", "c")
    assert [r.job_id for r in store.query()] == ["1"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_while_a_thread_writes_has_turns_of_its_own(make_engine):
    engine = make_engine()
    store = create_store(engine)
    inside, leave = threading.Event(), threading.Event()

    def listener(connection):
        inside.set()
        leave.wait(20)

    event.listen(engine, "begin", listener)
    writer = threading.Thread(target=record, args=(store, "parent", 1))
    writer.start()
    inside.wait(20)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            leave.set()
            store._history.limits = TimeLimits(busy=600)  # it would wait so long for the turn
            record(store, "child", 1)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    leave.set()
    writer.join()
    assert status == 0
    assert {r.job_id for r in store.query()} == {"parent-0", "child-0"}
