"""The cost of recording an empty task in each framework, and of what else records tasks.

`python -m benchmarks.adapters` measures only this. Each framework is measured in a process of its
own, which runs this module with the name of the framework.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import URL, create_engine

from benchmarks.frameworks import (
    ALONE,
    DIRECT,
    FRAMEWORKS,
    IN_BACKGROUND,
    NEED_REDIS,
    ON_SQLITE,
    Places,
)
from benchmarks.measuring import Table, machine, new_database, ratios, server
from jobhistory import migrate

REDIS = ("JOBHISTORY_TEST_REDIS_URL", "redis://127.0.0.1:6379")
RABBITMQ = ("JOBHISTORY_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
WORKER = "Celery, worker"
CELERY = ("Celery, eager", WORKER)

Milliseconds = dict[str, list[float]]
"""The milliseconds per task by round, for each way."""


def measure(server_url: URL, rounds: int, count: int) -> dict[str, Milliseconds]:
    """Return the milliseconds per task of each way of each framework that is installed."""
    redis, rabbitmq = reachable(*REDIS), reachable(*RABBITMQ)
    found: dict[str, Milliseconds] = {}
    for name in (*FRAMEWORKS, WORKER):
        lacking = {"Redis": redis is None and name in NEED_REDIS}
        lacking |= {"RabbitMQ": rabbitmq is None and name == WORKER}
        lacking |= {"the framework": not _is_installed(name)}
        if any(lacking.values()):
            missing = " and ".join(what for what, lacks in lacking.items() if lacks)
            print(f"skipped: {name}, as {missing} is missing", flush=True)
            continue
        with _databases(server_url) as (url, sqlite):
            places = Places(url, sqlite, redis, rabbitmq)
            found[name] = _in_a_process(name, places, rounds, count)
    return found


def report(found: dict[str, Milliseconds]) -> list[Table]:
    """Return the table of Celery and what else records its tasks, and that of all frameworks."""
    tables = []
    if celery := {name: found[name] for name in CELERY if name in found}:
        tables.append(_report_celery(celery))
    ways = (DIRECT, ON_SQLITE, IN_BACKGROUND)
    rows = [
        [name, _milliseconds(times[ALONE]), *(_with_ratio(times, way) for way in ways)]
        for name, times in found.items()
    ]
    described = (
        "Milliseconds per task; in parentheses the time that it adds. Medians over the rounds. "
        "The time of a Recorder includes that in which it writes in the background."
    )
    headings = ["framework", "alone", "direct", "direct, on SQLite", "Recorder"]
    return [*tables, Table("An empty task in each framework", described, headings, rows)]


def _report_celery(found: dict[str, Milliseconds]) -> Table:
    names = list(next(iter(found.values())))
    rows = [
        [name, *(cell for times in found.values() for cell in _of_alone(times, name))]
        for name in names
    ]
    headings = [heading for name in found for heading in (f"{name}, ms", "of alone")]
    return Table(
        "An empty task of Celery",
        "Milliseconds per task, and the ratio to Celery alone: medians over the rounds, with the "
        "minimum and maximum of the ratio. The worker has one child process, and RabbitMQ.",
        ["way", *headings],
        rows,
    )


def _of_alone(times: Milliseconds, name: str) -> list[str]:
    if name not in times:
        return ["", ""]
    of_alone = ratios(times[name], times[ALONE])
    spread = f"({min(of_alone):.1f} - {max(of_alone):.1f})"
    return [_milliseconds(times[name]), f"{statistics.median(of_alone):.1f} {spread}"]


def _with_ratio(times: Milliseconds, way: str) -> str:
    if way not in times:
        return ""
    added = statistics.median(
        time - alone for time, alone in zip(times[way], times[ALONE], strict=True)
    )
    return f"{_milliseconds(times[way])} ({added:+.2f})"


def _milliseconds(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.2f}"


def reachable(variable: str, default: str) -> str | None:
    """Return the URL of a broker that accepts connections; `None` if it does not."""
    url = os.environ.get(variable, default)
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=3).close()
    except OSError:
        return None
    return url


def _is_installed(name: str) -> bool:
    module = name.partition(",")[0].partition(" ")[0].lower()
    return find_spec(module) is not None


@contextmanager
def _databases(server_url: URL) -> Iterator[tuple[str, str]]:
    """Yield the URLs of new databases on PostgreSQL and SQLite, with history tables."""
    with ExitStack() as stack:
        url = stack.enter_context(new_database(server_url, "adapters"))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        sqlite = URL.create("sqlite", database=str(Path(folder, "history.db")))
        for each in (url, sqlite):
            engine = create_engine(each)
            migrate.upgrade(engine)
            engine.dispose()
        yield url.render_as_string(hide_password=False), str(sqlite)


def _in_a_process(name: str, places: Places, rounds: int, count: int) -> Milliseconds:
    arguments = json.dumps([name, asdict(places), rounds, count])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.adapters", "--framework", arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: Milliseconds = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure_here(name: str, places: Places, rounds: int, count: int) -> Milliseconds:
    """Return the times of the ways of a framework, which take turns, after a round to warm up."""
    from benchmarks.celery_turns import celery_worker

    with (celery_worker if name == WORKER else FRAMEWORKS[name])(places) as ways:
        times: Milliseconds = {way: [] for way in ways}
        for number in range(rounds + 1):
            for way, turn in ways.items():
                seconds = turn(count)
                if number:
                    times[way].append(1000 * seconds / count)
    return times


def main() -> None:
    """Measure, and print the tables; or measure one framework, and print its times as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adapters", description=__doc__)
    parser.add_argument("--url", help="a PostgreSQL server on which databases may be created")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--tasks", type=int, default=200, help="the tasks of a turn")
    parser.add_argument("--framework", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.framework:
        name, places, rounds, count = json.loads(options.framework)
        print(json.dumps(_measure_here(name, Places(**places), rounds, count)))
        return
    with server(options.url) as url:
        print(machine(url), flush=True)
        for table in report(measure(url, options.rounds, options.tasks)):
            print(table.markdown())


if __name__ == "__main__":
    main()
