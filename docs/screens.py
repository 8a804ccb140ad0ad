"""Print every command's screens at four widths: `docs/screens/*.txt`. Run it from the root.

    python -m docs.screens [FOLDER]

The history is that of `jobhistory demo` on a fixed day. Commands that go on until Ctrl-C, or start
another program, are shown by their help. It needs the extra `cli`.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

FOLDER = Path(__file__).with_name("screens")
WIDTHS = (60, 80, 100, 200)
NOW = datetime(2026, 11, 27, 15, 30, tzinfo=UTC)

SCREENS = {
    "run": "run --help",
    "list": "list --since today --status failed,started,cancelled --limit 8",
    "show": "show send_email-2853",
    "tail": "tail --help",
    "running": "running",
    "stats": "stats --since 7d --bucket 1d",
    "failures": "failures --since 7d --limit 8",
    "workers": "workers --since 24h --limit 8",
    "metrics": "metrics --help",
    "web": "web --help",
    "check": "check",
    "expect list": "expect list",
    "expect show": "expect show rotate_logs",
    "expect add": "expect add nightly_report --max-runtime 10m",
    "expect edit": "expect edit nightly_report --grace 1h",
    "incidents": "incidents",
    "expect pause": "expect pause --help",
    "expect resume": "expect resume --help",
    "expect load": "expect load --help",
    "expect export": "expect export",
    "expect import": "expect import --help",
    "expect remove": "expect remove --help",
    "expire": "expire --dry-run",
    "fold": "fold --dry-run",
    "reap": "reap --older-than 1d",
    "purge": "purge --label tenant=acme --dry-run",
    "retention": "retention",
    "archive sql": "archive sql --help",
    "archive verify": "archive verify --help",
    "archive restore": "archive restore --help",
    "archive delete": "archive delete --help",
    "replay": "replay --app json:loads --failed --since today --dry-run",
    "demo": "demo --help",
    "completion": "completion bash",
    "help": "help",
    "db upgrade": "db upgrade",
    "db downgrade": "db downgrade --help",
    "db current": "db current",
    "db check": "db check",
    "db maintain": "db maintain",
    "db partition": "db partition --help",
    "db distribute": "db distribute --help",
    "db sql": "db sql --help",
}
"""For each command, the command line whose screens are printed, without `jobhistory`."""


def fill(url: str) -> None:
    """Write the history that the screens show."""
    from sqlalchemy import create_engine

    from jobhistory import migrate
    from jobhistory.cli.demo import fill as fill_month

    engine = create_engine(url)
    migrate.upgrade(engine)
    fill_month(engine, NOW)
    engine.dispose()


def screen(command: str, width: int) -> str:
    """Return what a command prints on a terminal of this width."""
    from jobhistory.cli import main

    os.environ["COLUMNS"] = str(width)
    printed = StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        try:
            main(shlex.split(command))
        except SystemExit as done:
            status = done.code
    end = f"(exit status {status})\n" if status else ""
    return f"$ jobhistory {command}\n{printed.getvalue()}{end}"


def fix_the_surroundings(url: str) -> None:
    """Let all commands see the same time, database and terminal; before they are imported."""
    from jobhistory._runtime import clock
    from jobhistory._runtime.randomness import GENERATOR

    clock.utc_now = lambda: NOW
    GENERATOR.seed(7)  # for ids of executions
    settings = {
        "JOBHISTORY_URL": url,
        "FORCE_COLOR": "1",
        "NO_COLOR": "1",
        "TERM": "xterm",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "JOBHISTORY_PAGER": "cat",
    }
    os.environ.update(settings)
    if hasattr(time, "tzset"):
        time.tzset()


def write_screens(folder: Path) -> None:
    """Write a file for each command, with its screens one below the other."""
    from rich.text import Text

    folder.mkdir(parents=True, exist_ok=True)
    for name, command in SCREENS.items():
        parts = (
            f"{width} columns\n{'-' * width}\n{Text.from_ansi(screen(command, width)).plain}\n"
            for width in WIDTHS
        )
        lines = "\n".join(parts).splitlines()
        text = "\n".join(line.rstrip() for line in lines) + "\n"
        path = folder / f"{name.replace(' ', '-')}.txt"
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    target = (Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER).absolute()
    with tempfile.TemporaryDirectory() as place:
        database = f"sqlite:///{place}/demo.db"
        fix_the_surroundings(database)
        fill(database)
        os.chdir(place)
        os.environ["JOBHISTORY_URL"] = "sqlite:///demo.db"  # in hints
        write_screens(target)
    print(f"written to {target}")
