"""A store that is used in a process and in the children that it forks."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
import traceback

import pytest
from sqlalchemy import Delete, StaticPool, Update, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from jobhistory import (
    AsyncHistoryStore,
    HistoryRecord,
    HistoryStore,
    Job,
    Recorder,
    Status,
    create_async_store,
    create_store,
    migrate,
)
from tests.conftest import async_engine

# Python 3.12 warns of what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

CHILDREN = 4
ROUNDS = 5

fork = multiprocessing.get_context("fork")


def in_children(work):
    """Call it in several forked children at once, each with its number; return what they return."""
    results = fork.SimpleQueue()

    def run(number):
        try:
            results.put(work(number))
        except BaseException:
            results.put(traceback.format_exc())

    children = [fork.Process(target=run, args=(number,)) for number in range(CHILDREN)]
    for child in children:
        child.start()
    returned = [results.get() for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert [each for each in returned if isinstance(each, str)] == []
    return returned


def record(store, prefix):
    for number in range(ROUNDS):
        ids = (f"{prefix}-{number}", "worker", "forks")
        store.record_start(Job(ids[0], "t"), *ids[1:])
        store.record_completion(*ids, number)
    return [r.job_id for r in store.recent()]


@pytest.mark.parametrize("bind", ["url", "engine", "factory"])
def test_children_share_no_connection_and_have_ring_buffers_of_their_own(database, bind):
    url = database.url
    engine = create_engine(url)
    store = create_store({"url": url, "engine": engine, "factory": sessionmaker(engine)}[bind])
    used = store._owned_engine or engine
    connections = []
    event.listen(used, "checkout", lambda connection, *_: connections.append(connection))

    def backends():
        if database.name != "postgresql":
            return [id(connection) for connection in connections]
        return [connection.info.backend_pid for connection in connections]

    record(store, "before")
    parents = set(backends())
    connections.clear()

    def work(number):
        assert store.recent() == []
        recent = record(store, f"child-{number}")
        # On SQLite: none of the parent's objects, which live on in the child's memory.
        assert parents.isdisjoint(backends())
        return recent, set(backends()) if database.name == "postgresql" else set()

    children = in_children(work)
    in_parent = record(store, "after")

    assert in_parent == [f"{when}-{n}" for when in ("before", "after") for n in range(ROUNDS)]
    assert set(backends()) == parents, "the parent keeps its connection"
    for recent, _ in children:
        assert len({job_id.rpartition("-")[0] for job_id in recent}) == 1
        assert len(recent) == ROUNDS
    pids = [pid for _, own in children for pid in own]
    assert len(pids) == len(set(pids))
    records = store.query(limit=None)
    assert len(records) == (CHILDREN + 2) * ROUNDS
    assert {r.status for r in records} == {Status.COMPLETED}
    store.close()
    engine.dispose()


def used(engine):
    """The engine, with a connection in its pool, as `migrate.upgrade` or the app would leave it."""
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    return engine


class Routing(Session):
    """Chooses between two engines that no sessionmaker knows."""

    leader = follower = None

    def get_bind(self, mapper=None, clause=None):
        is_write = self._flushing or isinstance(clause, Update | Delete)
        return self.leader if is_write else self.follower


UNUSED = {
    "engine": create_store,
    "sessionmaker": lambda engine: create_store(sessionmaker(engine)),
    "binds": lambda engine: create_store(sessionmaker(binds={HistoryRecord: engine})),
    "configured later": lambda engine: _configured_later(engine),
    "callable": lambda engine: HistoryStore(lambda: Session(engine)),
    "options": lambda engine: HistoryStore(lambda: Session(engine.execution_options(a=1))),
    "routing": lambda engine: create_store(sessionmaker(class_=Routing)),
}


def _configured_later(engine):
    sessions = sessionmaker()
    store = create_store(sessions)
    sessions.configure(bind=engine)
    return store


@pytest.mark.parametrize("kind", UNUSED)
@pytest.mark.parametrize("how", ["os.fork", "multiprocessing"])
def test_a_store_that_was_not_used_before_the_fork(database, how, kind, monkeypatch):
    engine = used(create_engine(database.url))
    follower = used(create_engine(database.url))
    monkeypatch.setattr(Routing, "leader", engine)
    monkeypatch.setattr(Routing, "follower", follower)
    store = UNUSED[kind](engine)
    parents, inherited = set(), []

    def names(connection):
        return connection.info.backend_pid if database.name == "postgresql" else id(connection)

    for each in (engine, follower):
        with each.connect() as connection:
            parents.add(names(connection.connection.driver_connection))
        event.listen(each, "checkout", lambda c, *_: names(c) in parents and inherited.append(c))

    def work(number):
        record(store, f"child-{number}")
        # Each question may be the first that this child asks another engine.
        assert len(store.get_by_job_id(f"child-{number}-0")) == 1
        assert len(store.get_by_job_id(f"child-{number}-1")) == 1
        assert inherited == [], "a child used a connection of its parent"
        count = engine.pool.checkedin()
        assert count == 1, "the child's second call used the connection of the first"

    if how == "os.fork":
        for number in range(CHILDREN):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    work(number)
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
    else:
        in_children(work)
    record(store, "parent")
    records = store.query(limit=None)
    assert len(records) == (CHILDREN + 1) * ROUNDS
    assert {r.status for r in records} == {Status.COMPLETED}
    assert inherited, "the parent kept its connections"
    engine.dispose()
    follower.dispose()


@pytest.mark.parametrize("kind", ["engine", "sessionmaker", "callable"])
def test_a_store_for_asyncio_that_was_not_used_before_the_fork(database, kind):
    async def scenario(store, prefix):
        for number in range(ROUNDS):
            ids = (f"{prefix}-{number}", "worker", "forks")
            await store.record_start(Job(ids[0], "t"), *ids[1:])
            await store.record_completion(*ids, number)
        return len(store.recent())

    async def use(engine):
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    loop = asyncio.new_event_loop()
    with async_engine(database, loop.run_until_complete) as engine:
        loop.run_until_complete(use(engine))
        store = {
            "engine": create_async_store,
            "sessionmaker": lambda engine: create_async_store(async_sessionmaker(engine)),
            "callable": lambda engine: AsyncHistoryStore(lambda: AsyncSession(engine)),
        }[kind](engine)
        children = in_children(lambda number: asyncio.run(scenario(store, f"child-{number}")))
        loop.run_until_complete(scenario(store, "parent"))
        assert children == [ROUNDS] * CHILDREN
        assert engine.pool.checkedin() == 1
        records = loop.run_until_complete(store.query(limit=None))
        assert len(records) == (CHILDREN + 1) * ROUNDS
    loop.close()


def test_two_stores_on_one_engine_take_it_over_from_the_parent_once(database):
    engine = used(create_engine(database.url))
    stores = [HistoryStore(lambda: Session(engine)) for _ in range(2)]

    def work(number):
        record(stores[0], f"first-{number}")
        pool = engine.pool
        record(stores[1], f"second-{number}")
        assert engine.pool is pool, "or the connections in it would be lost"

    in_children(work)
    engine.dispose()


def test_a_fork_in_the_middle_of_work_harms_neither_side(postgres_database):
    """Threads of the parent record while it forks, and hold locks and connections.

    Not on SQLite, whose library keeps locks of its own, which a child would inherit for ever.
    """
    store = create_store(postgres_database.engine, buffer_size=100_000)
    stopping = threading.Event()
    recorded = []

    def work(thread):
        count = 0
        while not stopping.is_set():
            count += 1
            ids = (f"parent-{thread}-{count}", "worker", "forks")
            store.record_start(Job(ids[0], "t"), *ids[1:])
            store.record_completion(*ids, count)
            recorded.append(ids[0])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(3):
            in_children(lambda number, round_=round_: record(store, f"child-{round_}-{number}"))
    finally:
        stopping.set()
        for thread in threads:
            thread.join()

    records = store.query(limit=None)
    assert len(records) == len(recorded) + 3 * CHILDREN * ROUNDS
    assert {r.status for r in records} == {Status.COMPLETED}
    assert sorted(r.job_id for r in store.recent()) == sorted(recorded)


def test_workers_of_a_server_that_loaded_the_app_first(database):
    """As a preloading server does it: fork, work, exit; nothing of the parent's runs in between."""
    store = create_store(database.engine)
    record(store, "preload")
    for number in range(CHILDREN):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                record(store, f"worker-{number}")
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
    record(store, "still")
    assert len(store.query(limit=None)) == (CHILDREN + 2) * ROUNDS


def test_a_store_for_asyncio_may_be_made_before_the_fork(database):
    async def scenario(store, prefix):
        for number in range(ROUNDS):
            ids = (f"{prefix}-{number}", "worker", "forks")
            await store.record_start(Job(ids[0], "t"), *ids[1:])
            await store.record_completion(*ids, number)
        return [r.job_id for r in store.recent()]

    # One loop, as an engine's connections belong to the loop in which they were made.
    loop = asyncio.new_event_loop()
    with async_engine(database, loop.run_until_complete) as engine:
        store = create_async_store(engine)
        loop.run_until_complete(scenario(store, "before"))
        children = in_children(lambda number: asyncio.run(scenario(store, f"child-{number}")))
        loop.run_until_complete(scenario(store, "after"))
        assert all(len(recent) == ROUNDS for recent in children)
        records = loop.run_until_complete(store.query(limit=None))
        assert len(records) == (CHILDREN + 2) * ROUNDS
    loop.close()


def test_a_history_in_memory_begins_anew():
    store = create_store()
    store.record_start(Job("parent", "t"), "w", "c")
    record(store, "parent")

    children = in_children(lambda number: (store.query(limit=None), record(store, number)))

    assert all(found == [] and len(recent) == ROUNDS for found, recent in children)
    assert len(store.query(limit=None)) == ROUNDS + 1


def test_a_database_in_memory_goes_along():
    """It is in a pool of one connection, of which the child has a copy of its own."""
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    migrate.upgrade(engine)
    store = create_store(engine)
    record(store, "parent")

    children = in_children(lambda number: (record(store, number), len(store.query(limit=None))))

    assert [count for _, count in children] == [2 * ROUNDS] * CHILDREN
    assert len(store.query(limit=None)) == ROUNDS
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM job_history")) == ROUNDS
    engine.dispose()


def test_a_child_whose_spool_cannot_be_opened_records_all_the_same(database, tmp_path, caplog):
    """Its queue is smaller than what it records, and nobody waits forever."""
    folder = tmp_path / "folder"
    store = create_store(database.engine)
    recorder = Recorder(store, spool=folder / "spool", queue_size=3, max_delay=0)
    recorder.record_start(Job("parent", "t"), "w", "forks")
    recorder.flush(30)
    folder.rename(tmp_path / "moved")
    folder.write_text("no folder any more")

    def work(number):
        for count in range(ROUNDS):
            recorder.record_start(Job(f"child-{number}-{count}", "t"), "w", "forks")
            recorder.record_completion(f"child-{number}-{count}", "w", "forks", count)
        recorder.flush(30)
        recorder.close()
        return recorder.counts.written

    assert in_children(work) == [2 * ROUNDS] * CHILDREN
    assert len(store.query(status="completed", limit=None)) == CHILDREN * ROUNDS
    folder.unlink()
    (tmp_path / "moved").rename(folder)
    recorder.close()
    assert list(folder.iterdir()) == []


FORK_WITH_A_SPOOL = """
import os, sys
from jobhistory import Job, Recorder, create_store

store = create_store()
def away(*args, **named):
    raise ConnectionError("away")
store._history.write = away
recorder = Recorder(store, spool="spool", max_delay=0)
recorder.record_start(Job("parent", "t"), "w", "c")
while not recorder.counts.spooled:
    pass
if os.fork() == 0:
    sys.exit()  # as a child does that ends like any program
os.wait()
print(*sorted(os.listdir()))
"""


def test_a_child_that_ends_leaves_the_journal_of_its_parents_spool(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", FORK_WITH_A_SPOOL], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.stdout.split() == ["spool", "spool-journal"], result.stderr


def test_a_child_may_log_and_report_what_a_thread_of_the_parent_was_reporting():
    """The thread is in the middle of it at the fork, and does not exist in the child."""
    from jobhistory import lifecycle
    from jobhistory._runtime import log_tail

    store = create_store()
    execution = store.begin(Job(1, "t"), "w")
    is_held, may_end = threading.Event(), threading.Event()

    def hold():
        with lifecycle._lock, log_tail._lock:
            is_held.set()
            may_end.wait(60)

    def work(number):
        logging.getLogger("app").warning("in a child")
        execution.progress(0.5)
        execution.end()
        return execution.record.status is Status.COMPLETED

    thread = threading.Thread(target=hold)
    with store.track(Job(2, "t"), "w", log_tail="1 KiB"):
        thread.start()
        assert is_held.wait(10)
        try:
            assert in_children(work) == [True] * CHILDREN
        finally:
            may_end.set()
            thread.join()
