"""The server dies in the middle of recording, and comes back."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import psutil
import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as SQLAlchemyTimeout

from jobhistory import (
    ExecutionNotFound,
    HistoryUnavailable,
    Job,
    NotWritten,
    Recorder,
    Status,
    create_store,
    migrate,
)
from jobhistory.database.circuit_breaker import CircuitBreaker
from tests.servers import kill, start_again, wheel_server

THREADS = 4


class Recorders:
    """Threads that record one execution after the other, and note what they were told."""

    def __init__(self, store):
        self.store = store
        self.confirmed = set()
        self.unconfirmed = set()
        self.errors = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._work, args=(n,)) for n in range(THREADS)]

    def _work(self, thread):
        count = 0
        while not self.stopping.is_set():
            count += 1
            ids = (f"{thread}-{count}", f"worker-{thread}", "outage")
            try:
                self.store.record_start(Job(ids[0], "t"), *ids[1:])
                self.store.record_completion(*ids, count)
                self.confirmed.add(ids[0])
            except Exception as error:
                self.errors.append(error)
                self.unconfirmed.add(ids[0])

    def start(self):
        for thread in self.threads:
            thread.start()

    def wait_until(self, condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "the recorders got stuck"
            time.sleep(0.005)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture
def server():
    try:
        with wheel_server() as handle:
            yield handle
    except LookupError as error:
        pytest.skip(f"there is no server that may be killed: {error}")


@pytest.mark.slow
@pytest.mark.parametrize("bind", ["url", "engine"])
def test_the_server_is_killed_and_started_again(server, bind):
    url = server.get_uri()
    engine = create_engine(url, pool_pre_ping=True)
    migrate.upgrade(engine)
    store = create_store(url if bind == "url" else engine, buffer_size=100_000)
    # On a busy machine, a restart may last longer than a call waits.
    store._history.breaker = CircuitBreaker(pause=0.1)
    recorders = Recorders(store)
    recorders.start()
    recorders.wait_until(lambda: len(recorders.confirmed) >= 200)
    kill(server)
    recorders.wait_until(lambda: len(recorders.errors) >= THREADS)
    before = len(recorders.confirmed)
    start_again(server)
    recorders.wait_until(lambda: len(recorders.confirmed) >= before + 200)
    recorders.stop()

    expected = (DBAPIError, SQLAlchemyTimeout, HistoryUnavailable)
    assert [error for error in recorders.errors if not isinstance(error, expected)] == []
    records = store.query(limit=None)
    completed = {r.job_id for r in records if r.status is Status.COMPLETED}
    assert recorders.confirmed <= completed
    assert completed <= recorders.confirmed | recorders.unconfirmed
    for record in records:
        assert (record.completed_at is None) == (record.status is Status.STARTED)
        assert (record.execution_time_ms is None) == (record.status is Status.STARTED)
    buffered = [r.job_id for r in store.recent()]
    assert len(buffered) == len(set(buffered))
    assert set(buffered) == recorders.confirmed, "the ring buffer holds what was confirmed"

    # What was committed although its answer got lost can be asked for again.
    for job_id in recorders.unconfirmed & completed:
        thread = job_id.partition("-")[0]
        store.record_completion(job_id, f"worker-{thread}", "outage", 0)
    assert engine.pool.checkedout() == 0
    store.close()
    engine.dispose()


@pytest.mark.parametrize("bind", ["url", "engine"])
def test_sessions_that_the_server_ends_are_replaced(postgres_database, bind):
    engine = create_engine(postgres_database.url, pool_pre_ping=True)
    store = create_store(postgres_database.url if bind == "url" else engine)
    store.record_start(Job("1", "t"), "w", "c")
    with postgres_database.engine.connect() as other:
        other.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
        count = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        while other.scalar(count) > 1:  # to tell them to end is not to have seen them end
            other.rollback()
    assert store.record_completion("1", "w", "c", 1).status is Status.COMPLETED
    store.close()
    engine.dispose()


def test_a_connection_is_tested_by_a_round_trip_only_after_a_pause(postgres_database, monkeypatch):
    pings = []
    with create_store(postgres_database.url) as store:
        ping = store._owned_engine.dialect.do_ping
        monkeypatch.setattr(
            store._owned_engine.dialect, "do_ping", lambda c: pings.append(c) or ping(c)
        )
        for _ in range(3):
            store.query()
        assert pings == []
        monkeypatch.setattr("jobhistory.database.engines._IDLE_SECONDS", 0)
        store.query()
        assert len(pings) == 1


def test_a_transaction_that_cannot_commit_leaves_no_trace(database):
    """Commit itself fails: neither history nor the ring buffer has the outcome."""
    store = create_store(database.engine)
    store.record_start(Job("1", "t"), "w", "c")

    def fail(connection):
        raise ConnectionError("the commit got lost")

    event.listen(database.engine, "commit", fail)
    with pytest.raises(ConnectionError):
        store.record_completion("1", "w", "c", 1)
    event.remove(database.engine, "commit", fail)

    assert store.recent() == []
    assert store.get_by_job_id("1")[0].status is Status.STARTED
    assert store.record_completion("1", "w", "c", 1).status is Status.COMPLETED
    with pytest.raises(ExecutionNotFound):
        store.record_completion("2", "w", "c", 1)
    assert len(store.recent()) == 1


WRITERS = 8
KILLS = 5


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_recorder_survives_five_kills_of_the_server(server):
    """Everything that eight threads handed over is there once, with the right outcome."""
    url = server.get_uri()
    engine = create_engine(url)
    migrate.upgrade(engine)
    store = create_store(url, buffer_size=1_000_000)
    recorder = Recorder(store, batch_size=100, max_delay=0.01, queue_size=2_000)
    stopping = threading.Event()
    expected = [{} for _ in range(WRITERS)]

    def write(thread):
        count = 0
        while not stopping.is_set():
            count += 1
            ids = (f"{thread}-{count}", f"worker-{thread}", "outage")
            recorder.record_start(Job(ids[0], "t", {"count": count}), *ids[1:])
            if count % 3 == 0:
                recorder.record_failure(*ids, count, f"error {count}")
            elif count % 7:  # the others do not end
                recorder.record_completion(*ids, count)
            expected[thread][ids[0]] = ("failed", "started", "completed")[
                0 if count % 3 == 0 else 2 if count % 7 else 1
            ]
            if count % 50 == 0:
                stopping.wait(0.02)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    for _ in range(KILLS):
        wait_for(lambda enough=recorder.counts.written + 500: recorder.counts.written >= enough)
        retried = recorder.counts.retried
        kill(server)
        wait_for(lambda retried=retried: recorder.counts.retried > retried)
        start_again(server)
    wait_for(lambda enough=recorder.counts.written + 500: recorder.counts.written >= enough)
    stopping.set()
    for thread in threads:
        thread.join()
    recorder.flush(60)

    counts = recorder.counts
    assert counts.written == counts.accepted
    assert (counts.refused, counts.waiting) == (0, 0)
    assert counts.retried >= KILLS
    records = store.query(limit=None)
    everything = {job_id: status for each in expected for job_id, status in each.items()}
    assert len(records) == len(everything), "each is there once"
    assert {r.job_id: str(r.status) for r in records} == everything
    for record in records:
        count = int(record.job_id.partition("-")[2])
        assert record.payload == {"count": count}
        assert record.execution_time_ms == (None if record.status == "started" else count)
        assert record.error_message == (f"error {count}" if record.status == "failed" else None)
    buffered = [r.id for r in store.recent()]
    assert len(buffered) == len(set(buffered))
    assert set(buffered) == {r.id for r in records if r.status != "started"}
    recorder.close()
    store.close()
    engine.dispose()


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "nothing moves"
        time.sleep(0.005)


WRITER = """
import sys
from jobhistory import Job, Recorder, create_store
url, spool = sys.argv[1:]
recorder = Recorder(create_store(url), batch_size=20, max_delay=0.01, spool=spool)
count = 0
while True:
    for _ in range(50):
        count += 1
        recorder.record_start(Job(count, "t", {"count": count}), "w", "c")
        recorder.record_completion(count, "w", "c", count)
    try:
        recorder.flush(0.5)
        print("flushed", count, flush=True)
    except TimeoutError:
        counts = recorder.counts
        if counts.waiting == 0:
            print("spooled", count, flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_writer_that_is_killed_leaves_what_it_flushed_and_its_spool(server, tmp_path):
    url = server.get_uri()
    engine = create_engine(url)
    migrate.upgrade(engine)
    spool = tmp_path / "spool.db"
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, url, str(spool)], stdout=subprocess.PIPE, text=True
    )
    try:
        flushed = read_until(writer, "flushed", 200)
        kill(server)
        spooled = read_until(writer, "spooled", 1)
    finally:
        writer.kill()
        rest, _ = writer.communicate()
    for line in rest.splitlines():
        what, count = line.split()
        spooled = max(spooled, int(count)) if what == "spooled" else spooled
    start_again(server)

    store = create_store(url)
    before = {int(r.job_id) for r in store.query(status="completed", limit=None)}
    assert set(range(1, flushed + 1)) <= before, "what flush() confirmed is there"
    with Recorder(store, spool=spool) as recorder:
        replayed = recorder.counts.spooled + recorder.counts.written
        recorder.flush(60)
    assert replayed > 0
    records = store.query(limit=None)
    by_job = {int(r.job_id): r for r in records}
    assert len(by_job) == len(records), "each is there once"
    assert set(range(1, spooled + 1)) <= by_job.keys(), "and what it had put into the spool"
    for count in range(1, spooled + 1):
        assert (by_job[count].status, by_job[count].execution_time_ms) == ("completed", count)
        assert by_job[count].payload == {"count": count}
    assert not spool.exists()
    store.close()
    engine.dispose()


def test_a_frozen_server_keeps_nobody_and_nothing_is_lost(server, tmp_path):
    """It is stopped in the middle of a batch, answers nothing, and then goes on."""
    url = server.get_uri()
    engine = create_engine(url)
    migrate.upgrade(engine)
    store = create_store(url)
    recorder = Recorder(store, batch_size=20, max_delay=0.01, spool=tmp_path / "spool")

    def write(first, last):
        for count in range(first, last):
            recorder.record_start(Job(count, "t", {"count": count}), "w", "c")
            recorder.record_completion(count, "w", "c", count)

    write(0, 500)
    recorder.flush(30)
    frozen = frozen_processes(server)
    try:
        write(500, 1000)
        begun = time.monotonic()
        with pytest.raises(NotWritten):
            recorder.flush(0.1)
        recorder.close(0.1)
        assert time.monotonic() - begun < 10
        assert recorder.counts.waiting == 0
        assert recorder.counts.spooled > 0
    finally:
        for process in reversed(frozen):
            process.resume()
    with Recorder(store, spool=tmp_path / "spool") as second:
        second.flush(60)
        assert second.counts.refused == 0

    records = store.query(limit=None)
    assert {r.job_id: r.execution_time_ms for r in records} == {
        str(count): count for count in range(1000)
    }
    assert len(records) == 1000
    assert {r.status for r in records} == {Status.COMPLETED}
    assert list(tmp_path.iterdir()) == []
    store.close()
    engine.dispose()


def frozen_processes(server):
    """All processes of a server, which do not run until they are resumed."""
    main = psutil.Process(server.get_pid())
    processes = [main, *main.children(recursive=True)]
    for process in processes:
        process.suspend()
    return processes


def read_until(writer, what, least):
    """The count of the first line that says so much of what is looked for."""
    for line in writer.stdout:
        said, count = line.split()
        if said == what and int(count) >= least:
            return int(count)
    raise AssertionError("the writer has ended")
