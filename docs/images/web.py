"""Draw `web-*.png`: the web page with a made-up history. Run it from the root of a checkout.

    python -m docs.images.web

The history is the same each time, except that it ends now. It needs the extra `dev`, and Chromium.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.engine import URL

from jobhistory import HistoryStore, Job, create_store, migrate, new_execution_id
from tests.web.browsing import running_browser
from tests.web.serving import in_starlette

FOLDER = Path(__file__).parent
STACK = """Traceback (most recent call last):
  File "/srv/shop/stock.py", line 42, in sync_stock
    levels = api.levels(warehouse)
  File "/srv/shop/api.py", line 17, in levels
    return self.client.get(f"/warehouses/{warehouse}").json()
  File "/usr/lib/python3.13/site-packages/httpx/_client.py", line 1053, in get
    return self.request("GET", url, params=params)
  File "/usr/lib/python3.13/site-packages/httpx/_transports/default.py", line 118, in map
    raise mapped_exc(message) from exc
httpx.ReadTimeout: no answer from stock-api within 30 s
"""
TASKS = {  # runs per day, milliseconds
    "send_email": (420, 180),
    "resize_image": (260, 900),
    "sync_stock": (96, 4_200),
    "charge_card": (150, 650),
    "import_feed": (24, 48_000),
    "nightly_report": (1, 95_000),
}
ERRORS = {
    "send_email": ("SMTPServerDisconnected", "connection lost"),
    "resize_image": ("OSError", "cannot identify '{number}.webp'"),
    "sync_stock": ("httpx.ReadTimeout", "no answer from stock-api within 30 s"),
    "charge_card": ("CardDeclined", "card {number} has expired"),
    "import_feed": ("KeyError", "'price_{number}'"),
}


def fill(url: URL | str, now: datetime) -> str:
    """Write a week of history that ends now; return the id of a failure in it."""
    engine = create_engine(url)
    migrate.upgrade(engine)
    store = create_store(engine)
    store.record_many(_week(now))
    failure = _workflow(store, now)
    for number, task in enumerate(("import_feed", "resize_image", "send_email")):
        begun = now - timedelta(seconds=(41, 12, 1)[number])
        at_that_time = create_store(engine, clock=lambda begun=begun: begun)
        ids = (f"worker-{number + 1}", f"request-{number}")
        at_that_time.record_start(Job(f"{task}-70{number}", task), *ids)
    store.fold()
    engine.dispose()
    return failure


def _week(now: datetime) -> Iterator[dict[str, Any]]:
    chance = random.Random(7)  # noqa: S311 - not for secrets
    for task, (per_day, milliseconds) in TASKS.items():
        for _ in range(7 * per_day):
            hours = chance.triangular(0.02, 168, 0.02)
            is_bad = task == "sync_stock" and 3 < hours < 5
            number = chance.randrange(1000, 9999)
            row = {
                "job_id": f"{task}-{number}",
                "task_identifier": task,
                "worker_id": f"worker-{number % 3 + 1}",
                "correlation_id": f"request-{number}",
                "started_at": now - timedelta(hours=hours),
                "execution_time_ms": int(
                    milliseconds * chance.lognormvariate(0, 0.4)
                ),
                "queue_time_ms": int(chance.expovariate(1 / 60)),
                "labels": {"tenant": chance.choice(("acme", "globex"))},
                "status": "completed",
            }
            if task in ERRORS and chance.random() < (0.7 if is_bad else 0.015):
                kind, message = ERRORS[task]
                row |= {"status": "failed", "error_type": kind}
                row |= {"error_message": message.format(number=number)}
            yield row


def _workflow(store: HistoryStore, now: datetime) -> str:
    """Record a request whose last step failed three times; return the id of the last failure."""
    at = now - timedelta(minutes=4)
    order = new_execution_id(at)
    row = {"correlation_id": "request-8817", "worker_id": "worker-2"}
    row |= {"labels": {"tenant": "acme"}, "queue_time_ms": 41}
    parts = [("charge_card", 1, 700, 1), ("send_email", 8, 240, 1)]
    parts += [
        ("sync_stock", 3, 30_000, 1),
        ("sync_stock", 45, 30_000, 2),
        ("sync_stock", 95, 30_000, 3),
    ]
    whole = {"id": order, "task_identifier": "place_order", "job_id": "order-8817"}
    whole |= {"status": "completed", "started_at": at, "execution_time_ms": 9_000}
    rows = [row | whole]
    for task, after, took, attempt in parts:
        begun = at + timedelta(seconds=after)
        part = {
            "id": new_execution_id(begun),
            "parent_id": order,
            "task_identifier": task,
        }
        part |= {
            "job_id": f"{task}-8817",
            "started_at": begun,
            "execution_time_ms": took,
        }
        part |= {"status": "completed", "attempt_number": attempt}
        if task == "sync_stock":
            part |= {"status": "failed", "will_retry": attempt < 3}
            part |= {"error_type": "httpx.ReadTimeout", "error_stack": STACK}
            part |= {"error_message": "no answer from stock-api within 30 s"}
            part |= {
                "payload": {"order": 8817, "items": [{"sku": "A-1", "count": 2}]}
            }
            part |= {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}
        rows.append(row | part)
    store.record_many(rows)
    return str(rows[-1]["id"])


def main() -> None:
    """Draw all pictures."""
    with tempfile.TemporaryDirectory() as folder, running_browser() as browser:
        url = f"sqlite:///{folder}/history.db"
        failure = fill(url, datetime.now(UTC))
        pictures = {
            "web-list": ("", "light", 690),
            "web-task": ("task?task=sync_stock", "light", 952),
            "web-execution": (f"execution?id={failure}", "dark", 1122),
        }
        with in_starlette(url) as base:
            for name, (path, theme, height) in pictures.items():
                size = {"width": 1080, "height": height}
                page = browser.new_page(viewport=size, color_scheme=theme)
                page.goto(base + path)
                page.wait_for_load_state("load")
                page.screenshot(path=FOLDER / f"{name}.png")
                page.close()
                print(f"written to {FOLDER / name}.png")


if __name__ == "__main__":
    main()
