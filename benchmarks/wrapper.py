"""What a command pays for its wrapper: `python -m benchmarks.wrapper`.

Each way runs a command that writes down when it started. The ways take turns.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from sqlalchemy import create_engine

from benchmarks.measuring import Table, machine, middle, new_database, new_engine, server
from jobhistory import migrate

_COMMAND = ["sh", "-c", 'date +%s%N > "$0"']
"""Writes the time of its start, in nanoseconds, to the file that follows."""

_BY_HAND = r"""#!/bin/sh
# A wrapper as people write it: a row at the start, an update at the end.
begun=$(date +%s%N)
id=$(sqlite3 "$DATABASE" "INSERT INTO runs (command, begun) VALUES ('$1', $begun) RETURNING id")
"$@"
status=$?
sqlite3 "$DATABASE" "UPDATE runs SET status = $status, ended = $(date +%s%N) WHERE id = $id"
exit $status
"""
_RUNS = "CREATE TABLE runs (id INTEGER PRIMARY KEY, command, begun, ended, status)"
_PYTHON = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


class Cost(NamedTuple):
    """What one run took, in milliseconds.

    Attributes:
        start: from the start of the wrapper to that of the command.
        total: until the end of the wrapper.
        cpu: the CPU time of the wrapper, the command and what else they started.
    """

    start: float
    total: float
    cpu: float


class Way(NamedTuple):
    """A way to run a command.

    Attributes:
        name: its name.
        words: what comes before the command; `None` if a program is not installed.
    """

    name: str
    words: list[str] | None


def ways(folder: Path, postgresql: str) -> list[Way]:
    """Return the ways to compare, with databases in a folder and on a server."""
    script = folder / "by-hand"
    script.write_text(_BY_HAND)
    script.chmod(0o700)
    jobhistory = os.path.join(sysconfig.get_path("scripts"), "jobhistory")
    run = [jobhistory, "run", "--url"]
    return [
        Way("the bare command", []),
        Way("`flock`", _installed("flock", "-n", str(folder / "lock"))),
        Way("`chronic`", _installed("chronic")),
        Way("a Python that only executes it", [sys.executable, "-c", _PYTHON]),
        Way("a shell script with sqlite3", [str(script)] if _installed("sqlite3") else None),
        Way("`jobhistory run`, SQLite", [*run, f"sqlite:///{folder}/history.db", "--"]),
        Way("the same with `--quiet`", [*run, f"sqlite:///{folder}/history.db", "--quiet", "--"]),
        Way("`jobhistory run`, PostgreSQL", [*run, postgresql, "--"]),
    ]


def _installed(program: str, *arguments: str) -> list[str] | None:
    return None if shutil.which(program) is None else [program, *arguments]


def measure(compared: Sequence[Way], folder: Path, rounds: int) -> dict[str, list[Cost]]:
    """Return the costs of each way that is installed, by round, after one round to warm up."""
    environment = os.environ | {"DATABASE": str(folder / "runs.db")}
    costs: dict[str, list[Cost]] = {way.name: [] for way in compared if way.words is not None}
    for number in range(rounds + 1):
        for name, words in compared:
            if words is not None:
                cost = _cost([*words, *_COMMAND, str(folder / "started")], environment, folder)
                if number:
                    costs[name].append(cost)
    return costs


def _cost(words: list[str], environment: dict[str, str], folder: Path) -> Cost:
    begun = time.time_ns()
    pid = os.posix_spawnp(words[0], words, environment)
    _, status, used = os.wait4(pid, 0)
    ended = time.time_ns()
    if status:
        sys.exit(f"{words} ended with status {status}")
    started = int((folder / "started").read_text())
    cpu = 1000 * (used.ru_utime + used.ru_stime)
    return Cost((started - begun) / 1e6, (ended - begun) / 1e6, cpu)


def report(compared: Sequence[Way], costs: dict[str, list[Cost]]) -> Table:
    """Return the table of these costs."""
    rounds = len(next(iter(costs.values())))
    rows = [
        [name, *(middle([each[column] for each in costs[name]], ".0f") for column in range(3))]
        if words is not None
        else [name, "not installed", "", ""]
        for name, words in compared
    ]
    return Table(
        "A command under a wrapper",
        f"Milliseconds: the median of {rounds} rounds, with the minimum and maximum. The command "
        "writes down the time at which it runs.",
        ["way", "to the start of the command", "in all", "CPU time"],
        rows,
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wrapper", description=__doc__)
    parser.add_argument("--url", help="a PostgreSQL server on which databases may be created")
    parser.add_argument("--rounds", type=int, default=41)
    options = parser.parse_args()
    with server(options.url) as url, new_database(url, "wrapper") as database:
        print(machine(url), flush=True)
        with new_engine(database) as engine:
            migrate.upgrade(engine)
        with TemporaryDirectory() as name:
            folder = Path(name)
            migrate.upgrade(create_engine(f"sqlite:///{folder}/history.db"))
            with create_engine(f"sqlite:///{folder}/runs.db").begin() as connection:
                connection.exec_driver_sql(_RUNS)
            compared = ways(folder, database.render_as_string(hide_password=False))
            costs = measure(compared, folder, options.rounds)
    print(report(compared, costs).markdown())
    start = statistics.median(cost.start for cost in costs["`jobhistory run`, SQLite"])
    print(f"the command starts within 60 ms: {start <= 60}")


if __name__ == "__main__":
    main()
