"""The command that fills a new SQLite file with a made-up history."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobhistory import migrate
from jobhistory._runtime.clock import utc_now
from jobhistory._runtime.shell import quoted_for_shell
from jobhistory.cli import output
from jobhistory.cli.database import open_engine
from jobhistory.cli.demo import DAYS, fill
from jobhistory.store import create_store

_NEXT = (
    "web",
    "stats --since 7d --bucket 1d",
    "failures --since 7d",
    "list --status failed,cancelled --since yesterday",
    "running",
    "check",
)


def demo(
    file: Annotated[
        str, typer.Argument(help="The SQLite file, which must be new or empty.", metavar="FILE")
    ] = "jobhistory-demo.db",
) -> None:
    """Fill a new SQLite file with a made-up month of jobs, and print what to try on it.

    It ends now and is the same each time, except for ids of executions.
    """
    path = Path(file)
    if path.exists() and (not path.is_file() or path.stat().st_size):
        output.fail(f"{file} exists; name a new file")
    url = f"sqlite:///{file}"
    try:
        with open_engine(url) as engine:
            migrate.upgrade(engine)
            fill(engine, utc_now())
            count = create_store(engine).count().value
    except BaseException:
        path.unlink(missing_ok=True)  # half a month would be refused the next time
        raise
    print(f"{count:,} executions of {DAYS} days are in {output.shown(file)}. Try:")
    for command in _NEXT:
        print(f"  jobhistory {command} --url {quoted_for_shell(url)}")
