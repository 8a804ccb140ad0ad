"""How long tasks wait for a database that accepts connections and never answers.

`python -m benchmarks.outages` runs 20 empty tasks in each framework that needs no broker, alone and
with a store whose database never answers. A separate process measures each framework.
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import tempfile
from contextlib import closing

from benchmarks.frameworks import ALONE, DIRECT, FRAMEWORKS, NEED_REDIS, Places
from benchmarks.measuring import Table

TASKS = 20


def _measure_here(name: str) -> list[float]:
    """Return the seconds that the tasks take alone, and with the silent database."""
    logging.disable()
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as silent,
        tempfile.TemporaryDirectory() as folder,
    ):
        port = silent.getsockname()[1]
        url = f"postgresql+psycopg://app@127.0.0.1:{port}/app"
        places = Places(url, f"sqlite:///{folder}/unused.db", redis=None, rabbitmq=None)
        with FRAMEWORKS[name](places) as ways:
            return [ways[way](TASKS) for way in (ALONE, DIRECT)]


def _in_a_process(name: str) -> list[float]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.outages", name],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def main() -> None:
    """Print the table, or measure one framework and print its seconds as JSON."""
    if len(sys.argv) > 1:
        print(json.dumps(_measure_here(sys.argv[1])))
        return
    rows = []
    for name in FRAMEWORKS:
        if name in NEED_REDIS:
            continue
        alone, silent = _in_a_process(name)
        rows.append([name, f"{alone:.2f}", f"{silent:.2f}"])
    described = (
        f"Seconds that {TASKS} empty tasks take, one after the other, in one process. The first "
        "call waits for 2 s; then the circuit breaker is open."
    )
    headings = ["framework", "alone", "with a database that never answers"]
    print(Table("Tasks during an outage", described, headings, rows).markdown())


if __name__ == "__main__":
    main()
