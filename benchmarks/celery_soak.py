"""Send 10,000 tasks through one Celery worker: `python -m benchmarks.celery_soak`.

It reports how much memory the worker's processes keep over time, with history and without, how many
connections they have to the database, and whether history has what the broker and the worker have
counted. It takes about five minutes, and needs a RabbitMQ (`--broker`). This module is also the app
that the worker imports.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
from celery import Celery, Task, signals
from sqlalchemy import URL, text

from benchmarks.measuring import Table, machine, new_database, new_engine, server
from jobhistory import Recorder, create_store, migrate
from jobhistory.contrib.celery import record_tasks

BROKER = "amqp://guest:guest@127.0.0.1:5672//"
MEBIBYTE = 1024 * 1024
BY_TASK = "SELECT task_identifier, count(*) FROM job_history GROUP BY 1 ORDER BY 1"
STARTED = "SELECT count(*) FROM job_history WHERE status = 'started'"

app = Celery("soak", broker=os.environ.get("JOBHISTORY_SOAK_BROKER", BROKER), set_as_current=False)
app.conf.task_default_queue = os.environ.get("JOBHISTORY_SOAK_QUEUE", "jobhistory_soak")
app.conf.broker_transport_options = {"confirm_publish": True}
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_prefetch_multiplier = 16

WAYS = ("Celery alone", "with a store", "with a recorder")

_way = os.environ.get("JOBHISTORY_SOAK_WAY", WAYS[0])
if _way != WAYS[0]:  # in a worker
    store = create_store(os.environ["JOBHISTORY_SOAK_URL"])
    record_tasks(app, Recorder(store) if _way == WAYS[2] else store)

_ended = count()


@signals.task_postrun.connect
def collect_garbage(**_: Any) -> None:
    """Free what waits for Python to do so: Celery leaves cycles behind each failure.

    Without this, processes grow to twice their size before Python looks for them, with history or
    without, which hides what they keep.
    """
    if next(_ended) % 100 == 0:
        gc.collect()


@app.task(name="succeed")
def succeed(value: Any) -> None:
    """Do nothing."""


@app.task(name="fail")
def fail(value: Any) -> None:
    """Raise an error."""
    raise ValueError(value)


@app.task(name="retry", bind=True, max_retries=1)
def retry(self: Task, value: Any) -> None:
    """Succeed at the second attempt."""
    if self.request.retries == 0:
        raise self.retry(exc=LookupError(value), countdown=0)


@dataclass(frozen=True)
class Sample:
    """What the worker takes at one moment.

    Attributes:
        attempts: the number of attempts that the worker has received.
        main: the memory of the main process, in MiB: its resident set.
        children: the mean of those of its children.
        connections: the number of connections that all of them have to the database.
    """

    attempts: int
    main: float
    children: float
    connections: int


def send(number_of_tasks: int) -> Counter[str]:
    """Send tasks of each kind; return the number of attempts they need, by kind."""
    attempts: Counter[str] = Counter()
    with app.producer_pool.acquire() as producer:
        for number in range(number_of_tasks):
            name = {0: "fail", 10: "retry"}.get(number % 20, "succeed")
            value = "x" * 10_000 if number % 25 == 0 else number
            app.tasks[name].apply_async((value,), producer=producer)
            attempts[name] += 2 if name == "retry" else 1
    return attempts


@contextmanager
def worker(url: URL, queue: str, way: str) -> Iterator[psutil.Process]:
    """Run a worker with four children."""
    environment = os.environ | {
        "JOBHISTORY_SOAK_URL": url.render_as_string(hide_password=False),
        "JOBHISTORY_SOAK_BROKER": app.conf.broker_url,
        "JOBHISTORY_SOAK_QUEUE": queue,
        "JOBHISTORY_SOAK_WAY": way,
    }
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.celery_soak", "worker"]
    with subprocess.Popen(
        [*command, "-c", "4", "-l", "CRITICAL", "-n", f"{queue}@%h", "--without-gossip"],
        cwd=Path(__file__).parent.parent,
        env=environment,
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


def sample(process: psutil.Process, connection: Any, database: str) -> Sample:
    """Return what the worker takes now."""
    sizes = [each.memory_info().rss / MEBIBYTE for each in process.children(recursive=True)]
    connections = connection.scalar(
        text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = :database AND pid <> pg_backend_pid()"
        ),
        {"database": database},
    )
    main = process.memory_info().rss / MEBIBYTE
    return Sample(sum(received().values()), main, statistics.mean(sizes or [0]), connections)


def received() -> dict[str, int]:
    """Return how many messages the worker has received, by task."""
    answers = app.control.inspect(timeout=5, limit=1).stats() or {}
    return dict(sorted(next(iter(answers.values()))["total"].items())) if answers else {}


def soak(url: URL, queue: str, number_of_tasks: int, way: str) -> tuple[list[Sample], list[str]]:
    """Return samples over time, and what the counts are at the end."""
    app.conf.task_default_queue = queue
    with app.connection_for_write() as broker, new_engine(url) as engine:
        expected = send(number_of_tasks)
        channel = broker.default_channel
        queued = channel.queue_declare(queue, passive=True).message_count
        with worker(url, queue, way) as process, engine.connect() as connection:
            samples = [sample(process, connection, str(url.database))]
            until = time.monotonic() + 600
            while samples[-1].attempts < expected.total() and time.monotonic() < until:
                time.sleep(1)
                samples.append(sample(process, connection, str(url.database)))
            by_worker = received()
        left = channel.queue_declare(queue, passive=True).message_count
        channel.queue_delete(queue)
        with engine.connect() as connection:
            rows = dict(connection.execute(text(BY_TASK)).all())
            started = connection.scalar(text(STARTED))
    facts = [
        f"the broker has confirmed and queued {queued:,} messages, and {left} are left",
        f"received by the worker, by task: {by_worker}",
    ]
    if way != WAYS[0]:
        facts += [
            f"attempts in history, by task: {rows}; {started} without an outcome",
            "they agree" if rows == dict(expected) == by_worker else "THEY DIFFER",
        ]
    return samples, facts


def report(samples: list[Sample], title: str) -> Table:
    """Return the table of some samples: the first with all processes, and then each tenth."""
    running = [each for each in samples if each.attempts and each.children]
    last = running[-1].attempts
    tenths = [
        next(each for each in running if each.attempts >= last * share / 10)
        for share in range(1, 11)
    ]
    chosen = dict.fromkeys(tenths)  # without those that one sample passed at once
    return Table(
        title,
        "Resident memory in MiB, and connections to the database.",
        ["attempts", "main process", "mean of 4 children", "connections"],
        [
            [
                f"{each.attempts:,}",
                f"{each.main:.1f}",
                f"{each.children:.1f}",
                f"{each.connections}",
            ]
            for each in chosen
        ],
    )


def main() -> None:
    """Print the table of each way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.celery_soak", description=__doc__)
    parser.add_argument("--url", help="a PostgreSQL server on which databases may be created")
    parser.add_argument("--broker", default=BROKER, help="a RabbitMQ (default: %(default)s)")
    parser.add_argument("--tasks", type=int, default=10_000)
    options = parser.parse_args()
    app.conf.broker_url = options.broker
    with server(options.url) as postgres:
        print(machine(postgres), flush=True)
        for way in WAYS:
            with new_database(postgres, "celery_soak") as url:
                with new_engine(url) as engine:
                    migrate.upgrade(engine)
                queue = f"jobhistory_soak_{uuid4().hex[:8]}"
                samples, counts = soak(url, queue, options.tasks, way)
            print(report(samples, way).markdown(), *counts, "", sep="\n", flush=True)


if __name__ == "__main__":
    main()
