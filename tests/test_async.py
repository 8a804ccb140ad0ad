"""Behavior of the store for asyncio only. The contract suite tests what all stores share."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import URL, create_engine, event, text
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from jobhistory import (
    AsyncBaseStore,
    AsyncHistoryStore,
    BaseStore,
    HistoryStore,
    InvalidInput,
    Job,
    SchemaOutOfDate,
    Status,
    create_async_store,
    create_store,
    migrate,
)
from tests.conftest import async_engine

IDS = ("job-1", "worker-1", "request-1")
ENDED = {
    "job_id": "job-1",
    "worker_id": "w",
    "correlation_id": "c",
    "task_identifier": "t",
    "status": "completed",
}


def methods(cls):
    return {
        name: value
        for name, value in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("plain", "awaited"), [(HistoryStore, AsyncHistoryStore), (BaseStore, AsyncBaseStore)]
)
def test_both_kinds_of_store_have_the_same_methods_with_the_same_signatures(plain, awaited):
    assert methods(plain).keys() == methods(awaited).keys()
    for name, method in methods(plain).items():
        ours, theirs = (inspect.signature(each) for each in (method, methods(awaited)[name]))
        assert ours.parameters.keys() == theirs.parameters.keys(), name
        if name != "in_session":  # its session is of the other kind
            assert ours.parameters == theirs.parameters, name
        if name not in (
            "in_session",
            "begin",
            "track",
            "iterate",
            "follow",
        ):  # what these return is awaited
            assert ours.return_annotation == theirs.return_annotation, name
            is_awaited = inspect.iscoroutinefunction(methods(awaited)[name])
            assert is_awaited == (name not in ("observe", "recent")), name


def test_the_documentation_of_both_says_as_much():
    for name, method in methods(HistoryStore).items():
        theirs = inspect.getdoc(methods(AsyncHistoryStore)[name])
        refers = f"`HistoryStore.{name}`" in theirs
        assert refers or len(theirs) >= len(inspect.getdoc(method)), name


def test_both_are_made_with_the_same_options():
    for ours, theirs in [
        (create_store, create_async_store),
        (HistoryStore.__init__, AsyncHistoryStore.__init__),
    ]:
        plain, awaited = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
        first = next(name for name in plain if name != "self")
        assert list(plain) == list(awaited)
        # Their sessions and engines are of the other kind.
        same = plain.keys() - {"self", first, "owned_engine"}
        assert all(plain[name] == awaited[name] for name in same)


@pytest.mark.parametrize("named", ["plain", "driver"])
def test_a_url_gets_an_engine_of_the_librarys_own_for_asyncio(database, named):
    driver = {"sqlite": "aiosqlite", "postgresql": "psycopg"}[database.name]
    url = database.url.set(
        drivername=database.name if named == "plain" else f"{database.name}+{driver}"
    )

    async def main():
        async with create_async_store(url.render_as_string(hide_password=False)) as store:
            await store.record_start(Job("1", "t"), "w", "c")
            await store.record_completion("1", "w", "c", 1)
            engine = store._owned_engine
            if database.name == "sqlite":
                async with engine.connect() as connection:
                    mode = await connection.scalar(text("PRAGMA journal_mode"))
                assert mode == "wal"
        assert engine.pool.checkedin() == 0, "close() disposes it"
        assert engine.dialect.driver == driver

    asyncio.run(main())
    assert [r.status for r in create_store(database.engine).query()] == [Status.COMPLETED]


@pytest.mark.parametrize(
    ("bind", "says"),
    [
        (42, "is not an AsyncEngine, a URL, or a callable"),
        (create_engine("sqlite://"), "is not for asyncio; pass it to create_store"),
        (scoped_session(sessionmaker()), "is not for asyncio; pass it to create_store"),
        ("sqlite://", "is a database in memory"),
        ("sqlite+pysqlite:///x.db", "names no asyncio driver"),
        ("postgresql+psycopg2://u:hunter2@h/d", "bind"),
        ("not a url with hunter2", "is not a database URL"),
    ],
)
def test_what_cannot_be_bound_to_is_refused(bind, says):
    with pytest.raises((InvalidInput, ModuleNotFoundError), match=says) as caught:
        create_async_store(bind)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "argument"), [(create_async_store, "bind"), (AsyncHistoryStore, "session_factory")]
)
def test_a_scoped_session_is_no_factory(make, argument):
    scoped = async_scoped_session(async_sessionmaker(), asyncio.current_task)
    with pytest.raises(InvalidInput, match="pass its session_factory") as caught:
        make(scoped)
    assert caught.value.argument == argument


async def no_session():
    return None


@pytest.mark.parametrize(
    ("factory", "kind"), [(no_session, "coroutine"), (Session, "Session"), (lambda: None, "None")]
)
def test_a_factory_of_something_else_is_refused_when_it_is_called(factory, kind):
    store = create_async_store(factory)
    for call in (store.query, store.record_completion):
        with pytest.raises(InvalidInput, match=f"{kind}.*; return a new AsyncSession") as caught:
            asyncio.run(call() if call == store.query else call("1", "w", "c", 1))
        assert caught.value.value is factory


def test_a_missing_table_is_out_of_date(bare_database):
    async def main():
        closing = []
        with async_engine(bare_database, closing.append) as engine:
            store = create_async_store(engine)
            with pytest.raises(SchemaOutOfDate):
                await store.record_start(Job("1", "t"), "w", "c")
            with pytest.raises(SchemaOutOfDate):
                await store.record_many([ENDED])
        await closing[0]

    asyncio.run(main())


@pytest.mark.parametrize("make", [create_async_store, AsyncHistoryStore])
def test_any_factory_of_async_sessions_will_do(database, make):
    async def main():
        closing = []
        with async_engine(database, closing.append) as engine:
            store = make(partial(AsyncSession, engine, expire_on_commit=True))
            record = await store.record_start(Job("1", "t"), "w", "c")
            assert record.job_id == "1"
            assert engine.pool.checkedout() == 0
        await closing[0]

    asyncio.run(main())


async def prepare(store):
    await store.record_start(Job("job-1", "t"), *IDS[1:], history_retention="1 second")
    await store.record_execution(ENDED | {"job_id": "old", "expires_at": None})


async def all_of(iterator):
    return [each async for each in iterator]


HOUR = datetime(2026, 11, 28, 12, tzinfo=UTC)

CALLS = {
    "record_start": lambda store: store.record_start(Job("new", "t"), "w", "c"),
    "record_completion": lambda store: store.record_completion(*IDS, 1),
    "record_failure": lambda store: store.record_failure(*IDS, 1, ValueError("x")),
    "record_partial_success": lambda store: store.record_partial_success(*IDS, 1, {}),
    "record_cancellation": lambda store: store.record_cancellation(*IDS, 1),
    "record_execution": lambda store: store.record_execution(ENDED),
    "record_many": lambda store: store.record_many([ENDED] * 50),
    "get": lambda store: store.get(UUID(int=1)),
    "get_by_job_id": lambda store: store.get_by_job_id("job-1"),
    "get_by_correlation_id": lambda store: store.get_by_correlation_id("c"),
    "query": lambda store: store.query(status="completed"),
    "expect": lambda store: store.expect("t", every="1h"),
    "expectations": lambda store: store.expectations(),
    "remove_expectation": lambda store: store.remove_expectation("t"),
    "check": lambda store: store.check(),
    "incidents": lambda store: store.incidents(),
    "suggest_expectations": lambda store: store.suggest_expectations(),
    "send_alerts": lambda store: store.send_alerts(print),
    "page": lambda store: store.page(limit=1),
    "iterate": lambda store: all_of(store.iterate(batch_size=1)),
    "count": lambda store: store.count(cap=10),
    "stats": lambda store: store.stats(bucket="1h"),
    "failure_groups": lambda store: store.failure_groups(),
    "running": lambda store: store.running(),
    "workers": lambda store: store.workers(),
    "metrics": lambda store: store.metrics(),
    "expire": lambda store: store.expire(batch_size=1),
    "waiting_for_partition": lambda store: store.waiting_for_partition(),
    "fold": lambda store: store.fold(),
    "retention": lambda store: store.retention(),
    "recount": lambda store: store.recount(HOUR, HOUR.replace(hour=13)),
    "purge": lambda store: store.purge(job_id="job-1", batch_size=1),
    "reap_lost": lambda store: store.reap_lost("1 second", batch_size=1),
}


def test_every_call_that_uses_the_database_is_cancelled_below():
    # `begin` and `track` finish what they record, see test_begin.py and test_tracking.py.
    # For `follow`, see test_follow.py.
    others = {"observe", "recent", "close", "in_session", "begin", "track", "follow"}
    assert CALLS.keys() == methods(AsyncHistoryStore).keys() - others


def at_every_step():
    """Yield each call, and how to cancel it; by default, a few are cancelled again and again."""
    for call in CALLS:
        yield call, "once"
        is_usual = call in ("record_start", "record_many", "iterate")
        yield pytest.param(call, "again and again", marks=() if is_usual else pytest.mark.slow)


@pytest.mark.parametrize(("call", "how"), list(at_every_step()))
def test_a_call_may_be_cancelled_at_every_step(database, clock, call, how):
    """No connection stays checked out, and the row is either complete or missing."""

    async def main():
        outcomes = set()
        closing = []
        with async_engine(database, closing.append, pool_size=1, max_overflow=0) as engine:
            for steps in [*range(12), 15, 20, 30, 50, 100]:
                with database.engine.begin() as connection:
                    connection.execute(text("DELETE FROM job_history"))
                store = create_async_store(engine, clock=clock, buffer_size=100)
                await prepare(store)
                clock.advance(hours=1)
                before = [r.id for r in store.recent()]
                task = asyncio.create_task(CALLS[call](store))
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                while not task.done():
                    await asyncio.sleep(0)
                    if how != "once":
                        task.cancel()
                outcomes.add("cancelled" if task.cancelled() else "done")
                assert engine.pool.checkedout() == 0
                rows = {r.id: r for r in await store.query(limit=None)}
                new = [r.id for r in store.recent() if r.id not in before]
                assert all(rows[id_].status.is_outcome for id_ in new)
                assert len(new) in (0, 1, 50)
                for row in rows.values():
                    assert (row.completed_at is None) == (row.status is Status.STARTED)
                    assert (row.error_type is None) == (row.status is not Status.FAILED)
                if not task.cancelled():
                    assert task.exception() is None
        await closing[0]
        return outcomes

    assert "cancelled" in asyncio.run(main())


def test_a_call_that_waits_for_a_lock_can_be_cancelled(postgres_database):
    async def main():
        closing = []
        with async_engine(postgres_database, closing.append) as engine:
            store = create_async_store(engine)
            await store.record_start(Job("job-1", "t"), *IDS[1:])
            async with engine.begin() as connection:
                await connection.execute(text("SELECT 1 FROM job_history FOR UPDATE"))
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await store.record_completion(*IDS, 1)
                assert engine.pool.checkedout() == 1
            assert store.recent() == []
            assert (await store.record_completion(*IDS, 1)).status is Status.COMPLETED
        await closing[0]

    asyncio.run(main())


def test_the_event_loop_runs_on_while_the_database_is_at_work(postgres_database):
    """A call waits for a lock that a later step of the same event loop releases."""

    async def main():
        closing = []
        with async_engine(postgres_database, closing.append) as engine:
            store = create_async_store(engine)
            await store.record_start(Job("job-1", "t"), *IDS[1:])
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1 FROM job_history FOR UPDATE"))
                waiting = asyncio.create_task(store.record_completion(*IDS, 1))
                for _ in range(50):
                    await asyncio.sleep(0.001)
                assert not waiting.done()
                await connection.rollback()
                assert (await waiting).status is Status.COMPLETED
        await closing[0]

    asyncio.run(main())


def test_threads_are_not_used(postgres_database):
    async def main():
        closing = []
        with async_engine(postgres_database, closing.append) as engine:
            threads = set()
            event.listen(
                engine.sync_engine,
                "before_cursor_execute",
                lambda *_: threads.add(threading.current_thread()),
            )
            store = create_async_store(engine)
            await asyncio.gather(*(store.record_execution(ENDED) for _ in range(20)))
            assert threads == {threading.main_thread()}
        await closing[0]

    asyncio.run(main())


def test_without_greenlet_the_rest_works_and_the_remedy_is_told(tmp_path):
    script = """
import sys
sys.modules["greenlet"] = None
import jobhistory
from jobhistory import *
from sqlalchemy import create_engine, event

engine = create_engine("sqlite:///history.db", connect_args={"timeout": 0})
migrate.upgrade(engine)
other = engine.raw_connection()
other.execute("BEGIN IMMEDIATE")
event.listen(engine, "handle_error", lambda context: other.rollback())
create_store(engine).record_start(Job("1", "t"), "w", "c")  # is retried once
try:
    jobhistory.create_async_store
except ImportError as error:
    print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.stdout, result.stderr) == (
        "create_async_store needs greenlet; install it with: pip install 'jobhistory[async]'\n",
        "",
    )


def test_without_a_driver_the_remedy_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "aiosqlite", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jobhistory\[async\]'"):
        create_async_store(URL.create("sqlite", database=str(tmp_path / "x.db")))


def test_an_app_of_its_own_engine_keeps_it(tmp_path):
    url = f"sqlite+aiosqlite:///{tmp_path}/app.db"
    plain_engine = create_engine(f"sqlite:///{tmp_path}/app.db")
    migrate.upgrade(plain_engine)
    plain_engine.dispose()

    async def main():
        engine = create_async_engine(url)
        async with create_async_store(async_sessionmaker(engine)) as store:
            await store.record_execution(ENDED)
        assert engine.pool.checkedin() == 1
        await engine.dispose()

    asyncio.run(main())
