"""Processes that record at a steady pace, next to what is measured."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from time import perf_counter

from sqlalchemy import URL

from benchmarks.peers import PAYLOAD
from jobhistory import Job, create_store

PAIRS_PER_SECOND = 200
WARM_UP_SECONDS = 0.5

Span = tuple[float, float]
"""When something began and ended, by `perf_counter`, which all processes share."""


def record_steadily(url: URL, pipe: Connection, *, notify: bool = False) -> None:
    """Record at a steady pace until a message arrives, then send the times of all calls.

    Before, send a message when it has begun.
    """
    calls: list[Span] = []
    with create_store(url, notify=notify) as store:
        store.query(limit=1)
        pipe.send("begun")
        due = perf_counter()
        for number in itertools.count():
            if pipe.poll():
                break
            time.sleep(max(0.0, due - perf_counter()))
            due += 1 / PAIRS_PER_SECOND
            ids = (f"live-{os.getpid()}-{number}", "live", f"live-{number}")
            for call in (
                lambda ids=ids: store.record_start(Job(ids[0], "live", PAYLOAD), *ids[1:]),
                lambda ids=ids: store.record_completion(*ids, 5),
            ):
                begun = perf_counter()
                call()
                calls.append((begun, perf_counter()))
    pipe.send(calls)


@contextmanager
def recording(url: URL, *, notify: bool = False) -> Iterator[list[Span]]:
    """Record in another process; at the end, add the times of its calls to the list."""
    calls: list[Span] = []
    with in_process(partial(record_steadily, notify=notify), url) as pipe:
        pipe.recv()
        time.sleep(WARM_UP_SECONDS)
        yield calls
        pipe.send("stop")
        calls += pipe.recv()


@contextmanager
def in_process(do: Callable[..., None], *arguments: object) -> Iterator[Connection]:
    """Call a function with the arguments and a pipe in another process; yield the pipe's end."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=do, args=(*arguments, theirs), daemon=True)
    process.start()
    yield ours
    process.join()


def during(calls: Sequence[Span], spans: Sequence[Span]) -> list[float]:
    """Return the milliseconds of the calls that overlap with one of the spans."""
    return [
        (ended - begun) * 1000
        for begun, ended in calls
        if any(begun <= last and ended >= first for first, last in spans)
    ]
