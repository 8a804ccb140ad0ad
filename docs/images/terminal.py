"""Draw `terminal.svg`: what the command line prints about a made-up day. Run it from anywhere.

    python docs/images/terminal.py

The history is always the same, and so is the picture, unless the command line prints something else
than before. It needs the extra `cli`.
"""

from __future__ import annotations

import os
import random
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from sqlalchemy import create_engine

from jobhistory import create_store, migrate

PICTURE = Path(__file__).with_name("terminal.svg")
WIDTH = 100
DAY = datetime(2026, 11, 24, tzinfo=UTC)
# The ages on screens are those of the day after, whenever the picture is drawn.
AT_NOON = """
from datetime import UTC, datetime
from jobhistory._runtime import clock
clock.utc_now = lambda: datetime(2026, 11, 25, 12, tzinfo=UTC)
from jobhistory.cli import main
main()
"""
COMMANDS = (
    "jobhistory stats --since 2026-11-24 --until 2026-11-25 --bucket 1h",
    "jobhistory failures --since 2026-11-24 --until 2026-11-25",
    "jobhistory list --status failed --since 2026-11-24T18:00",
)
THEME = TerminalTheme(
    (28, 31, 38),
    (215, 218, 224),
    [
        *((70, 75, 85), (240, 113, 120), (152, 195, 121), (229, 192, 123)),
        *((97, 175, 239), (198, 120, 221), (86, 182, 194), (215, 218, 224)),
    ],
)
# Without the web font of rich's own template: the picture loads nothing.
TEMPLATE = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Task(NamedTuple):
    """A task of the made-up day."""

    name: str
    per_hour: int
    milliseconds: int
    failing: float
    error: str


TASKS = (
    Task("send_email", 40, 180, 0.01, "SMTPServerDisconnected: connection lost"),
    Task("resize_image", 25, 900, 0.02, "OSError: cannot identify '{number}.webp'"),
    Task("sync_stock", 6, 4_200, 0.0, "TimeoutError: no answer from stock-api"),
    Task("charge_card", 9, 650, 0.03, "CardDeclined: card {number} has expired"),
    Task("nightly_report", 0, 95_000, 0.0, ""),
)


def executions() -> Iterator[dict[str, Any]]:
    """Yield a day of executions: busier by day, and with two bad hours of one task."""
    chance = random.Random(7)  # noqa: S311 - not for secrets
    for task in TASKS:
        for hour in range(24):
            share = (1.6 if 8 <= hour < 19 else 0.5) * chance.uniform(0.7, 1.3)
            is_nightly = task.name == "nightly_report" and hour == 2
            for _ in range(1 if is_nightly else round(task.per_hour * share)):
                yield execution(task, hour, chance)


def execution(task: Task, hour: int, chance: random.Random) -> dict[str, Any]:
    """Return an execution that starts in this hour."""
    number = chance.randrange(1000, 9999)
    is_bad = task.name == "sync_stock" and hour in (14, 15)
    took = (
        30_000
        if is_bad
        else round(task.milliseconds * chance.lognormvariate(0, 0.5))
    )
    fields = {
        "job_id": f"{task.name}-{number}",
        "task_identifier": task.name,
        "worker_id": f"worker-{number % 3}",
        "correlation_id": f"request-{number}",
        "started_at": DAY + timedelta(hours=hour, seconds=chance.uniform(0, 3600)),
        "execution_time_ms": took,
        "queue_time_ms": round(chance.expovariate(1 / 60)),
    }
    if chance.random() >= (0.8 if is_bad else task.failing):
        return fields | {"status": "completed"}
    kind, _, message = task.error.format(number=number).partition(": ")
    return fields | {
        "status": "failed",
        "error_type": kind,
        "error_message": message,
    }


def output_of(commands: tuple[str, ...] = COMMANDS) -> str:
    """Return what the commands print on a terminal, each after a prompt."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/history.db"
        engine = create_engine(url)
        migrate.upgrade(engine)
        create_store(engine, history_retention="never").record_many(executions())
        engine.dispose()
        environment = os.environ | {
            "JOBHISTORY_URL": url,
            "FORCE_COLOR": "1",
            "TERM": "xterm-256color",
            "COLUMNS": str(WIDTH),
            "PYTHONIOENCODING": "utf-8",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }
        environment.pop("NO_COLOR", None)
        parts = []
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-c", AT_NOON, *shlex.split(command)[1:]],
                env=environment,
                capture_output=True,
                check=True,
            )
            parts.append(f"\x1b[1m$ {command}\x1b[0m\n{done.stdout.decode()}")
        return "\n".join(parts).rstrip()


def svg(output: str) -> str:
    """Return the picture of a terminal with this output."""
    console = Console(record=True, width=WIDTH, file=StringIO(), highlight=False)
    console.print(Text.from_ansi(output), soft_wrap=True)
    return console.export_svg(title="jobhistory", theme=THEME, code_format=TEMPLATE)


if __name__ == "__main__":
    PICTURE.write_text(svg(output_of()), encoding="utf-8")
    print(f"written to {PICTURE}")
