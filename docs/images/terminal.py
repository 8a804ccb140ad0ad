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
from typing import Any

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from sqlalchemy import create_engine

from jobhistory import create_store, migrate

PICTURE = Path(__file__).with_name("terminal.svg")
WIDTH = 106
DAY = datetime(2026, 11, 24, tzinfo=UTC)
COMMANDS = (
    "jobhistory stats --since 2026-11-24 --until 2026-11-25 --bucket 1h",
    "jobhistory failures --since 2026-11-24 --until 2026-11-25",
    "jobhistory list --status failed --since 2026-11-24T16:00",
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


def executions() -> Iterator[dict[str, Any]]:
    """Yield a day of five tasks: a busy one, a nightly one, and a service that has a bad hour."""
    chance = random.Random(7)  # noqa: S311 - not for secrets
    tasks = (  # name, executions per hour, median milliseconds, share of failures, errors
        ("send_email", 40, 180, 0.01, ["SMTPServerDisconnected: connection lost"]),
        ("resize_image", 25, 900, 0.02, ["OSError: cannot identify '{n}.webp'"]),
        ("sync_stock", 6, 4_200, 0.0, ["TimeoutError: no answer from stock-api"]),
        ("charge_card", 9, 650, 0.03, ["CardDeclined: card {n} has expired"]),
        ("nightly_report", 0, 95_000, 0.0, []),
    )
    for name, per_hour, median, failing, errors in tasks:
        for hour in range(24):
            is_bad = name == "sync_stock" and hour in (14, 15)
            count = (
                1
                if name == "nightly_report" and hour == 2
                else round(per_hour * (1.6 if 8 <= hour < 19 else 0.5) * chance.uniform(0.7, 1.3))
            )
            for _ in range(count):
                number = chance.randrange(1000, 9999)
                started = DAY + timedelta(hours=hour, seconds=chance.uniform(0, 3600))
                took = 30_000 if is_bad else round(median * chance.lognormvariate(0, 0.5))
                yield {
                    "job_id": f"{name}-{number}",
                    "task_identifier": name,
                    "worker_id": f"worker-{number % 3}",
                    "correlation_id": f"request-{number}",
                    "started_at": started,
                    "execution_time_ms": took,
                    "queue_time_ms": round(chance.expovariate(1 / 60)),
                    **_outcome(errors, chance.random() < (0.8 if is_bad else failing), number),
                }


def _outcome(errors: list[str], has_failed: bool, number: int) -> dict[str, Any]:
    if not has_failed:
        return {"status": "completed"}
    kind, _, message = errors[0].format(n=number).partition(": ")
    return {"status": "failed", "error_type": kind, "error_message": message}


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
        }
        environment.pop("NO_COLOR", None)
        parts = []
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", "jobhistory.cli", *shlex.split(command)[1:]],
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
