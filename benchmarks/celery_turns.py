"""Turns of Celery workers, one for each way, which run all the time and take turns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.celery_worker import OTEL, RESULTS, VARIABLE, new_app, wait_for
from benchmarks.frameworks import ALONE, DIRECT, IN_BACKGROUND, ON_SQLITE, Places, Ways

_SECONDS = 120
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


@contextmanager
def celery_worker(places: Places) -> Iterator[Ways]:
    """Workers with one child process each, on RabbitMQ. A turn is what one of them does alone."""
    broker = places.rabbitmq or ""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        yield {
            way: partial(_turn, broker, folder, stack.enter_context(_worker(way, places)))
            for way in (ALONE, DIRECT, ON_SQLITE, IN_BACKGROUND, RESULTS, OTEL)
        }


@contextmanager
def _worker(way: str, places: Places) -> Iterator[str]:
    """Start a worker, and yield the name of its queue."""
    queue = f"jobhistory-{uuid.uuid4().hex}"
    settings = {
        "way": way,
        "url": places.postgresql,
        "sqlite": places.sqlite,
        "broker": places.rabbitmq,
        "queue": queue,
    }
    command = ["-m", "celery", "-A", "benchmarks.celery_worker:app", "worker", "-l", "CRITICAL"]
    command += ["--concurrency=1", "-Q", queue, "-n", f"{queue}@%h"]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", *command, *QUIET],
        env={**os.environ, VARIABLE: json.dumps(settings)},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield queue
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_SECONDS)


def _turn(broker: str, folder: str, queue: str, count: int) -> float:
    """Return the seconds that a worker needs for tasks that are in its queue already."""
    begin, end = (f"{folder}/{uuid.uuid4().hex}" for _ in range(2))
    with new_app(broker, queue) as app:
        send: Any = partial(app.send_task, queue=queue)
        send("wait", [begin])
        for _ in range(count):
            send("nothing")
        send("signal", [end])
    begun = perf_counter()
    Path(begin).touch()
    wait_for(end)
    return perf_counter() - begun
