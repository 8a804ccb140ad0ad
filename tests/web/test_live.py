"""Live updates: who is told, how often, and that a slow viewer holds up nobody."""

import asyncio
from contextlib import aclosing, suppress

import pytest
from sqlalchemy import create_engine

from jobhistory import HistoryQuery, Job, create_async_store, create_store, migrate
from jobhistory.following.follower import Changes
from jobhistory.web import asgi_app
from jobhistory.web.live import Feed, Pace, changes_of, events

FAST = Pace(between=0, silence=0.01, request=60)


class Source:
    """Changes that a test makes."""

    def __init__(self):
        self.batches = asyncio.Queue()
        self.readers = 0

    async def changes(self):
        self.readers += 1
        try:
            while True:
                yield await self.batches.get()
        finally:
            self.readers -= 1


def changes(*tasks):
    row = {"job_id": 1, "worker_id": "w", "correlation_id": "c", "status": "completed"}
    return Changes([create_store().record_execution(row, task_identifier=task) for task in tasks])


async def begin(*streams):
    for stream in streams:
        assert await anext(stream) == b"retry: 2000\n\n"
        await next_event(stream)


async def next_event(stream):
    while not (part := await anext(stream)).startswith(b"event:"):
        pass
    return part


async def is_told(stream):
    """Whether the next part is an event, and not the comment that follows silence."""
    return (await anext(stream)).startswith(b"event:")


def test_viewers_are_told_of_changes_in_what_they_see():
    async def scenario():
        source = Source()
        feed = Feed(source.changes)
        emails = events(feed, HistoryQuery(task_identifier="email"), FAST)
        everything = events(feed, HistoryQuery(), FAST)
        await begin(emails, everything)
        source.batches.put_nowait(changes("export"))
        assert await next_event(everything) == b"event: changed\ndata:\n\n"
        assert not await is_told(emails)
        source.batches.put_nowait(changes("export", "email"))
        await next_event(emails)
        source.batches.put_nowait(Changes([]))  # an outage is over
        await next_event(emails)
        await next_event(everything)
        await emails.aclose()
        await everything.aclose()

    asyncio.run(scenario())


def test_one_reader_serves_all_viewers_and_ends_with_the_last():
    async def scenario():
        source = Source()
        feed = Feed(source.changes)
        streams = [events(feed, HistoryQuery(), FAST) for _ in range(20)]
        for stream in streams:
            await anext(stream)
        await asyncio.sleep(0)
        assert source.readers == 1
        for stream in streams:
            await stream.aclose()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert source.readers == 0
        again = events(feed, HistoryQuery(), FAST)
        await anext(again)
        await asyncio.sleep(0)
        assert source.readers == 1
        await again.aclose()

    asyncio.run(scenario())


def test_a_viewer_that_stops_reading_affects_nobody():
    async def scenario():
        source = Source()
        feed = Feed(source.changes)
        stopped = events(feed, HistoryQuery(), FAST)
        reading = events(feed, HistoryQuery(), FAST)
        await begin(stopped, reading)
        for _ in range(1000):
            source.batches.put_nowait(changes("email"))
            await next_event(reading)
        await next_event(stopped)  # the thousand changes are one event
        assert not await is_told(stopped)
        await stopped.aclose()
        await reading.aclose()

    asyncio.run(scenario())


def test_a_new_viewer_is_told_at_once():
    async def scenario():
        stream = events(Feed(Source().changes), HistoryQuery(), FAST)
        assert await anext(stream) == b"retry: 2000\n\n"
        assert await is_told(stream)
        assert not await is_told(stream)
        await stream.aclose()

    asyncio.run(scenario())


def test_events_are_at_least_the_given_time_apart():
    async def scenario():
        source = Source()
        pace = Pace(between=0.05, silence=0.01, request=60)
        stream = events(Feed(source.changes), HistoryQuery(), pace)
        await begin(stream)
        loop = asyncio.get_running_loop()
        started = loop.time()
        for _ in range(3):
            source.batches.put_nowait(Changes([]))
            await next_event(stream)
        assert loop.time() - started >= 0.1
        await stream.aclose()

    asyncio.run(scenario())


def test_a_request_ends_so_that_access_is_decided_again():
    async def scenario():
        pace = Pace(between=0, silence=0.01, request=0.05)
        stream = events(Feed(Source().changes), HistoryQuery(), pace)
        parts = [part async for part in stream]
        assert set(parts[2:]) == {b":\n\n"}

    asyncio.run(scenario())


async def told_by(store, record):
    """Follow a store, and return the tasks of the first change after the call."""
    async with aclosing(changes_of(store)) as batches:
        assert (await anext(batches)).records == []
        record()
        return [each.task_identifier for each in (await anext(batches)).records]


def test_a_store_for_threads_is_followed(plain_store):
    def record():
        plain_store.begin(Job("1", "send_email"), "w").end()

    assert asyncio.run(told_by(plain_store, record)) == ["send_email"]


@pytest.mark.parametrize("driver", ["aiosqlite"])
def test_a_store_for_asyncio_is_followed(driver, tmp_path):
    url = f"sqlite:///{tmp_path}/history.db"
    engine = create_engine(url)
    migrate.upgrade(engine)
    recording = create_store(engine)

    async def scenario():
        async with create_async_store(f"sqlite+{driver}:///{tmp_path}/history.db") as store:
            return await told_by(store, lambda: recording.begin(Job("1", "ping"), "w").end())

    assert asyncio.run(scenario()) == ["ping"]


def test_events_come_through_the_asgi_app(database):
    page = asgi_app(create_store(database.engine), access="open")
    recording = create_store(database.engine)

    async def scenario():
        parts = asyncio.Queue()

        async def send(message):
            if message["type"] == "http.response.body":
                parts.put_nowait(message["body"])
            else:
                parts.put_nowait(dict(message["headers"]))

        scope = {"type": "http", "method": "GET", "path": "/events", "headers": []}
        scope |= {"query_string": b"q=task:ping", "asgi": {"version": "3.0"}}
        request = asyncio.create_task(page(scope, asyncio.Queue().get, send))
        assert (await parts.get())[b"content-type"] == b"text/event-stream"
        assert await parts.get() == b"retry: 2000\n\n"
        assert await parts.get() == b"event: changed\ndata:\n\n"
        recording.begin(Job("1", "ping"), "w").end()
        assert await parts.get() == b"event: changed\ndata:\n\n"
        request.cancel()
        with suppress(asyncio.CancelledError):
            await request

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("access", "query", "status"), [(None, b"", 403), ("open", b"q=colour:red", 400)]
)
def test_events_are_refused_as_views_are(access, query, status, clock):
    page = asgi_app(create_store(clock=clock), access=access, clock=clock)

    async def scenario():
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/events", "headers": []}
        await page(scope | {"query_string": query}, asyncio.Queue().get, send)
        return sent[0]["status"]

    assert asyncio.run(scenario()) == status
