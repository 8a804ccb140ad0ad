"""A database that is away or hangs: the page says so in time, and recovers by itself."""

import asyncio
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar

import pytest
from sqlalchemy import NullPool, create_engine, event, make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from jobhistory import Job, create_async_store, create_store, migrate
from jobhistory.database.engines import async_engine_from_url, engine_from_url
from jobhistory.errors import InvalidInput
from jobhistory.web import HistoryPage, asgi_app, wsgi_app
from jobhistory.web.time_limit import MOST_THREADS, TimeLimit
from tests.servers import frozen, wheel_server
from tests.web.pages import get

LIMIT = "1s"
"""Shorter than usual, but enough for a busy machine."""


@pytest.fixture(scope="module")
def server():
    try:
        with wheel_server() as handle:
            engine = create_engine(handle.get_uri().replace("postgresql:", "postgresql+psycopg:"))
            migrate.upgrade(engine)
            create_store(engine).begin(Job("42", "send_email"), "worker-1").end()
            engine.dispose()
            yield handle
    except LookupError as error:
        pytest.skip(f"there is no server that may be stopped: {error}")


def url_of(server, driver):
    return make_url(server.get_uri()).set(drivername=f"postgresql+{driver}")


@contextmanager
def soon():
    """Not a measurement: without limits it would wait forever."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 20


def close(engine):
    """Dispose of an engine when all connections are back, some of them from hung calls."""
    for _ in range(200):
        if not engine.pool.checkedout():
            break
        time.sleep(0.05)
    engine.dispose()


async def request(app, path="/"):
    """Return the status, the headers and the body of an answer of an ASGI app."""
    sent = []
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], dict(sent[0]["headers"]), body


def check_unavailable(status, headers, body):
    assert status == 503
    assert headers[b"refresh"] == b"5"
    assert headers[b"retry-after"] == b"5"
    assert b"The history is unavailable" in body
    assert b"send_email" not in body


async def check_recovery(app):
    for _ in range(50):
        status, _, body = await request(app)
        if status == 200:
            assert b"send_email" in body
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the page does not recover")


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_server_that_hangs_with_a_store_for_threads(server, is_ours):
    url = url_of(server, "psycopg")
    engine = engine_from_url(url) if is_ours else create_engine(url)

    async def scenario():
        app = asgi_app(create_store(engine), access="open", time_limit=LIMIT)
        await check_recovery(app)
        with frozen(server):
            answers = await asyncio.gather(*(request(app) for _ in range(8)))
            for answer in answers:
                check_unavailable(*answer)
            assert (await request(app, "/static/page.css"))[0] in (200, 503)
        await check_recovery(app)

    with soon():
        asyncio.run(scenario())
    close(engine)


@pytest.mark.parametrize("driver", [pytest.param("psycopg", marks=pytest.mark.slow), "asyncpg"])
@pytest.mark.parametrize("is_ours", [True, False])
def test_a_server_that_hangs_with_a_store_for_asyncio(server, driver, is_ours):
    url = url_of(server, driver)

    async def scenario():
        engine = async_engine_from_url(url) if is_ours else create_async_engine(url)
        store = create_async_store(async_sessionmaker(engine))
        app = asgi_app(store, access="open", time_limit=LIMIT)
        await check_recovery(app)
        with frozen(server):
            answers = await asyncio.gather(*(request(app) for _ in range(3)))
            for answer in answers:
                check_unavailable(*answer)
            assert (await request(app, "/static/page.css"))[0] == 200
        await check_recovery(app)
        await engine.dispose()

    with soon():
        asyncio.run(scenario())


def test_a_server_that_hangs_under_wsgi(server):
    engine = create_engine(url_of(server, "psycopg"))
    app = wsgi_app(create_store(engine), access="open", time_limit=LIMIT)
    started = []

    def answer():
        environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/"}
        body = app(environ, lambda *arguments: started.append(arguments))
        return started[-1][0], dict(started[-1][1]), b"".join(body)

    with soon():
        assert answer()[0] == "200 OK"
        with frozen(server):
            status, headers, body = answer()
        assert status == "503 Service Unavailable"
        assert headers["Refresh"] == "5"
        assert b"did not answer within 1 s" in body
        assert answer()[0] == "200 OK"
    close(engine)


def test_a_server_that_refuses_connections_and_comes_back(postgres_database):
    engine = create_engine(postgres_database.url, poolclass=NullPool)
    is_down = True

    def refuse(*_):
        if is_down:
            raise OperationalError("", {}, ConnectionRefusedError("connection refused"))

    event.listen(engine, "do_connect", refuse)

    async def scenario():
        nonlocal is_down
        app = asgi_app(create_store(engine), access="open")
        check_unavailable(*await request(app))
        is_down = False
        assert (await request(app))[0] == 200

    asyncio.run(scenario())


def test_calls_that_hang_do_not_keep_later_ones_waiting_without_a_limit():
    limit, release = TimeLimit(0.05), threading.Event()
    for _ in range(MOST_THREADS):
        with pytest.raises(TimeoutError):
            limit.run(release.wait)
    ran = []
    with pytest.raises(TimeoutError):
        limit.run(ran.append, 1)
    release.set()
    assert TimeLimit(20).run(lambda: 7) == 7
    limit.seconds = 20
    assert limit.run(lambda: 7) == 7
    assert not ran, "nobody waited for it any more when a thread was free"


def test_a_call_has_the_context_of_its_caller():
    variable = ContextVar("variable")
    variable.set("x")
    assert TimeLimit(20).run(variable.get) == "x"


@pytest.mark.parametrize("time_limit", ["0s", "soon", 10])
def test_a_time_limit_is_a_duration(clock, time_limit):
    with pytest.raises(InvalidInput, match="time_limit"):
        HistoryPage(create_store(clock=clock), time_limit=time_limit)


def test_a_question_on_an_engine_of_ours_ends_at_the_limit(server):
    """So nothing of it is left, such as a thread that waits."""
    store = create_store(engine_from_url(url_of(server, "psycopg")))
    page = HistoryPage(store, access="open", time_limit=LIMIT)
    with soon():
        assert get(page).status == 200
        with frozen(server):
            assert get(page).status == 503
        assert get(page).status == 200
    store.internals.session_factory.engine.dispose()
