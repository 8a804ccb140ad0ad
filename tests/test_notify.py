"""Notifications of what has started and ended, as PostgreSQL sends them to those who listen."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.util import await_only

from jobhistory import Job, Recorder, create_async_store, create_store, new_execution_id
from jobhistory.database.notifier import MANY, MOST_IDS, Notifier, channel_of, ids_in
from jobhistory.database.own_connection import OwnConnection
from tests.conftest import EVERY_STORE, stores_of_kind
from tests.servers import pgbouncer

POSTGRES_STORES = [
    kind
    for kind in EVERY_STORE
    if "postgresql" in (kind if isinstance(kind, str) else kind.values[0])
]


class Listener:
    """A connection of psycopg that listens."""

    def __init__(self, url, channel="job_history"):
        self.connection = psycopg.connect(
            url.set(drivername="postgresql").render_as_string(hide_password=False), autocommit=True
        )
        self.connection.execute(f'LISTEN "{channel}"')
        self.contents = []

    def hear(self, seconds):
        """Add to `contents` what arrives within some seconds, or at once if something does."""
        heard = self.connection.notifies(timeout=seconds, stop_after=1)
        self.contents += [each.payload for each in heard]

    def ids(self, *expected):
        """Return the ids that have arrived, after waiting for those that are expected."""
        until = time.monotonic() + 10
        while not set(expected) <= (ids := self._ids()) and time.monotonic() < until:
            self.hear(0.2)
        return ids

    def _ids(self):
        return {id_ for content in self.contents for id_ in ids_in(content) or []}


@contextmanager
def listening(database, channel="job_history"):
    url = getattr(database, "url", database)
    listener = Listener(url, channel)
    yield listener
    listener.connection.close()


@pytest.fixture
def listener(postgres_database):
    with listening(postgres_database) as listener:
        yield listener


@pytest.fixture
def store(postgres_database):
    store = create_store(postgres_database.engine, notify=True)
    yield store
    store.close()


@pytest.mark.parametrize("kind", POSTGRES_STORES)
def test_every_kind_of_store_tells_what_starts_and_what_ends(kind, request, clock):
    with stores_of_kind(kind, request, clock) as make:
        where = kind.rpartition("-")[2]
        url = request.getfixturevalue(f"shared_{where}").owner.url
        with listening(url) as listener:
            store = make(notify=True)
            record = store.record_start(Job("job-1", "import"), "w", "c")
            assert listener.ids(record.id) == {record.id}
            listener.contents.clear()
            store.record_completion(record)
            assert listener.ids(record.id) == {record.id}
            store.close()


def test_every_way_to_record_tells(store, listener):
    ended = {"job_id": "1", "task_identifier": "t", "worker_id": "w", "correlation_id": "c"}
    ended |= {"status": "completed", "execution_time_ms": 5}
    whole = store.record_execution(ended)
    many = [new_execution_id() for _ in range(3)]
    store.record_many(ended | {"id": id_} for id_ in many)
    with Recorder(store) as recorder:
        started = recorder.begin(Job("2", "t"), "w").record
        quick = recorder.begin(Job("3", "t"), "w")
        quick.end()
    lost = store.begin(Job("4", "t"), "w").record
    expected = {whole.id, *many, started.id, quick.record.id, lost.id}
    assert listener.ids(*expected) == expected
    listener.contents.clear()
    assert store.reap_lost(timedelta(microseconds=1)) == 2
    assert listener.ids(lost.id) == {lost.id, started.id}


def test_it_is_off_by_default(postgres_database, listener):
    create_store(postgres_database.engine).record_start(Job("1", "t"), "w", "c")
    with create_store(postgres_database.engine, notify=True) as store:
        record = store.record_start(Job("2", "t"), "w", "c")
    assert listener.ids(record.id) == {record.id}


def test_it_tells_after_the_commit_of_the_app_and_nothing_after_a_rollback(
    store, postgres_database, listener
):
    with Session(postgres_database.engine) as session:
        undone = store.in_session(session).record_start(Job("1", "t"), "w", "c")
        session.rollback()
        with session.begin_nested() as savepoint:
            store.in_session(session).record_start(Job("1", "t"), "w", "c")
            savepoint.rollback()
        record = store.in_session(session).record_start(Job("1", "t"), "w", "c")
        listener.hear(0.4)
        assert listener.contents == []
        session.commit()
    assert listener.ids(record.id) == {record.id}
    assert undone.id not in listener.ids()


def test_a_failure_that_survives_a_rollback_is_told(store, postgres_database, listener):
    with Session(postgres_database.engine) as session:
        inside = store.in_session(session)
        record = inside.record_start(Job("1", "t"), "w", "c")
        inside.record_failure(record, error="no")
        session.rollback()
    assert listener.ids(record.id) == {record.id}


def test_the_schema_is_in_the_name_of_the_channel(postgres_database):
    with postgres_database.engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA app"))
        connection.execute(text("CREATE TABLE app.job_history (LIKE public.job_history)"))
    try:
        with (
            listening(postgres_database, "job_history_app") as listener,
            create_store(postgres_database.engine, schema="app", notify=True) as store,
        ):
            record = store.record_start(Job("1", "t"), "w", "c")
            assert listener.ids(record.id) == {record.id}
    finally:
        with postgres_database.engine.begin() as connection:
            connection.execute(text("DROP SCHEMA app CASCADE"))


def test_a_long_schema_gives_a_channel_that_postgresql_accepts():
    assert channel_of(None) == "job_history"
    long, other = channel_of("ä" * 40), channel_of("ä" * 41)
    assert long != other
    assert len(long.encode()) <= 63


class FakeConnection:
    """A connection to which the notifier sends, and a clock that goes on while it waits."""

    def __init__(self):
        self.now = 0.0
        self.sent = []
        self.schema = None
        self.on_wait = lambda: None
        self.error = None

    def clock(self):
        return self.now

    def execute(self, statement, parameters, *, seconds):
        if self.error is not None:
            raise self.error
        self.sent.append((self.now, parameters["content"]))

    def close(self):
        pass

    def wake(self):
        pass

    def wait(self, seconds):
        self.now += min(seconds, 0.01)
        self.on_wait()


@pytest.fixture
def fake(monkeypatch):
    fake = FakeConnection()
    open_ = SimpleNamespace(open=lambda *_: fake)
    monkeypatch.setattr("jobhistory.database.notifier.OwnConnection", open_)
    fake.notifier = Notifier(lambda: (None, {}), clock=fake.clock)
    monkeypatch.setattr(fake.notifier, "_ensure_worker", lambda: None)
    return fake


def test_at_most_four_notifications_are_sent_in_a_second(fake):
    added = []

    def go_on():
        if fake.now < 10:
            added.append(new_execution_id())
            fake.notifier.add(added[-1:])

    fake.on_wait = go_on
    go_on()
    fake.notifier.run(fake)
    assert len(fake.sent) <= 4 * 10 + 1
    assert {id_ for _, content in fake.sent for id_ in ids_in(content)} == set(added)
    assert fake.now > 60, "it ends when it has been idle for a while"


def test_a_notification_is_small_and_says_many_instead(fake):
    ids = [new_execution_id() for _ in range(MOST_IDS)]
    fake.notifier.add(ids)
    fake.notifier.run(fake)
    fake.notifier.add([*ids, new_execution_id()])
    fake.notifier.add(ids)
    fake.notifier.run(fake)
    (_, first), (_, second) = fake.sent
    assert len(first) < 8000
    assert ids_in(first) is not None
    assert second == MANY
    assert ids_in(second) is None


def test_it_retries_with_longer_and_longer_pauses_logs_once_and_then_says_many(fake, caplog):
    fake.error = OSError("no route")
    fake.notifier.add([new_execution_id()])

    def recover():
        if fake.now > 100:
            fake.error = None

    fake.on_wait = recover
    with caplog.at_level(logging.WARNING):
        fake.notifier.run(fake)
    assert [content for _, content in fake.sent] == [MANY]
    (message,) = caplog.messages
    assert "polling" in message
    assert "no route" in message


def test_no_error_of_the_notifier_reaches_a_caller(postgres_database, monkeypatch, caplog):
    store = create_store(postgres_database.engine, notify=True)
    notifier = store.internals.history.notifier
    monkeypatch.setattr(notifier, "_collect", lambda ids: 1 / 0)
    store.record_start(Job("1", "t"), "w", "c")
    store.record_completion("1", "w", "c")
    assert len(caplog.messages) == 1
    assert len(store.recent()) == 1


def test_a_connection_that_is_lost_is_replaced(store, postgres_database, listener):
    first = store.record_start(Job("1", "t"), "w", "c")
    assert listener.ids(first.id) == {first.id}
    with postgres_database.engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE '%pg_notify%' AND pid <> pg_backend_pid()"
            )
        )
    store.record_start(Job("2", "t"), "w", "c")
    until = time.monotonic() + 10
    while MANY not in listener.contents and time.monotonic() < until:
        listener.hear(0.2)
    assert MANY in listener.contents


def test_the_pool_of_the_app_is_as_it_was(postgres_database, listener):
    engine = create_engine(postgres_database.url, pool_size=1, max_overflow=0)
    with create_store(engine, notify=True) as store:
        record = store.record_start(Job("1", "t"), "w", "c")
        listener.ids(record.id)
        store.record_completion(record)
        with engine.connect():
            assert engine.pool.checkedout() == 1
    engine.dispose()


def test_a_pooler_in_transaction_mode_passes_notifications_on(postgres_database, listener):
    try:
        with pgbouncer(postgres_database.url) as url:
            engine = create_engine(
                url, poolclass=NullPool, connect_args={"prepare_threshold": None}
            )
            with create_store(engine, notify=True) as store:
                record = store.record_start(Job("1", "t"), "w", "c")
                assert listener.ids(record.id) == {record.id}
    except LookupError as error:
        pytest.skip(str(error))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_a_notifier_of_its_own(store, listener):
    before = store.record_start(Job("1", "t"), "w", "c")
    assert listener.ids(before.id) == {before.id}
    fork = multiprocessing.get_context("fork")
    ids = fork.SimpleQueue()

    def run():
        ids.put(store.record_start(Job("2", "t"), "w", "c").id)

    child = fork.Process(target=run)
    child.start()
    of_child = ids.get()
    child.join(30)
    assert child.exitcode == 0
    after = store.record_start(Job("3", "t"), "w", "c")
    assert listener.ids(of_child, after.id) == {before.id, of_child, after.id}


EXIT = """
import sys
from jobhistory import Job, Recorder, create_store
store = create_store(sys.argv[1], notify=True)
print(store.record_start(Job("1", "t"), "w", "c").id)
recorder = Recorder(store, max_delay=60)
print(recorder.begin(Job("2", "t"), "w").record.id)
"""


def test_a_process_that_ends_sends_what_waits(postgres_database, listener):
    url = postgres_database.url.render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-c", EXIT, url], capture_output=True, text=True, check=True
    )
    expected = {UUID(line) for line in done.stdout.split()}
    assert listener.ids(*expected) == expected
    assert done.stderr == ""


def test_an_event_loop_that_ends_sends_what_waits(postgres_database, listener):
    async def main():
        store = create_async_store(
            postgres_database.url.render_as_string(hide_password=False), notify=True
        )
        first = await store.record_start(Job("0", "t"), "w", "c")
        await asyncio.to_thread(listener.ids, first.id)  # or the end would interrupt sending it
        record = await store.record_start(Job("1", "t"), "w", "c")
        await store._owned_engine.dispose()  # but the notifier stays open
        return record.id

    id_ = asyncio.run(main())
    assert id_ in listener.ids(id_)


def test_an_event_loop_that_ends_in_the_middle_of_a_notification_sends_that_there_are_many(
    postgres_database, listener, monkeypatch
):
    sending = threading.Event()

    def send(connection, statement, parameters, *, seconds):
        monkeypatch.undo()
        sending.set()
        await_only(asyncio.sleep(60))

    async def main():
        monkeypatch.setattr(OwnConnection, "execute", send)
        store = create_async_store(
            postgres_database.url.render_as_string(hide_password=False), notify=True
        )
        await store.record_start(Job("0", "t"), "w", "c")
        await asyncio.to_thread(sending.wait, 10)
        await store._owned_engine.dispose()

    asyncio.run(main())
    listener.hear(10)
    assert listener.contents == [MANY]


def test_many_threads_record_and_all_is_told(postgres_database, listener):
    ids = set()
    with create_store(sessionmaker(postgres_database.engine), notify=True) as store:

        def work(number):
            for turn in range(5):
                record = store.record_start(Job(f"{number}-{turn}", "t"), "w", "c")
                store.record_completion(record)
                ids.add(record.id)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert listener.ids(*ids) == ids


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_without_postgresql_it_changes_nothing(kind, request, clock):
    with stores_of_kind(kind, request, clock) as make:
        store = make(notify=True)
        threads = threading.active_count()
        store.record_completion(store.record_start(Job("1", "t"), "w", "c"))
        assert threading.active_count() == threads
