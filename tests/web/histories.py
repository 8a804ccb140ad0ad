"""Histories for the tests of the whole page: a realistic one, and texts that try to break out."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import create_engine

from jobhistory import HistoryStore, Job, create_store, migrate, new_execution_id

TASKS = ("send_email", "resize_image", "sync_orders", "nightly_report", "charge_card")

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "'-alert(1)-'",
    "javascript:alert(1)",
    "</title></textarea></style></pre><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "a\r\nSet-Cookie: x=1\r\n\r\n<b>",
    "event: changed\ndata: x\n\n",
    "\u202egnp.exe\u2066\u200b",
    "&lt;b&gt;&#60;&amp;",
    "%00%0d%0a%3Cb%3E",
    "?task=a&b=c#d;e/../..//f",
    "x" * 255,
    "\U0001f4a5 e\u0301 \ufffd \x7f \x1b[31m",
)
"""Texts that show a page which forgets to escape, to quote or to wrap."""

STACK = """Traceback (most recent call last):
  File "/srv/shop/orders.py", line 42, in sync
    response = client.get(url)
  File "/usr/lib/python3.13/site-packages/client/api.py", line 310, in get
    raise TimeoutError(f"upstream timed out after {seconds} s")
TimeoutError: upstream timed out after 30 s
"""


def fill(url: str) -> dict[str, str]:
    """Fill a new database with a few days of work; return ids of executions, by what they show."""
    engine = create_engine(url)
    migrate.upgrade(engine)
    store = create_store(engine)
    store.record_many([_ended(number) for number in range(400)])
    store.record_many([hostile(text) for text in HOSTILE])
    ids = {"completed": _workflow(store), "failed": _retried(store), "running": _running(store)}
    store.fold()
    engine.dispose()
    return ids


def _ended(number: int) -> dict[str, Any]:
    choice = random.Random(number)
    task = TASKS[number % len(TASKS)]
    row = {
        **_ids(task, f"host-{choice.randint(1, 3)}:{choice.randint(100, 103)}"),
        "job_id": str(10_000 + number),
        "correlation_id": f"request-{number // 3}",
        "status": "completed",
        "started_at": _ago(minutes=1 + choice.uniform(0, 4 * 1440)),
        "execution_time_ms": int(choice.lognormvariate(6 + TASKS.index(task), 0.6)),
        "queue_time_ms": int(choice.expovariate(1 / 200)),
        "labels": {"tenant": choice.choice(("acme", "globex")), "queue": "default"},
        "payload": {"order": number, "items": [{"sku": "A-1", "count": 2}], "gift": None},
    }
    if choice.random() < 0.1:
        row |= {"status": "failed", "will_retry": choice.random() < 0.5}
        row["error_type"] = choice.choice(("TimeoutError", "ValueError", "ConnectionError"))
        row |= {"error_message": f"order {number} cannot be read", "error_stack": STACK}
    elif choice.random() < 0.05:
        row |= {"status": "cancelled"}
    elif choice.random() < 0.05:
        row |= {"status": "partial_success", "completed_steps": ["read", "check"]}
        row |= {"failed_steps": ["write"], "retry_from_step": "write", "partial_results": {"n": 2}}
    return row


def hostile(text: str) -> dict[str, Any]:
    """Return a failed execution that has a text everywhere."""
    whole = {"job_id": text, "worker_id": text, "correlation_id": text, "task_identifier": text}
    return whole | {
        "status": "failed",
        "started_at": _ago(minutes=30),
        "execution_time_ms": 5,
        "error_type": text,
        "error_message": text,
        "error_stack": f"{text}\n{STACK}{text}",
        "labels": {"label": text},
        "payload": {text: [text, {text: text}], "large": ["x"] * 1000},
        "log_tail": f"{text}\n" * 3,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }


def _workflow(store: HistoryStore) -> str:
    """An execution that started others, with a result and what it logged."""
    started = _ago(hours=3)
    first = new_execution_id(started)
    row = _ids("nightly_report", "host-1:100") | {"status": "completed", "job_id": "report-7"}
    row |= {"correlation_id": "night-7"}
    parts = [
        row
        | {"id": new_execution_id(started + timedelta(seconds=at)), "parent_id": first}
        | {"started_at": started + timedelta(seconds=at), "execution_time_ms": 20_000}
        | {"job_id": f"part-{at}", "task_identifier": "send_email"}
        for at in range(5, 45, 10)
    ]
    more = {"result": {"rows": 120, "file": "report.csv"}, "log_tail": "read 120 rows\nwrote them"}
    whole = row | {"id": first, "started_at": started, "execution_time_ms": 70_000} | more
    store.record_many([whole | {"payload": {"day": "2026-11-01"}}, *parts])
    return str(first)


def _retried(store: HistoryStore) -> str:
    """The last of three attempts, all of which failed."""
    row = _ids("sync_orders", "host-2:101") | {"job_id": "sync-9", "status": "failed"}
    row |= {"correlation_id": "request-7"}
    row |= {"error_type": "TimeoutError", "error_message": "upstream timed out after 30 s"}
    row |= {"error_stack": STACK, "payload": {"since": "2026-11-01", "retry": True}}
    ids = [new_execution_id(_ago(minutes=minutes)) for minutes in (50, 40, 20)]
    store.record_many(
        row
        | {"id": id_, "attempt_number": number, "will_retry": number < 3}
        | {"started_at": _ago(minutes=(50, 40, 20)[number - 1]), "execution_time_ms": 30_000}
        for number, id_ in enumerate(ids, 1)
    )
    return str(ids[-1])


def _running(store: HistoryStore) -> str:
    for number in range(3):
        job = Job(f"now-{number}", TASKS[number], {"part": number})
        record = store.record_start(job, f"host-3:{100 + number}", "request-9")
    return str(record.id)


def _ids(task: str, worker: str) -> dict[str, Any]:
    return {"task_identifier": task, "worker_id": worker}


def _ago(**length: float) -> datetime:
    return datetime.now(UTC) - timedelta(**length)
