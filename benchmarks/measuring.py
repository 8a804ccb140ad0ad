"""Measurements that survive a noisy machine: ways in turn, many times, medians and their ratios."""

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
"""A name, what does so many of the same, and how many it is to do in a round."""


@dataclass(frozen=True)
class Table:
    """A part of the report: a heading, what was done, and the figures."""

    title: str
    told: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The part as Markdown."""
        lines = [self.headings, ["---"] * len(self.headings), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"### {self.title}\n\n{self.told}\n\n{table}\n"


def in_turn(ways: Sequence[Way], rounds: int, after: Callable[[], None]) -> dict[str, list[float]]:
    """How many a second each way does, one figure a round; a round before them is to warm up."""
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
    """Round by round, how many times the others the figures are."""
    return [figure / other for figure, other in zip(figures, others, strict=True)]


def middle(figures: Sequence[float], form: str = ",.0f") -> str:
    """The median, with the least and the most."""
    least, most = min(figures), max(figures)
    return f"{statistics.median(figures):{form}} ({least:{form}} - {most:{form}})"


def percentile(figures: Sequence[float], percent: int) -> float:
    """The one at the nearest rank."""
    return sorted(figures)[-(-len(figures) * percent // 100) - 1]


@contextmanager
def server(url: str | None) -> Iterator[URL]:
    """The server to measure on: that of the URL, or one of our own."""
    if url is not None:
        yield make_url(url).set(drivername="postgresql+psycopg")
        return
    with wheel_server() as handle:
        yield make_url(handle.get_uri()).set(drivername="postgresql+psycopg")


@contextmanager
def new_database(server: URL, name: str) -> Iterator[URL]:
    """A database of its own on the server, dropped at the end."""
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
    """An engine on which each statement is a transaction of its own."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


def raw(url: URL) -> psycopg.Connection:
    """A connection of psycopg's own, in autocommit."""
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)


def machine(server: URL) -> str:
    """What was measured on."""
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
