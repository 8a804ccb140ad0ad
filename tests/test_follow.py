"""Following a history: each start and each end comes once, whatever happens to the connections."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import NullPool, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from jobhistory import (
    HistoryUnavailable,
    InvalidInput,
    Job,
    create_async_store,
    create_store,
    migrate,
    new_execution_id,
)
from jobhistory.following import feeds, seen
from jobhistory.following import follower as follower_module
from tests.conftest import async_engine, stores_of_kind
from tests.servers import frozen, kill, pgbouncer, start_again, wheel_server

SOON = 0.02
KINDS = [
    *("memory", "sqlite", "postgresql", "url-postgresql", "postgresql_by_psycopg2"),
    *("async-memory", "async-sqlite", "async-postgresql", "async-postgresql_by_asyncpg"),
]


class Awaited:
    """An asynchronous iterator whose items a thread takes."""

    def __init__(self, follow, loop):
        self._follow = follow
        self._loop = loop

    def __next__(self):
        try:
            return self._loop.run(_next(self._follow))
        except LookupError:
            raise StopIteration from None

    def __iter__(self):
        return self

    def close(self):
        self._loop.run(self._follow.close())


async def _next(follow):
    try:
        return await anext(follow)
    except StopAsyncIteration:
        raise LookupError from None


class Followable:
    """A store, and a method that follows it from now on and yields records to a thread."""

    def __init__(self, store, loop):
        self.store = store
        self._loop = loop
        self._opened = []

    def follow(self, *args, **named):
        named = {"interval": timedelta(seconds=SOON)} | named
        if self._loop is None:
            follow = self.store.follow(*args, **named)
        else:
            follow = self._loop.run(self._begun(*args, **named))
        self._opened.append(follow)
        return follow

    async def _begun(self, *args, **named):
        follow = self.store._store.follow(*args, **named)
        return Awaited(await follow.__aenter__(), self._loop)

    def close(self):
        for follow in self._opened:
            follow.close()
        self.store.close()


@contextmanager
def followable(kind, request, clock, **options):
    with stores_of_kind(kind, request, clock) as make:
        loop = request.getfixturevalue("event_loop_thread") if "async" in kind else None
        made = Followable(make(**options), loop)
        yield made
        made.close()


@pytest.fixture(params=KINDS)
def history(request, clock):
    """Every kind of store that can be followed; it only polls."""
    with followable(request.param, request, clock) as made:
        yield made


@pytest.fixture(params=KINDS)
def telling(request, clock):
    """The same, with notifications where there are any."""
    with followable(request.param, request, clock, notify=True) as made:
        yield made


def take(follow, number):
    return [(each.job_id, each.status.value) for each in (next(follow) for _ in range(number))]


def start(store, job_id, task="t", **named):
    return store.record_start(Job(job_id, task), "w", "c", **named)


def whole(store, job_id, **fields):
    ids = {"job_id": job_id, "task_identifier": "t", "worker_id": "w", "correlation_id": "c"}
    return store.record_execution(ids | {"status": "completed", "execution_time_ms": 5} | fields)


def test_each_start_and_each_end_comes_once(history):
    store = history.store
    start(store, "before")
    follow = history.follow()
    first = start(store, "1")
    assert take(follow, 1) == [("1", "started")]
    start(store, "2")
    assert take(follow, 1) == [("2", "started")]
    store.record_completion(first)
    assert take(follow, 1) == [("1", "completed")]
    store.record_failure("2", "w", "c", 5, "no")
    assert take(follow, 1) == [("2", "failed")]
    whole(store, "3")
    assert take(follow, 1) == [("3", "completed")]


def test_what_ran_before_is_seen_to_end(history, clock):
    running = start(history.store, "1")
    clock.advance(hours=5)
    follow = history.follow()
    clock.advance(hours=5)
    history.store.record_completion(running)
    assert take(follow, 1) == [("1", "completed")]


def test_what_starts_and_ends_between_two_looks_comes_once_with_its_outcome(history):
    follow = history.follow()
    store = history.store
    store.record_completion(start(store, "1"))
    start(store, "2")
    found = take(follow, 2)
    assert ("2", "started") in found
    assert found.count(("1", "completed")) <= 1


def test_within_a_look_the_earliest_change_comes_first(history, clock):
    begun = clock.now
    follow = history.follow()
    executions = [
        {
            "id": new_execution_id(begun),
            "job_id": str(number),
            "task_identifier": "t",
            "worker_id": "w",
            "correlation_id": "c",
            "status": "completed",
            "started_at": begun,
            "completed_at": begun + timedelta(seconds=number),
        }
        for number in (5, 3, 4, 1, 2)
    ]
    history.store.record_many(executions)
    assert [job_id for job_id, _ in take(follow, 5)] == ["1", "2", "3", "4", "5"]


def test_criteria_choose_by_the_start_and_by_the_outcome(history):
    store = history.store
    failed = history.follow(status="failed", task_identifier="a")
    every_a = history.follow({"task_identifier": "a"})
    start(store, "1", "b")
    one, two = start(store, "2", "a"), start(store, "3", "a")
    store.record_failure("1", "w", "c", 1, "no")
    store.record_completion(one)
    store.record_failure(two, error="no")
    assert take(failed, 1) == [("3", "failed")]
    found = take(every_a, 2)
    while len(found) < 4 and ("3", "failed") not in found:
        found += take(every_a, 1)
    assert {job_id for job_id, _ in found} == {"2", "3"}


def test_it_begins_with_the_last_ones_and_repeats_none(history, clock):
    store = history.store
    for number in range(5):
        whole(store, str(number))
        clock.advance(seconds=1)
    running = start(store, "running")
    follow = history.follow(last=3)
    assert take(follow, 3) == [("3", "completed"), ("4", "completed"), ("running", "started")]
    store.record_completion(running)
    assert take(follow, 1) == [("running", "completed")]


def test_since_a_time_it_yields_what_has_started_since(history, clock):
    store = history.store
    start(store, "old")
    whole(store, "older")
    clock.advance(seconds=10)
    since = clock.now
    for number in range(5):
        whole(store, str(number), started_at=clock.now)
        clock.advance(hours=1)
    follow = history.follow(since=since)
    assert [job_id for job_id, _ in take(follow, 5)] == list("01234")
    store.record_completion("old", "w", "c")
    assert take(follow, 1) == [("old", "completed")]


def test_more_than_a_page_comes_in_batches(history, clock, monkeypatch):
    monkeypatch.setattr("jobhistory.database.changes.DatabaseChanges.page_size", 7)
    monkeypatch.setattr(follower_module, "BATCH_SIZE", 3)
    follow = history.follow()
    jobs = [str(number) for number in range(40)]
    ended = {"task_identifier": "t", "worker_id": "w", "correlation_id": "c", "status": "completed"}
    history.store.record_many(
        ended | {"job_id": each, "started_at": clock.now, "completed_at": clock.now}
        for each in jobs
    )
    assert sorted(job_id for job_id, _ in take(follow, 40)) == sorted(jobs)


def test_an_execution_written_whole_long_after_its_start_is_found(history, clock):
    follow = history.follow()
    clock.advance(hours=2)
    late = {"started_at": clock.now - timedelta(hours=1), "execution_time_ms": 3_600_000}
    whole(history.store, "late", **late)
    assert take(follow, 1) == [("late", "completed")]


def test_a_real_outcome_that_replaces_a_presumed_one_comes_as_well(history, clock):
    follow = history.follow()
    record = start(history.store, "1")
    assert take(follow, 1) == [("1", "started")]
    clock.advance(hours=3)
    history.store.reap_lost("2h")
    assert take(follow, 1) == [("1", "failed")]
    clock.advance(hours=3)
    history.store.record_completion(record)
    assert take(follow, 1) == [("1", "completed")]


def test_what_is_announced_comes_without_a_look(telling, clock):
    """Looks come every hour here, and do not find executions that started a day ago."""
    follow = telling.follow(interval="1h") if _tells(telling) else telling.follow()
    record = start(telling.store, "1")
    assert take(follow, 1) == [("1", "started")]
    clock.advance(days=2)
    telling.store.record_completion(record)
    assert take(follow, 1) == [("1", "completed")]
    if _tells(telling):
        earlier = {"started_at": clock.now - timedelta(days=1), "execution_time_ms": 1}
        whole(telling.store, "backfilled", **earlier)
        assert take(follow, 1) == [("backfilled", "completed")]


def _tells(history):
    engine = getattr(history.store.internals.history, "own_engine", None)
    return engine is None or engine()[0].dialect.name == "postgresql"


def test_many_announced_at_once_are_found(telling, clock):
    follow = telling.follow(interval="1h") if _tells(telling) else telling.follow()
    ended = {"task_identifier": "t", "worker_id": "w", "correlation_id": "c", "status": "completed"}
    telling.store.record_many(
        ended | {"job_id": str(n), "started_at": clock.now, "execution_time_ms": 0}
        for n in range(300)
    )
    assert {job_id for job_id, _ in take(follow, 300)} == {str(n) for n in range(300)}


class FollowerThatIsClosedAtTheLastMoment:
    """Stands for a follower whose feed another thread closes just as it hands over a change."""

    def __init__(self):
        self.is_closed = self.is_released = False

    @property
    def ready(self):
        return feeds.Changes([])

    @ready.setter
    def ready(self, nothing):
        closing = threading.Thread(target=self.feed.close)
        closing.start()
        closing.join()

    def close(self):
        self.is_closed = True

    def release(self):
        self.is_released = True


def test_a_feed_that_is_closed_as_it_hands_over_a_change_is_released():
    follower = FollowerThatIsClosedAtTheLastMoment()
    following = SimpleNamespace(follower=lambda source, waker: follower, source=lambda: None)
    follower.feed = feeds.ChangeFeed(following)
    assert next(follower.feed) == feeds.Changes([])
    assert follower.is_released


def test_close_ends_the_wait_of_another_thread(telling):
    follow = telling.follow(interval="1h")
    closing = threading.Timer(0.1, follow.close)
    closing.start()
    begun = time.monotonic()
    assert list(follow) == []
    assert time.monotonic() - begun < 5
    closing.join()
    assert list(follow) == []


@pytest.mark.parametrize("wrong", [{"limit": 5}, {"order": "oldest"}, {"last": -1}, {"task": "x"}])
def test_wrong_arguments_are_refused(plain_store, wrong):
    with pytest.raises(InvalidInput):
        plain_store.follow(**wrong)


def test_since_and_last_exclude_each_other(plain_store, clock):
    with pytest.raises(InvalidInput, match="last"):
        plain_store.follow(since=clock.now, last=5)


# What only a database can do.


@pytest.fixture
def postgres_engine(postgres_database):
    engine = create_engine(postgres_database.url)
    yield engine
    engine.dispose()


def end_listeners(database):
    with getattr(database, "engine", database).begin() as connection:
        return connection.execute(
            text(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            )
        ).scalar_one()


def test_a_lost_connection_neither_loses_nor_repeats_anything(postgres_database, postgres_engine):
    store = create_store(postgres_engine, notify=True)
    found = []
    follow = store.follow(interval=timedelta(seconds=0.2))
    stop = threading.Event()
    jobs = []

    def write():
        while not stop.is_set():
            record = start(store, str(len(jobs)))
            jobs.append(record.job_id)
            if len(jobs) % 3:
                store.record_completion(record)

    def read():
        found.extend((each.job_id, each.status.value) for each in follow)

    threads = [threading.Thread(target=work) for work in (write, read)]
    for thread in threads:
        thread.start()
    ended = 0
    while ended < 3:
        time.sleep(0.15)
        ended += end_listeners(postgres_database)
    stop.set()
    threads[0].join()
    expected = {(job_id, "completed") for job_id in jobs if (int(job_id) + 1) % 3}
    expected |= {(job_id, "started") for job_id in jobs if not (int(job_id) + 1) % 3}
    until = time.monotonic() + 20
    while not expected <= set(found) and time.monotonic() < until:
        time.sleep(0.05)
    follow.close()
    threads[1].join()
    store.close()
    assert expected <= set(found)
    assert len(found) == len(set(found))
    order = {change: place for place, change in enumerate(found)}
    assert all(
        order.get((job_id, "started"), -1) < order[(job_id, "completed")]
        for job_id, status in expected
        if status == "completed"
    )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "postgresql" in kind])
def test_every_driver_replaces_a_listener_that_the_server_ends(kind, request, clock):
    with followable(kind, request, clock, notify=True) as made:
        follow = made.follow(interval="1h")
        owner = request.getfixturevalue("shared_postgresql").owner
        ended = 0
        for number in range(6):
            start(made.store, str(number))
            assert take(follow, 1) == [(str(number), "started")]
            ended += end_listeners(owner)
        assert ended > 1


@pytest.mark.slow
@pytest.mark.parametrize("bind", ["url", "engine"])
def test_a_server_that_is_killed_and_started_again(bind):
    with wheel_server() as server:
        url = server.get_uri()
        engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
        migrate.upgrade(engine)
        store = create_store(url if bind == "url" else engine, notify=True)
        follow = store.follow(interval="0.2s")
        first = start(store, "1")
        assert take(follow, 1) == [("1", "started")]
        kill(server)
        found = []
        reader = threading.Thread(target=lambda: found.extend(take(follow, 2)))
        reader.start()
        time.sleep(0.5)
        start_again(server)
        engine.dispose()
        for _ in range(100):
            try:
                store.record_completion(first)
                break
            except (DBAPIError, HistoryUnavailable):
                time.sleep(0.2)
        whole(store, "2")
        reader.join(60)
        assert sorted(found) == [("1", "completed"), ("2", "completed")]
        follow.close()
        store.close()
        engine.dispose()


@pytest.mark.parametrize("bind", ["url", "engine"])
def test_a_server_that_hangs_delays_neither_records_nor_the_end_of_a_store(bind):
    with wheel_server() as server:
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        engine = create_engine(url)
        migrate.upgrade(engine)
        store = create_store(url if bind == "url" else engine, notify=True)
        start(store, "1")
        notifier = store.internals.history.notifier
        while notifier._connection is None:
            time.sleep(0.01)
        with frozen(server):
            begun = time.monotonic()
            for _ in range(1000):
                notifier.add([new_execution_id()])
            assert time.monotonic() - begun < 1
            store.close()
            assert time.monotonic() - begun < 3
        engine.dispose()


def test_transactions_that_commit_in_another_order_are_found(database, clock):
    store = create_store(database.engine, clock=clock)
    follow = store.follow(interval=timedelta(seconds=SOON))
    if database.name == "sqlite":
        pytest.skip("SQLite has one writer at a time")
    with Session(database.engine) as session:
        start(store.in_session(session), "slow")
        clock.advance(seconds=20)
        start(store, "quick")
        assert take(follow, 1) == [("quick", "started")]
        session.commit()
    assert take(follow, 1) == [("slow", "started")]
    follow.close()


def test_what_is_rolled_back_never_comes(database, clock):
    store = create_store(database.engine, clock=clock, notify=True)
    with store.follow(interval=timedelta(seconds=SOON)) as follow:
        with Session(database.engine) as session:
            start(store.in_session(session), "undone")
            session.rollback()
        start(store, "done")
        assert take(follow, 1) == [("done", "started")]
    store.close()


class Unreachable:
    """Makes an engine fail to connect while it is on."""

    def __init__(self):
        self.is_on = False

    def __call__(self, *args):
        if self.is_on:
            raise OSError("no route to the database")


@pytest.fixture
def unreachable(postgres_database):
    engine = create_engine(postgres_database.url, poolclass=NullPool)
    unreachable = Unreachable()
    unreachable.engine = engine
    event.listen(engine, "do_connect", unreachable)
    yield unreachable
    engine.dispose()


def test_feeds_tell_outages_and_their_end(unreachable, postgres_database, clock):
    store = create_store(unreachable.engine, clock=clock)
    other = create_store(postgres_database.engine, clock=clock)
    feed = feeds.change_feed(store, interval=timedelta(seconds=SOON))
    unreachable.is_on = True
    assert "no route" in next(feed).unavailable
    unreachable.is_on = False
    assert next(feed) == feeds.Changes([])
    start(other, "1")
    assert [each.job_id for each in next(feed).records] == ["1"]
    unreachable.is_on = True
    end_listeners(postgres_database)
    assert "no route" in next(feed).unavailable
    start(other, "2")
    unreachable.is_on = False
    changes = next(feed)
    assert changes.unavailable is None
    changes = changes if changes.records else next(feed)
    assert [each.job_id for each in changes.records] == ["2"]
    feed.close()


def test_an_outage_at_the_beginning_is_raised(unreachable):
    unreachable.is_on = True
    store = create_store(unreachable.engine)
    with pytest.raises((OSError, OperationalError)):
        store.follow()


def test_an_outage_is_logged_once(unreachable, clock, caplog):
    store = create_store(unreachable.engine, clock=clock)
    follow = store.follow(interval=timedelta(seconds=SOON))
    unreachable.is_on = True
    threading.Timer(0.3, lambda: setattr(unreachable, "is_on", False)).start()
    other = threading.Timer(0.6, lambda: start(store, "1"))
    other.start()
    with caplog.at_level(logging.WARNING):
        assert take(follow, 1) == [("1", "started")]
    other.join()
    assert [each for each in caplog.messages if "retrying" in each] == caplog.messages
    assert len(caplog.messages) == 1
    follow.close()


def test_a_pooler_in_transaction_mode_is_polled(postgres_database, clock):
    try:
        with pgbouncer(postgres_database.url) as url:
            engine = create_engine(
                url, poolclass=NullPool, connect_args={"prepare_threshold": None}
            )
            store = create_store(engine, clock=clock)
            with store.follow(interval=timedelta(seconds=SOON)) as follow:
                assert follow._feed._follower._listener is None
                start(store, "1")
                assert take(follow, 1) == [("1", "started")]
    except LookupError as error:
        pytest.skip(str(error))


def test_the_pool_of_the_app_is_as_it_was(postgres_database, clock):
    engine = create_engine(postgres_database.url, pool_size=1, max_overflow=0)
    store = create_store(engine, clock=clock)
    with store.follow(interval=timedelta(seconds=SOON)) as follow:
        start(store, "1")
        take(follow, 1)
        assert engine.pool.checkedout() == 0
        assert engine.pool.size() == 1
        with engine.connect():
            pass
    engine.dispose()


def test_a_follower_that_does_not_read_lets_go_of_its_connection(
    postgres_database, clock, monkeypatch
):
    store = create_store(postgres_database.engine, clock=clock, notify=True)
    with store.follow(interval="1h") as follow:
        follower = follow._feed._follower
        monkeypatch.setattr(follower_module, "_LONGEST_DEAFNESS", -1)
        follower._check_is_hearing()
        start(store, "1")
        assert take(follow, 1) == [("1", "started")]
        assert follower._listener is not None
    store.close()


def test_what_it_remembers_is_limited(plain_store, clock, monkeypatch):
    monkeypatch.setattr(seen, "_MOST_SEEN", 50)
    monkeypatch.setattr(seen, "_MOST_WATCHED", 20)
    follow = plain_store.follow(interval=timedelta(seconds=SOON))
    follower = follow._feed._follower
    for number in range(100):
        start(plain_store, str(number))
        clock.advance(milliseconds=1)
        assert take(follow, 1) == [(str(number), "started")]
    assert len(follower._seen) <= 50
    assert len(follower._seen.watched) <= 20
    clock.advance(hours=1)
    follow.close()


def test_it_forgets_what_it_cannot_find_again(plain_store, clock):
    with plain_store.follow(interval=timedelta(seconds=SOON)) as follow:
        follower = follow._feed._follower
        for number in range(20):
            whole(plain_store, str(number))
            assert take(follow, 1) == [(str(number), "completed")]
            clock.advance(minutes=1)
        while len(follower._seen) > 5:
            whole(plain_store, "again")
            take(follow, 1)
            clock.advance(minutes=1)


def test_a_cancelled_wait_loses_nothing(postgres_database, clock):
    async def main():
        closing = []
        with async_engine(postgres_database, closing.append) as engine:
            store = create_async_store(engine, clock=clock)
            found = []
            async with store.follow(interval=timedelta(seconds=SOON)) as follow:
                for number in range(10):
                    await store.record_start(Job(str(number), "t"), "w", "c")
                    try:
                        async with asyncio.timeout(0.003 * number):
                            while True:
                                found.append((await anext(follow)).job_id)
                    except TimeoutError:
                        pass
                async with asyncio.timeout(20):
                    while len(found) < 10:
                        found.append((await anext(follow)).job_id)
            assert found == [str(number) for number in range(10)]
        await closing[0]

    asyncio.run(main())


def test_without_a_block_an_asynchronous_one_begins_with_the_first_iteration(clock):
    async def main():
        store = create_async_store(clock=clock)
        follow = store.follow()
        task = asyncio.create_task(anext(follow))
        await asyncio.sleep(0.01)
        await store.record_start(Job("1", "t"), "w", "c")
        async with asyncio.timeout(10):
            assert (await task).job_id == "1"
        await follow.close()
        with pytest.raises(StopAsyncIteration):
            await anext(follow)

    asyncio.run(main())
