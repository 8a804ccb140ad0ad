"""The list views of dashboards, with as many executions as each can handle.

`python -m benchmarks.dashboards` measures only this. rq-dashboard needs a Redis, and there database
13, which has to be empty.
"""

from __future__ import annotations

import argparse
import json
import shelve
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import URL, text

from benchmarks.adapters import REDIS, reachable
from benchmarks.browsing import HOST, PORT, Browser, Load, serving
from benchmarks.filling import SPAN
from benchmarks.measuring import Table, machine, middle, new_database, new_engine, server
from benchmarks.peers import PAYLOAD
from benchmarks.web import history, serve_app
from benchmarks.web_apps import ADMIN_PATH

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
SLOW = 5_000.0
"""Milliseconds: a dashboard with a slower page is not measured with more executions."""

_REDIS_DATABASE = 13
_NEEDS_REDIS = "rq-dashboard"
_DAY = timedelta(days=1)

FLOWER_KEEPS = 100_000
"""The executions that Flower keeps by default."""


@dataclass(frozen=True)
class Dashboard:
    """A dashboard, and how to measure its list view.

    Attributes:
        serve: serves a number of executions, and yields the port.
        path: the path of the list view.
        data: the paths of what its scripts load.
        most: the greatest number of executions to measure.
    """

    serve: Callable[[int], AbstractContextManager[int]]
    path: str
    data: Sequence[str] = ()
    most: int = SIZES[-1]


_FILL_ADMIN = """
INSERT INTO django_celery_results_taskresult (
    task_id, task_name, task_args, task_kwargs, status, worker, content_type, content_encoding,
    result, date_created, date_started, date_done, traceback, meta
)
SELECT
    CAST(md5(CAST(n AS text)) AS uuid), 'task_' || n % 50, '"()"', :payload,
    CASE WHEN n % 100 IN (7, 43, 81) THEN 'FAILURE' ELSE 'SUCCESS' END,
    'worker-' || n % 8, 'application/json', 'utf-8', '{"ok": true}', at, at, at, NULL,
    '{"children": []}'
FROM (
    SELECT n, now() - (:rows - n) * (CAST(:span AS interval) / :rows) AS at
    FROM generate_series(CAST(1 AS bigint), :rows) AS n
) AS results
"""


@contextmanager
def _ours(server_url: URL, redis: str | None) -> Iterator[Dashboard]:
    @contextmanager
    def serve(rows: int) -> Iterator[int]:
        with history(server_url, rows) as url, serve_app("page", url) as port:
            yield port

    yield Dashboard(serve, "/")


@contextmanager
def _django_admin(server_url: URL, redis: str | None) -> Iterator[Dashboard]:
    with new_database(server_url, "admin") as url, new_engine(url) as engine:

        @contextmanager
        def serve(rows: int) -> Iterator[int]:
            with serve_app("admin", url) as port:
                with engine.connect() as connection:
                    connection.execute(text("TRUNCATE django_celery_results_taskresult"))
                    filling = {"rows": rows, "span": SPAN, "payload": json.dumps(PAYLOAD)}
                    connection.execute(text(_FILL_ADMIN), filling)
                    connection.execute(text("VACUUM (ANALYZE) django_celery_results_taskresult"))
                yield port

        yield Dashboard(serve, ADMIN_PATH)


@contextmanager
def _rq_dashboard(server_url: URL, redis: str | None) -> Iterator[Dashboard]:
    command = [sys.executable, "-m", "rq_dashboard", "-b", HOST, "-p", PORT, "-u", f"{redis}"]

    @contextmanager
    def serve(rows: int) -> Iterator[int]:
        with _empty(redis) as connection:
            _fill_rq(connection, rows)
            with serving(command, {}) as port:
                yield port

    table = "jobs/benchmark/finished/8/dsc/1"
    yield Dashboard(serve, f"/0/view/{table}", [f"/0/data/{table}.json"], most=1_000_000)


def _fill_rq(connection: Any, rows: int) -> None:
    """Create finished jobs without results."""
    from rq.job import Job, JobStatus
    from rq.registry import FinishedJobRegistry

    job = Job.create(
        "tasks.ship_order",
        kwargs=PAYLOAD,
        connection=connection,
        origin="benchmark",
        status=JobStatus.FINISHED,
    )
    job.started_at = job.ended_at = job.created_at
    values = job.to_dict()
    registry = FinishedJobRegistry("benchmark", connection=connection).key
    expires = datetime.now(UTC).timestamp() + _DAY.total_seconds()
    for first in range(0, rows, 5_000):
        pipeline = connection.pipeline(transaction=False)
        for number in range(first, min(rows, first + 5_000)):
            pipeline.hset(Job.key_for(f"job-{number}"), mapping=values)
            pipeline.zadd(registry, {f"job-{number}": expires + number / rows})
        pipeline.execute()


@contextmanager
def _flower(server_url: URL, redis: str | None) -> Iterator[Dashboard]:
    @contextmanager
    def serve(rows: int) -> Iterator[int]:
        with TemporaryDirectory() as folder:
            state = str(Path(folder, "flower"))
            _fill_flower(state, rows)
            command = [sys.executable, "-m", "celery", "--broker", "memory://", "flower"]
            command += [f"--port={PORT}", f"--address={HOST}", "--logging=error"]
            command += ["--persistent=True", f"--db={state}"]
            with serving(command, {}) as port:
                yield port

    names = ("name", "uuid", "state", "received", "runtime", "worker")
    shown = {f"columns[{number}][data]": name for number, name in enumerate(names)}
    order = {"order[0][column]": 3, "order[0][dir]": "desc"}
    data = urlencode({"draw": 1, "start": 0, "length": 10, **order, **shown})
    yield Dashboard(serve, "/tasks", [f"/tasks/datatable?{data}"], most=FLOWER_KEEPS)


def _fill_flower(path: str, rows: int) -> None:
    """Write the file in which Flower keeps what it has seen, as it does when it stops."""
    from flower.events import EventsState

    state = EventsState(max_tasks_in_memory=FLOWER_KEEPS)
    now = datetime.now(UTC).timestamp()
    for number in range(rows):
        ids = {
            "uuid": f"job-{number}",
            "hostname": f"worker-{number % 8}",
            "pid": 1,
            "utcoffset": 0,
        }
        at = now - (rows - number) * SPAN.total_seconds() / rows
        for kind, more in (
            ("received", {"name": f"task_{number % 50}", "args": "()", "kwargs": str(PAYLOAD)}),
            ("started", {}),
            ("succeeded", {"result": "{'ok': True}", "runtime": 0.1}),
        ):
            times = {"timestamp": at, "local_received": at, "clock": number}
            times |= {"pid": 1, "utcoffset": 0}
            state.event({"type": f"task-{kind}", **ids, **times, **more})
    with shelve.open(path, flag="n") as stored:  # noqa: S301 - Flower's own format
        stored["events"], stored["counter"] = state, dict(state.counter)


@contextmanager
def _empty(url: str | None) -> Iterator[Any]:
    """Yield a connection to a database of Redis, which has to be empty, and empty it at the end."""
    from redis import Redis

    with Redis.from_url(f"{url}") as connection:
        if connection.dbsize():
            raise RuntimeError(f"database {_REDIS_DATABASE} of Redis has to be empty")
        try:
            yield connection
        finally:
            connection.flushdb()


DASHBOARDS = {
    "jobhistory": (_ours, ()),
    "django-celery-results' admin": (_django_admin, ("django_celery_results",)),
    "rq-dashboard": (_rq_dashboard, ("rq_dashboard",)),
    "Flower": (_flower, ("flower",)),
}
"""For each dashboard what yields it, and the modules that it needs."""


def measure(
    server_url: URL, rows: int, rounds: int, *, only: Sequence[str] = tuple(DASHBOARDS)
) -> dict[tuple[str, int], list[Load]]:
    """Return how the list of each dashboard loaded, by its name and the number of executions."""
    found = reachable(*REDIS)
    redis = found and f"{found.rstrip('/')}/{_REDIS_DATABASE}"
    loads: dict[tuple[str, int], list[Load]] = {}
    for name in only:
        new, needs = DASHBOARDS[name]
        if not all(map(find_spec, needs)) or (redis is None and name == _NEEDS_REDIS):
            print(f"skipped: {name}, as it or Redis is missing", flush=True)
            continue
        with new(server_url, redis) as dashboard:
            for size in SIZES:
                if size > min(rows, dashboard.most):
                    break
                with dashboard.serve(size) as port:
                    loads[name, size] = _load(port, dashboard, rounds)
                if statistics.median(load.complete for load in loads[name, size]) > SLOW:
                    break
    return loads


def _load(port: int, dashboard: Dashboard, rounds: int) -> list[Load]:
    """Load the list view, after once to warm up."""
    browser = Browser(port, timeout=300)
    loads = [browser.load(dashboard.path, dashboard.data) for _ in range(rounds + 1)]
    browser.close()
    return loads[1:]


def report(loads: dict[tuple[str, int], list[Load]]) -> Table:
    """Return the table of the milliseconds that the list of each dashboard takes."""
    return Table(
        "Lists of other dashboards",
        "Milliseconds of the first page of the list, newest first, with all styles, scripts and "
        "data: medians, with the minimum and maximum. A dashboard whose list takes longer than "
        f"{SLOW / 1000:.0f} s is not measured with more executions. Flower keeps {FLOWER_KEEPS:,} "
        "by default. rq-dashboard reads finished jobs from Redis, where RQ keeps them for 500 s "
        "by default; here for a day.",
        ["dashboard", "executions", "first byte", "complete page"],
        [
            [
                name,
                f"{size:,}",
                middle([load.first_byte for load in each], ",.1f"),
                middle([load.complete for load in each], ",.1f"),
            ]
            for (name, size), each in loads.items()
        ],
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboards", description=__doc__)
    parser.add_argument("--url", help="a PostgreSQL server on which databases may be created")
    parser.add_argument("--rows", type=int, default=1_000_000, help="the most executions")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=DASHBOARDS, nargs="+", default=tuple(DASHBOARDS))
    options = parser.parse_args()
    with server(options.url) as url:
        print(machine(url), flush=True)
        loads = measure(url, options.rows, options.rounds, only=options.only)
    print(report(loads).markdown())


if __name__ == "__main__":
    main()
