"""How fast the web page's views load next to a recorder, and what viewers cost the recorder."""

from __future__ import annotations

import asyncio
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from html import unescape
from multiprocessing.connection import Connection
from time import perf_counter
from urllib.parse import urlencode

from sqlalchemy import URL, text

from benchmarks.browsing import HOST, PORT, Browser, Load, serving
from benchmarks.filling import SPAN, fill
from benchmarks.measuring import Table, middle, new_database, new_engine, percentile
from benchmarks.steady import PAIRS_PER_SECOND, Span, in_process, recording
from benchmarks.web_apps import VARIABLE
from jobhistory import HistoryStore, create_store
from jobhistory.web.routes import VIEWS

FIRST_BYTE, COMPLETE = 100, 300
"""The targets, in milliseconds."""

VIEWERS = 200
_POLL_SECONDS = 2.0
_NEWS = re.compile(rb' hx-get="(news[^"]*)"')
_EVENTS = re.compile(rb' sse-connect="([^"]*)"')

ALONE, LOADING, WATCHED = "alone", "views load in turn", f"{VIEWERS} viewers"

SEARCHES = {
    "a task": "task:task_7",
    "failed": "status:failed",
    "a job id": "job-id:job-{middle}",
    "failures of a task": "task:task_7 status:failed",
    "failures of a rare task": "task:rare_task status:failed",
    "a text that no error has": 'error-contains:"no such text"',
}
_PARAMETERS = {
    "tasks": {},
    "task": {"task": "task_7"},
    "failures": {},
    "execution": {"id": "{failed}"},
    "running": {},
    "workers": {},
    "metrics": {},
    "suggest": {"q": "task:ta"},
}
"""The parameters of each view; if a view has no entry, it is not a page."""


@contextmanager
def history(server: URL, rows: int) -> Iterator[URL]:
    """Yield the URL of a history that ends now and has been folded."""
    with new_database(server, "web") as url, new_engine(url) as engine:
        fill(engine, rows, is_queued=True, now=datetime.now(UTC))
        with create_store(url) as store:
            store.fold()
        with engine.connect() as connection:
            connection.execute(text("VACUUM (ANALYZE) job_history_rollup, job_history_ended"))
        yield url


def serve_app(name: str, url: URL) -> AbstractContextManager[int]:
    """Serve one of the web apps with a database, and yield the port."""
    command = [sys.executable, "-m", "benchmarks.web_apps", name, PORT]
    return serving(command, {VARIABLE: url.render_as_string(hide_password=False)})


def paths(store: HistoryStore, rows: int) -> dict[str, str]:
    """Return the path of each view by its name."""
    (failed,) = store.query(status="failed", limit=1)
    known = {"middle": rows // 2, "failed": failed.id}
    searches = {
        f"executions: {name}": "/?" + urlencode({"q": terms.format(**known)})
        for name, terms in SEARCHES.items()
    }
    others = {
        view: f"/{view}?"
        + urlencode({name: value.format(**known) for name, value in given.items()})
        for view, given in _PARAMETERS.items()
        if view in VIEWS
    }
    return {"executions": "/"} | searches | others


def measure_views(url: URL, port: int, rows: int, rounds: int) -> dict[str, list[Load]]:
    """Return how each view loaded, by its name."""
    with create_store(url) as store:
        wanted = paths(store, rows)
    loads: dict[str, list[Load]] = {name: [] for name in wanted}
    browser = Browser(port)
    for number in range(rounds + 1):
        for name, path in wanted.items():
            load = browser.load(path)
            if number:
                loads[name].append(load)
    browser.close()
    return loads


def measure_viewers(port: int, rounds: int, seconds: float) -> tuple[dict[str, list[Span]], float]:
    """Return when nobody looked and when many did, and the updates per viewer and second."""
    spans: dict[str, list[Span]] = {ALONE: [], WATCHED: []}
    updates = 0
    for _ in range(rounds):
        spans[ALONE].append(_pause(seconds))
        with in_process(watch, port) as pipe:
            pipe.recv()
            time.sleep(1)
            pipe.send("count")
            pipe.recv()
            spans[WATCHED].append(_pause(seconds))
            pipe.send("stop")
            updates += pipe.recv()
        time.sleep(1)
    return spans, updates / VIEWERS / (rounds * seconds)


def _pause(seconds: float) -> Span:
    begun = perf_counter()
    time.sleep(seconds)
    return begun, perf_counter()


def watch(port: int, pipe: Connection) -> None:
    """Be the viewers. Send a message when all have looked, and their updates at each message."""
    asyncio.run(_watch(port, pipe))


async def _watch(port: int, pipe: Connection) -> None:
    updates = [0] * VIEWERS
    viewers = [asyncio.create_task(_view(port, updates, number)) for number in range(VIEWERS)]
    while not all(updates):
        await asyncio.sleep(0.1)
    pipe.send("all look")
    message, before = "count", 0
    while message != "stop":
        message = await asyncio.to_thread(pipe.recv)
        pipe.send(sum(updates) - before)
        before = sum(updates)
    for viewer in viewers:
        viewer.cancel()
    await asyncio.gather(*viewers, return_exceptions=True)


async def _view(port: int, updates: list[int], number: int) -> None:
    """Load the list, and what it says is new: when the server says so, or else again and again."""
    page = b"".join([part async for part in _received(port, "")])
    news, events = (
        unescape(found[1].decode()) if (found := each.search(page)) else None
        for each in (_NEWS, _EVENTS)
    )
    assert news is not None
    async for _ in _told(port, events) if events else _every(_POLL_SECONDS):
        async for _ in _received(port, news):
            pass
        updates[number] += 1


async def _every(seconds: float) -> AsyncIterator[None]:
    while True:
        yield
        await asyncio.sleep(seconds)


async def _told(port: int, events: str) -> AsyncIterator[None]:
    """Yield for each event that the server sends."""
    while True:
        async for part in _received(port, events):
            if b"event:" in part:
                yield


async def _received(port: int, path: str) -> AsyncIterator[bytes]:
    """Yield what the server answers, as it arrives."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(f"GET /{path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    try:
        while part := await reader.read(65536):
            yield part
    finally:
        writer.close()


def measure(
    server: URL, rows: int, rounds: int, seconds: float
) -> tuple[dict[str, list[Load]], dict[str, list[list[float]]], float]:
    """Return how views loaded, the milliseconds of recording by way and round, and the updates."""
    with (
        history(server, rows) as url,
        serve_app("page", url) as port,
        recording(url, notify=True) as calls,
    ):
        begun = perf_counter()
        loads = measure_views(url, port, rows, rounds)
        while_loading = [(begun, perf_counter())]
        spans, updates = measure_viewers(port, max(1, rounds // 4), seconds)
    spans = {ALONE: spans[ALONE], LOADING: while_loading, WATCHED: spans[WATCHED]}
    latencies = {
        way: [
            [(ended - begun) * 1000 for begun, ended in calls if first <= begun <= last]
            for first, last in rounds_of
        ]
        for way, rounds_of in spans.items()
    }
    return loads, latencies, updates


def report_views(loads: dict[str, list[Load]], rows: int) -> Table:
    """Return the table of the milliseconds that each view takes."""
    return Table(
        "The web page",
        f"Median milliseconds of the views of a history of {rows:,} rows over {SPAN.days} days, "
        f"with the minimum and maximum, while another process records {PAIRS_PER_SECOND} pairs of "
        "start and outcome per second. A complete page includes all styles and scripts. The "
        f"targets are {FIRST_BYTE} and {COMPLETE}.",
        ["view", "first byte", "complete page", "KiB of HTML"],
        [
            [
                name,
                middle([load.first_byte for load in each], ",.1f"),
                middle([load.complete for load in each], ",.1f"),
                f"{statistics.median(load.size for load in each) / 1024:.0f}",
            ]
            for name, each in loads.items()
        ],
    )


def missed(loads: dict[str, list[Load]]) -> list[str]:
    """Return the names of the views whose medians miss a target."""
    return [
        name
        for name, each in loads.items()
        if statistics.median(load.first_byte for load in each) > FIRST_BYTE
        or statistics.median(load.complete for load in each) > COMPLETE
    ]


def report_viewers(latencies: dict[str, list[list[float]]], updates: float) -> Table:
    """Return the table of the latencies of recording, with and without viewers."""
    return Table(
        "Viewers of the web page",
        f"Milliseconds of the calls of a process that records {PAIRS_PER_SECOND} pairs per second: "
        f"medians over the rounds, with the minimum and maximum. One process serves {VIEWERS} "
        "viewers of the list of all executions, each of which loaded what is new "
        f"{updates:.2f} times a second.",
        ["way", "p50", "p99", "worst"],
        [
            [
                way,
                middle([statistics.median(calls) for calls in rounds], ",.1f"),
                middle([percentile(calls, 99) for calls in rounds], ",.1f"),
                f"{max(max(calls) for calls in rounds):,.1f}",
            ]
            for way, rounds in latencies.items()
        ],
    )
