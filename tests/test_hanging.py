"""A database that accepts connections and never answers keeps no job waiting."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import pytest
from sqlalchemy import NullPool, create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import async_sessionmaker

from jobhistory import (
    HistoryUnavailable,
    InvalidInput,
    Job,
    NotWritten,
    Recorder,
    Status,
    create_async_store,
    create_store,
    migrate,
)
from jobhistory.database import pools
from jobhistory.database.circuit_breaker import CircuitBreaker
from jobhistory.database.deadlines import Deadline, SocketGuard, TimeLimits
from jobhistory.database.engines import async_engine_from_url, engine_from_url
from tests import command_line
from tests.facades import Synchronous
from tests.servers import frozen, silent_server, wheel_server
from tests.test_forks import in_children

LIMITS = TimeLimits(call=1, bulk=1)
"""Shorter than usual, but enough for a busy machine."""

PAUSE = 30

every_driver_that_waits = pytest.mark.parametrize(
    "driver",
    [
        *("psycopg", "asyncpg"),
        *(pytest.param(driver, marks=pytest.mark.slow) for driver in ("psycopg2", "async-psycopg")),
    ],
)
"""For tests that wait for seconds."""


class Moments:
    """A clock that only moves when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def moments():
    return Moments()


@pytest.fixture(scope="module")
def server():
    try:
        with wheel_server() as handle:
            engine = create_engine(handle.get_uri().replace("postgresql:", "postgresql+psycopg:"))
            migrate.upgrade(engine)
            engine.dispose()
            yield handle
    except LookupError as error:
        pytest.skip(f"there is no server that may be stopped: {error}")


@pytest.fixture
def open_store(event_loop_thread, moments):
    """Makes a store on a URL through any driver, with short limits; a plain or an awaited one."""
    disposals = []

    def open_store(url, driver):
        is_async = driver in ("async-psycopg", "asyncpg")
        url = make_url(url).set(drivername="postgresql+" + driver.removeprefix("async-"))
        if is_async:
            engine = async_engine_from_url(url, LIMITS)
            plain = create_async_store(async_sessionmaker(engine))
            store, history = Synchronous(plain, event_loop_thread), plain._store._history
            disposals.append(lambda: event_loop_thread.run(engine.dispose()))
        else:
            engine = engine_from_url(url, LIMITS)
            store = create_store(engine)
            history = store._history
            disposals.append(engine.dispose)
        history.limits = LIMITS
        history.breaker = CircuitBreaker(PAUSE, moments)
        return store, history

    yield open_store
    for dispose in disposals:
        dispose()


@contextmanager
def soon():
    """Not a measurement: without limits it would wait forever."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 20


def start(store, job_id="1"):
    return store.record_start(Job(job_id, "t", {"secret": "payload"}), "w", "c")


@every_driver_that_waits
def test_connecting_has_a_time_limit(open_store, driver):
    with silent_server() as port, soon():
        store, _ = open_store(f"postgresql://u@127.0.0.1:{port}/d", driver)
        with pytest.raises(OperationalError, match=r"could not connect within the time limit of"):
            start(store)
        with pytest.raises(HistoryUnavailable, match="could not connect"):
            start(store)
        with pytest.raises(OperationalError, match="could not connect"):
            store.query()  # a question always tries


@every_driver_that_waits
def test_many_at_once_wait_no_longer_than_one(driver):
    many = 40  # more than the pool has connections

    async def start_all(url):
        store = create_async_store(url)
        starts = (store.record_start(Job(str(each), "t"), "w", "c") for each in range(many))
        errors = await asyncio.gather(*starts, return_exceptions=True)
        await store.close()
        return errors

    def start_all_in_threads(url):
        store = create_store(url)
        with ThreadPoolExecutor(many) as threads:
            starts = [threads.submit(start, store, str(each)) for each in range(many)]
        store.close()
        return [each.exception() for each in starts]

    is_async = driver in ("async-psycopg", "asyncpg")
    with silent_server() as port:
        url = f"postgresql+{driver.removeprefix('async-')}://u@127.0.0.1:{port}/d"
        begun = time.monotonic()
        errors = asyncio.run(start_all(url)) if is_async else start_all_in_threads(url)
        seconds = time.monotonic() - begun

    assert seconds < 7  # the limit for connecting is 2 s; those who waited for the pool took 10 s
    assert all(isinstance(each, (OperationalError, HistoryUnavailable)) for each in errors)
    assert all("time limit" in str(each) for each in errors)


def test_a_pool_without_a_free_connection_is_waited_for(server, monkeypatch):
    monkeypatch.setattr(pools, "SECONDS_TO_WAIT", 1)
    engine = engine_from_url(server.get_uri())
    with ExitStack() as held:
        connections = [held.enter_context(engine.connect()) for _ in range(15)]
        with ThreadPoolExecutor(1) as thread:
            late = thread.submit(lambda: engine.connect().close())
            time.sleep(0.4)  # longer than one look
            connections[0].close()
            assert late.result(5) is None
        held.enter_context(engine.connect())
        with pytest.raises(PoolTimeout, match="no connection was free within 1 s"):
            engine.connect()
    engine.dispose()


@pytest.mark.parametrize("make", [engine_from_url, async_engine_from_url])
def test_a_pool_logs_where_those_of_sqlalchemy_do(make):
    engine = make("postgresql+psycopg://u@127.0.0.1/d")

    assert engine.pool.logger.name.startswith("sqlalchemy.pool.")


@every_driver_that_waits
def test_a_call_has_a_time_limit_and_history_goes_on_when_the_server_does(
    server, open_store, moments, driver
):
    store, _ = open_store(server.get_uri(), driver)
    start(store, f"{driver}-before")
    with frozen(server), soon():
        with pytest.raises(OperationalError, match=r"within the time limit of 1 s") as caught:
            start(store, f"{driver}-meanwhile")
        assert caught.value.connection_invalidated
        assert "payload" not in str(caught.value).partition("[SQL")[0]
        with pytest.raises(HistoryUnavailable) as refused:
            start(store, f"{driver}-meanwhile")
        assert (refused.value.retry_after, refused.value.is_repeated) == (PAUSE, False)
    moments.now += PAUSE
    start(store, f"{driver}-after")

    assert store.record_completion(f"{driver}-before", "w", "c", 1).status is Status.COMPLETED


@every_driver_that_waits
def test_the_test_of_an_idle_connection_has_a_time_limit(server, open_store, monkeypatch, driver):
    monkeypatch.setattr("jobhistory.database.engines._IDLE_SECONDS", 0)
    store, _ = open_store(server.get_uri(), driver)
    store.query()
    with frozen(server), soon(), pytest.raises(OperationalError, match="could not connect"):
        store.query()
    store.query()


@every_driver_that_waits
def test_an_idle_connection_that_the_network_dropped_is_replaced(
    server, open_store, monkeypatch, driver
):
    """As by a firewall: it looks alive, and what is sent goes nowhere. New ones work."""
    monkeypatch.setattr("jobhistory.database.engines._IDLE_SECONDS", 0)
    with Network(f"{server.pgdata}/.s.PGSQL.5432") as network:
        store, _ = open_store(f"postgresql://postgres@127.0.0.1:{network.port}/postgres", driver)
        start(store, f"{driver}-dropped-before")
        network.drop()
        assert start(store, f"{driver}-dropped-after").status is Status.STARTED


class Network:
    """Passes bytes between a port and a server's socket, until it is told to drop them."""

    def __init__(self, path):
        self._path = path
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._sockets = []
        self._dropped = set()

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        for each in (self._server, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def drop(self):
        self._dropped.update(self._sockets)

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
                self._sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source, target):
        with suppress(OSError):
            while received := source.recv(65536):
                if source not in self._dropped:
                    target.sendall(received)


def test_questions_have_no_time_limit(postgres_database, open_store):
    """While a table is locked, a question waits; a recording call does not."""
    store, _ = open_store(postgres_database.url, "psycopg")
    answers = []
    with postgres_database.engine.begin() as other:
        other.execute(text("LOCK TABLE job_history"))
        asking = threading.Thread(target=lambda: answers.append(store.query()))
        asking.start()
        with pytest.raises(OperationalError, match=r"within the time limit of 1 s"):
            start(store)  # longer than that
        assert asking.is_alive()
    asking.join(20)
    assert len(answers) == 1


def test_many_rows_have_a_longer_time_limit(postgres_database, open_store):
    store, history = open_store(postgres_database.url, "psycopg")
    history.limits = TimeLimits(call=0, bulk=30)
    ended = {"job_id": "1", "worker_id": "w", "correlation_id": "c", "task_identifier": "t"}
    assert store.record_many([ended | {"status": "completed"}]) == 1


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_the_time_limit_of_many_rows_starts_over_while_the_database_takes_them(
    postgres_database, open_store, monkeypatch, driver
):
    monkeypatch.setattr("jobhistory.database.writes._MAX_ROWS", 2)
    restarted = []
    restart = Deadline.restart

    def note_and_restart(deadline):
        if threading.current_thread() is threading.main_thread():  # the guards have their own
            restarted.append(deadline)
        restart(deadline)

    monkeypatch.setattr(Deadline, "restart", note_and_restart)
    store, _ = open_store(postgres_database.url, driver)
    ended = {"job_id": "1", "worker_id": "w", "correlation_id": "c", "task_identifier": "t"}
    assert store.record_many([ended | {"status": "completed"}] * 5) == 5
    assert len(store.query()) == 5
    assert len(restarted) == 1 + 3, "when it had a connection, and after each statement"


@pytest.mark.parametrize(
    ("driver", "option"),
    [("psycopg", "connect_timeout"), ("psycopg2", "connect_timeout"), ("asyncpg", "timeout")],
)
def test_the_url_may_set_the_time_limit_for_connecting(driver, option, monkeypatch):
    make = async_engine_from_url if driver == "asyncpg" else engine_from_url

    def limit_of(query):
        passed = {}
        engine = make(f"postgresql+{driver}://u@h/d{query}")
        engine = getattr(engine, "sync_engine", engine)
        monkeypatch.setattr(engine.dialect, "connect", lambda *_, **given: passed.update(given))
        engine.pool._creator(None)
        return float(passed[option])

    assert limit_of("") == 2
    assert limit_of(f"?{option}=7") == 7
    with pytest.raises(InvalidInput, match=f"{option} 'soon' is not a number of seconds"):
        limit_of(f"?{option}=soon")


# The guards of sockets


def expire(guard):
    guard.turn_on(Deadline(0))


def test_a_guard_shuts_its_socket_down_only_while_it_is_on():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        guard = SocketGuard(ours.fileno())
        guard.turn_on(Deadline(3600))
        guard.turn_off()
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"
        expire(guard)
        assert ours.recv(1) == b"", "it is shut down"
        guard.close()


def test_a_guard_leaves_its_socket_alone_while_an_answer_waits_to_be_read():
    """The server is alive, and this process late: it was stopped, or its event loop is blocked."""
    pairs = [socket.socketpair() for _ in range(2)]
    guards = [SocketGuard(ours.fileno()) for ours, _ in pairs]
    (ours, theirs), (silent, _) = pairs
    theirs.sendall(b"x")
    late = Deadline(0.01)
    guards[0].turn_on(late)
    guards[1].turn_on(Deadline(0.05))
    silent.settimeout(20)
    assert silent.recv(1) == b"", "the thread has looked at both by now"
    assert ours.recv(1) == b"x"
    theirs.sendall(b"y")
    assert ours.recv(1) == b"y", "it is not shut down"
    guards[0].turn_off()
    assert late.failure is None
    for guard, pair in zip(guards, pairs, strict=True):
        guard.close()
        for each in pair:
            each.close()


def test_a_guard_leaves_another_socket_alone_that_got_the_number_of_its_own():
    ours, theirs = socket.socketpair()
    guard = SocketGuard(ours.fileno())
    number = ours.fileno()
    ours.close()
    others = [socket.socketpair() for _ in range(3)]
    (pair,) = [pair for pair in others if number in (each.fileno() for each in pair)]
    expire(guard)
    assert theirs.recv(1) == b"", "the first one is shut down"
    pair[0].sendall(b"x")
    assert pair[1].recv(1) == b"x"
    for each in (theirs, *(each for pair in others for each in pair)):
        each.close()


def test_a_long_deadline_does_not_hold_up_a_short_one():
    pairs = [socket.socketpair() for _ in range(20)]
    guards = [SocketGuard(ours.fileno()) for ours, _ in pairs]
    guards[0].turn_on(Deadline(3600))
    for guard in guards[1:]:
        guard.turn_on(Deadline(0.05))
    for ours, _ in pairs[1:]:
        ours.settimeout(20)
        assert ours.recv(1) == b""
    for guard, pair in zip(guards, pairs, strict=True):
        guard.close()
        for each in pair:
            each.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_guards_of_its_own_and_leaves_its_parents_alone():
    ours, theirs = socket.socketpair()
    guard = SocketGuard(ours.fileno())
    guard.turn_on(Deadline(3600))

    def work(number):
        mine, _other = socket.socketpair()
        mine.settimeout(20)
        mine_guard = SocketGuard(mine.fileno())
        expire(mine_guard)
        return mine.recv(1) == b""

    assert in_children(work) == [True] * 4
    theirs.sendall(b"x")
    assert ours.recv(1) == b"x"
    guard.close()
    ours.close()
    theirs.close()


# The circuit breaker


def test_a_circuit_breaker_opens_probes_and_closes(moments):
    breaker = CircuitBreaker(PAUSE, moments)
    breaker.check()
    breaker.open("no answer")
    moments.now += 1
    for is_repeated in (False, True, True):
        with pytest.raises(HistoryUnavailable, match=r"no answer.*29 s.*Recorder") as caught:
            breaker.check()
        assert (caught.value.retry_after, caught.value.is_repeated) == (29, is_repeated)
        assert isinstance(caught.value, ConnectionError)
    moments.now += 29
    breaker.check()  # one call tries
    with pytest.raises(HistoryUnavailable) as caught:
        breaker.check()
    assert (caught.value.retry_after, caught.value.is_repeated) == (PAUSE, True)
    moments.now += 2
    breaker.open("again")
    with pytest.raises(HistoryUnavailable, match="again") as caught:
        breaker.check()
    assert caught.value.retry_after == PAUSE
    moments.now += PAUSE
    breaker.check()  # nothing is heard of this one
    moments.now += PAUSE
    breaker.check()
    breaker.close()
    breaker.check()
    breaker.open("another time")
    with pytest.raises(HistoryUnavailable) as caught:
        breaker.check()
    assert not caught.value.is_repeated, "it is another outage"


@pytest.fixture
def app_store(database, moments):
    """A store on an app's engine, whose clock says that its calls take what they are told to."""
    store = create_store(database.engine)
    store._history.breaker = CircuitBreaker(PAUSE, moments)
    return store


@pytest.fixture
def fail(database, moments):
    """Lets every new connection of the database's engine fail, after some seconds."""
    listeners = []

    def fail(error, seconds=0):
        def listener(*_):
            moments.now += seconds
            raise error

        database.engine.dispose()
        event.listen(database.engine, "do_connect", listener)
        listeners.append(listener)

    yield fail
    for listener in listeners:
        event.remove(database.engine, "do_connect", listener)


def driver_error(database, message):
    return database.engine.dialect.dbapi.OperationalError(message)


def test_on_the_apps_engine_it_opens_if_connecting_failed_late(app_store, database, fail):
    fail(driver_error(database, "no route"), seconds=2)
    with pytest.raises(OperationalError, match="no route"):
        start(app_store)
    with pytest.raises(HistoryUnavailable, match="no route"):
        app_store.record_completion("1", "w", "c", 1)
    with pytest.raises(HistoryUnavailable):
        app_store.record_many([])
    with pytest.raises(OperationalError):
        app_store.query()  # questions are asked


def test_it_stays_closed_if_connecting_fails_at_once(app_store, database, fail):
    fail(driver_error(database, "refused"))
    for _ in range(2):
        with pytest.raises(OperationalError, match="refused"):
            start(app_store)


def test_it_opens_if_the_pool_has_no_connection_in_time(app_store, fail):
    fail(PoolTimeout("the pool is empty"), seconds=2)
    with pytest.raises(PoolTimeout):
        start(app_store)
    with pytest.raises(HistoryUnavailable, match="the pool is empty"):
        start(app_store)


def test_it_stays_closed_if_the_database_answers_however_late(postgres_database, moments):
    def take_long(connection):
        moments.now += 5
        connection.exec_driver_sql("SET LOCAL lock_timeout = '10ms'")

    event.listen(postgres_database.engine, "begin", take_long)
    store = create_store(postgres_database.engine)
    store._history.breaker = CircuitBreaker(PAUSE, moments)
    start(store)
    with create_engine(postgres_database.url, poolclass=NullPool).begin() as other:
        other.execute(text("LOCK TABLE job_history"))
        for _ in range(2):
            with pytest.raises(OperationalError, match="lock timeout"):
                start(store, "2")
    start(store, "3")


def test_a_store_in_memory_and_a_callers_session_never_find_it_open(database, app_store):
    app_store._history.breaker.open("no answer")
    with pytest.raises(HistoryUnavailable):
        start(app_store)
    with app_store._history._session_factory() as session, session.begin():
        app_store.in_session(session).record_start(Job("2", "t"), "w", "c")
    start(create_store())


def test_a_recorder_tries_although_it_is_open_and_closes_it(app_store):
    app_store._history.breaker.open("no answer")
    with Recorder(app_store) as recorder:
        recorder.record_start(Job("1", "t"), "w", "c")
    start(app_store, "2")
    assert len(app_store.query()) == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_it_is_closed_in_a_forked_child(app_store):
    app_store._history.breaker.open("no answer")
    in_children(lambda number: start(app_store, str(number)).status is Status.STARTED)
    assert len(app_store.query()) == 4


def test_an_outage_is_logged_once_and_not_for_each_job(app_store, database, fail, caplog):
    fail(driver_error(database, "no route"), seconds=2)
    with caplog.at_level(logging.ERROR, "jobhistory"):
        for number in range(20):
            with app_store.track(Job(str(number), "t"), "w"):
                pass
    assert len(caplog.records) == 2, "the call that waited, and the first that did not"


# What is built on the store


def test_jobs_run_next_to_a_database_that_hangs(open_store, caplog):
    with silent_server() as port, soon():
        store, _ = open_store(f"postgresql://u@127.0.0.1:{port}/d", "psycopg")
        ran = []
        for number in range(20):
            with store.track(Job(str(number), "t"), "w"):
                ran.append(number)
    assert len(ran) == 20
    assert len(caplog.records) == 2


def test_a_recorder_keeps_its_times_next_to_a_server_that_hangs(server, open_store):
    store, _ = open_store(server.get_uri(), "psycopg")
    recorder = Recorder(store, batch_size=10, max_delay=0)
    recorder.record_start(Job("recorder-0", "t"), "w", "c")
    recorder.flush(20)
    with frozen(server), soon():
        for number in range(1, 100):
            recorder.record_start(Job(f"recorder-{number}", "t"), "w", "c")
        with pytest.raises(NotWritten):
            recorder.flush(0.1)
        with pytest.raises(NotWritten):
            recorder.close(0.3)
    for thread in threading.enumerate():
        if thread.name.startswith("jobhistory-recorder"):
            thread.join(20)  # it gives its connection back


@pytest.fixture
def environment(tmp_path):
    inherited = {k: v for k, v in os.environ.items() if k != "JOBHISTORY_URL"}
    return inherited | {"XDG_DATA_HOME": str(tmp_path / "data")}


def test_run_runs_its_command_next_to_a_database_that_hangs(environment):
    with silent_server() as port:
        url = f"postgresql://u@127.0.0.1:{port}/d"
        done = command_line.run(
            *["run", "--url", url, "--", "sh", "-c", "echo done; exit 3"], env=environment
        )
        listed = command_line.run("list", "--url", url, env=environment)
    assert (done.returncode, done.stdout) == (3, "done\n")
    assert "could not connect within the time limit of 2 s" in done.stderr
    assert "exit status 3" in done.stderr
    assert listed.returncode == 1
    assert "could not connect within the time limit of 2 s" in listed.stderr


@pytest.mark.slow
def test_run_runs_its_command_next_to_a_stopped_server(environment, server):
    with frozen(server):
        url = server.get_uri()
        done = command_line.run(
            *["run", "--url", url, "--", "sh", "-c", "echo done; exit 3"], env=environment
        )
    assert (done.returncode, done.stdout) == (3, "done\n")
    assert "not recorded" in done.stderr
