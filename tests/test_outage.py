"""The server dies in the middle of recording, and comes back."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError

from jobhistory import ExecutionNotFound, Job, Status, create_store, migrate
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


@pytest.mark.parametrize("bind", ["url", "engine"])
def test_the_server_is_killed_and_started_again(server, bind):
    url = server.get_uri()
    engine = create_engine(url, pool_pre_ping=True)
    migrate.upgrade(engine)
    store = create_store(url if bind == "url" else engine, buffer_size=100_000)
    recorders = Recorders(store)
    recorders.start()
    recorders.wait_until(lambda: len(recorders.confirmed) >= 200)
    kill(server)
    recorders.wait_until(lambda: len(recorders.errors) >= THREADS)
    before = len(recorders.confirmed)
    start_again(server)
    recorders.wait_until(lambda: len(recorders.confirmed) >= before + 200)
    recorders.stop()

    assert all(isinstance(error, DBAPIError) for error in recorders.errors)
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
    assert store.record_completion("1", "w", "c", 1).status is Status.COMPLETED
    store.close()
    engine.dispose()


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
