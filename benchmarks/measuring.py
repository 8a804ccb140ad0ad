"""Measurements that are reliable on a noisy machine: interleaved rounds, medians and ratios."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

import psycopg
from sqlalchemy import URL, Engine, create_engine, make_url, text

from tests.servers import wheel_server

Way = tuple[str, Callable[[int], None], int]
"""A name, a function that repeats an operation, and the number of repetitions per round."""


@dataclass(frozen=True)
class Table:
    """A section of the report: a heading, a description and a table."""

    title: str
    description: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the section as Markdown."""
        lines = [self.headings, ["---"] * len(self.headings), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"### {self.title}\n\n{self.description}\n\n{table}\n"


def in_turn(ways: Sequence[Way], rounds: int, after: Callable[[], None]) -> dict[str, list[float]]:
    """Return the operations per second of each way by round, after one round to warm up."""
    speeds: dict[str, list[float]] = {name: [] for name, _, _ in ways}
    for number in range(rounds + 1):
        for name, do, count in ways:
            begun = perf_counter()
            do(count)
            if number:
                speeds[name].append(count / (perf_counter() - begun))
        after()
    return speeds


def ratios(figures: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the ratios of two series of figures, round by round."""
    return [figure / other for figure, other in zip(figures, others, strict=True)]


def middle(figures: Sequence[float], form: str = ",.0f") -> str:
    """Return the median with the minimum and maximum."""
    least, most = min(figures), max(figures)
    return f"{statistics.median(figures):{form}} ({least:{form}} - {most:{form}})"


def percentile(figures: Sequence[float], percent: int) -> float:
    """Return the percentile by nearest rank."""
    return sorted(figures)[-(-len(figures) * percent // 100) - 1]


@contextmanager
def server(url: str | None) -> Iterator[URL]:
    """Yield the URL of the server to measure: the given one, or that of a temporary server."""
    if url is not None:
        yield make_url(url).set(drivername="postgresql+psycopg")
        return
    with wheel_server() as handle:
        yield make_url(handle.get_uri()).set(drivername="postgresql+psycopg")


@contextmanager
def new_database(server: URL, name: str) -> Iterator[URL]:
    """Yield the URL of a new database on the server, and drop it at the end."""
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    name = f"jobhistory_benchmark_{name}"
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'"))
    try:
        yield server.set(database=name)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@contextmanager
def new_engine(url: URL) -> Iterator[Engine]:
    """Yield an engine in AUTOCOMMIT mode."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def raw(url: URL) -> psycopg.Connection:
    """Return a plain psycopg connection in AUTOCOMMIT mode."""
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)


def machine(server: URL) -> str:
    """Return a description of the machine and the server."""
    with new_engine(server) as engine, engine.connect() as connection:
        version = connection.scalar(text("SHOW server_version"))
        commit = connection.scalar(text("SHOW synchronous_commit"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}: PostgreSQL {version}, synchronous_commit {commit}, "
        f"Python {platform.python_version()}, {os.cpu_count()} cores of {_processor()}, "
        f"{platform.system()}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
