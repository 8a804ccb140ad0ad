"""A made-up month of a shop's background jobs, for `jobhistory demo` and for the documentation.

The month ends now. On one day, it is the same each time, except for ids of executions. Scheduled
tasks follow their `cron`, and other tasks follow the hours in which people work. `MISSED` lists the
runs that a schedule asks for and that did not happen.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from cronsim import CronSim
from sqlalchemy import Engine

from jobhistory.execution.ids import new_execution_id
from jobhistory.execution.job import Job
from jobhistory.store import HistoryStore, create_store

DAYS = 30
RETENTION = "90 days"

Row = dict[str, Any]


class Error(NamedTuple):
    """An error of a task: its type, its message, where it is raised, and by which library."""

    type: str
    message: str
    source: str
    library: str = ""


class Task(NamedTuple):
    """A task of the shop.

    Attributes:
        runs: how often it runs: a schedule of cron, or a number of runs on a working day.
        seconds: the median of its duration.
        failing: the share of attempts that fail.
        error: the error of most failures.
        queue: the label for its queue; scheduled tasks have none.
        attempts: how often it is tried before a failure is final.
    """

    name: str
    runs: str | int
    seconds: float
    failing: float = 0.0
    error: Error | None = None
    queue: str | None = None
    attempts: int = 1


SMTP = Error(
    "smtplib.SMTPServerDisconnected",
    "Connection unexpectedly closed",
    "mail.py:58 deliver: server.send_message(message)",
    "smtplib.py:405 getreply",
)
GATEWAY = Error(
    "httpx.ReadTimeout",
    "no answer from https://pay.example.com/charges within 10 s",
    "payments.py:112 charge: response = gateway.post('/charges', json=order.as_charge())",
    "httpx/_transports/default.py:118 map_httpcore_exceptions",
)
CARD = Error("shop.CardDeclined", "card of order {n} has expired", "payments.py:131 charge: raise")
IMAGE = Error(
    "PIL.UnidentifiedImageError",
    "cannot identify image file '/srv/uploads/{n}.webp'",
    "images.py:24 resize: image = Image.open(path)",
    "PIL/Image.py:3536 open",
)
STOCK = Error(
    "psycopg.errors.DeadlockDetected",
    "deadlock detected",
    "stock.py:77 reserve: connection.execute(RESERVE, rows)",
    "psycopg/cursor.py:97 execute",
)
FEED = Error("KeyError", "'price_{n}'", "feeds.py:203 read_row: price = row[f'price_{shop}']")
DISK = Error(
    "OSError", "[Errno 28] No space left on device", "backup.py:31 dump: shutil.copy(part, target)"
)
TYPE = Error(
    "TypeError",
    "unsupported operand type(s) for *: 'decimal.Decimal' and 'float'",
    "tax.py:19 total: return net * rate",
)

TASKS = (
    Task("send_email", 110, 0.35, 0.03, SMTP, "mail", 3),
    Task("charge_card", 55, 0.8, 0.02, CARD, "payments", 1),
    Task("reserve_stock", 55, 0.12, 0.02, STOCK, "default", 3),
    Task("resize_image", 45, 1.4, 0.04, IMAGE, "images", 1),
    Task("index_product", 30, 0.25, 0.005, STOCK, "default", 2),
    Task("create_invoice", 30, 2.1, 0.01, TYPE, "default", 1),
    Task("push_notification", 25, 0.2, 0.02, SMTP, "mail", 2),
    Task("import_feed", 10, 48, 0.08, FEED, "imports", 2),
    Task("export_orders", 6, 22, 0.02, STOCK, "reports", 2),
    Task("refund_order", 5, 1.1, 0.06, GATEWAY, "payments", 3),
    Task("sync_stock", "*/30 * * * *", 4.2, 0.02, GATEWAY, None, 1),
    Task("check_certificates", "5 * * * *", 0.9),
    Task("refresh_exchange_rates", "10 */6 * * *", 1.6, 0.03, GATEWAY),
    Task("expire_carts", "20 * * * *", 2.8),
    Task("warm_cache", "0 7-19 * * 1-5", 11),
    Task("backup_database", "17 2 * * *", 610, 0.0, DISK),
    Task("rotate_logs", "0 0 * * *", 3.5),
    Task("nightly_report", "30 3 * * *", 95),
    Task("send_newsletter", "0 9 * * 2", 340, 0.0, SMTP),
    Task("vacuum_tables", "40 4 * * 0", 1900),
    Task("rebuild_search_index", "0 5 * * 6", 2700),
    Task("close_month", "0 1 1 * *", 420),
    Task("jobhistory_fold", "0 */2 * * *", 0.4),
    Task("jobhistory_expire", "45 0 * * *", 6),
)

MISSED = (("backup_database", 4), ("rotate_logs", 1), ("send_newsletter", 3))
"""Runs that did not happen: of a task, the last run but so many. 1 is the last one."""

LOST_WORKER = "web-3:4105"

_BUSY = (1, 1, 1, 1, 1, 2, 4, 8, 14, 18, 20, 19, 16, 17, 19, 18, 16, 13, 11, 9, 7, 5, 3, 2)
"""For each hour, how many of the day's runs begin in it, in relation to others."""

_TENANTS = ("acme", "globex", "initech", "umbrella")
_RELEASES = ("2.13.0", "2.14.0", "2.14.1")
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


def fill(engine: Engine, now: datetime) -> None:
    """Write the month that ends at a time into an empty history, and fold it into statistics."""
    store = create_store(engine, history_retention=RETENTION)
    executions = list(started_by(now))
    store.record_many(row for row in executions if _end_of(row) < now)
    for row in executions:
        if _end_of(row) >= now:
            _start_again(engine, row)
    _run_now(engine, now)
    _lose_workers(engine, now)
    store.fold()
    _expect(engine, now)


def started_by(now: datetime) -> Iterator[Row]:
    """Yield the executions that have started by a time, as `record_many` takes them, with ends.

    An end may be later than that time.
    """
    for task in TASKS:
        for number, start in enumerate(_starts(task, now)):
            chance = random.Random(f"{task.name} {number}")  # noqa: S311 - not for secrets
            for row in _attempts(task, number, start, now, chance):
                if row["started_at"] < now:
                    yield row


def _end_of(row: Row) -> datetime:
    end: datetime = row["started_at"] + timedelta(milliseconds=row["execution_time_ms"])
    return end


def _starts(task: Task, now: datetime) -> list[datetime]:
    """Return when the jobs of a task start, from the first day of the month to now."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    begin = midnight - DAYS * _DAY
    if isinstance(task.runs, str):
        starts = []
        for slot in CronSim(task.runs, begin):
            if slot >= now:
                break
            starts.append(slot)
        # A run that was due a moment ago is not missed yet, so the hour before now does not count.
        due = sum(slot < now - _HOUR for slot in starts)
        for last in [last for name, last in MISSED if name == task.name and last <= due]:
            # If the last run is missed, none came after it either, or all would be well again.
            del starts[due - last : None if last == 1 else due - last + 1]
        return starts
    chance = random.Random(task.name)  # noqa: S311 - not for secrets
    starts = []
    for day in range(DAYS + 1):
        date = begin + day * _DAY
        runs = round(task.runs * (0.4 if date.weekday() >= 5 else 1) * chance.uniform(0.8, 1.2))
        for hour in chance.choices(range(24), _BUSY, k=runs):
            starts.append(date + timedelta(hours=hour, seconds=chance.uniform(0, 3600)))
    return sorted(start for start in starts if start < now)


def _attempts(
    task: Task, number: int, start: datetime, now: datetime, chance: random.Random
) -> Iterator[Row]:
    """Yield the attempts at one job, and what they started."""
    n = chance.randrange(10_000, 99_999)
    error, failing = _error_at(task, now - start)
    release = _RELEASES[(start > now - 12 * _DAY) + (start > now - 3 * _DAY)]
    host = f"web-{n % 3 + 1}" if task.queue else "cron-1"
    job: Row = {
        "job_id": f"{task.name}-{number}" if task.queue else f"{task.name}@{start:%Y-%m-%dT%H:%M}Z",
        "task_identifier": task.name,
        "correlation_id": f"order-{n}" if task.queue else f"{task.name}-{number}",
        "labels": {"release": release}
        | ({"queue": task.queue, "tenant": _TENANTS[n % 4]} if task.queue else {}),
        "payload": {"order": n, "urgent": n % 7 == 0} if task.queue else {"args": []},
    }
    for attempt in range(1, task.attempts + 1):
        ms = round(1000 * task.seconds * chance.lognormvariate(0, 0.45))
        row = job | {
            "id": new_execution_id(start),
            "worker_id": f"{host}:{4100 + (n + attempt) % 6}",
            "attempt_number": attempt,
            "started_at": start,
            "execution_time_ms": ms,
            "queue_time_ms": round(chance.expovariate(1 / 80)) if task.queue else None,
        }
        if error is None or chance.random() >= failing:
            yield row | _end(task, n, chance)
            yield from _children(task, row, chance)
            return
        yield row | _failure(error, n) | {"will_retry": attempt < task.attempts}
        start += timedelta(milliseconds=ms, seconds=30 * 2**attempt)


def _error_at(task: Task, age: timedelta) -> tuple[Error | None, float]:
    """Return the error of a task at a time, and the share of attempts that fail.

    Three days ago, the payment gateway was down for two hours. A release five days ago broke
    invoices for half a day. Since this morning, some feeds lack a column. One backup failed.
    """
    hours = age / timedelta(hours=1)
    if task.name in ("charge_card", "refund_order") and 70 < hours < 72:
        return GATEWAY, 0.7
    if task.name == "create_invoice" and 120 < hours < 132:
        return TYPE, 0.6
    if task.name == "import_feed" and hours < 6:
        return FEED, 0.5
    if task.name == "backup_database" and 24 * 9 < hours < 24 * 10:
        return DISK, 1.0
    return task.error, task.failing


def _end(task: Task, n: int, chance: random.Random) -> Row:
    """Return how an execution ends that does not fail."""
    if task.name == "export_orders" and chance.random() < 0.1:
        return {
            "status": "partial_success",
            "completed_steps": ["read orders", "write CSV"],
            "failed_steps": ["upload"],
            "retry_from_step": "upload",
            "partial_results": {"rows": n},
        }
    if task.name in ("export_orders", "resize_image") and chance.random() < 0.03:
        return {"status": "cancelled", "error_message": "revoked by an operator"}
    row: Row = {"status": "completed"}
    if task.name == "import_feed":
        row["result"] = {"read": n, "changed": n % 911}
    if task.name == "backup_database":
        row["log_tail"] = f"dumping shop ...\nwrote {n / 10:.1f} MB\nuploaded to the archive\n"
    return row


def _failure(error: Error, n: int) -> Row:
    message = error.message.format(n=n)
    return {
        "status": "failed",
        "error_type": error.type,
        "error_message": message,
        "error_stack": _stack(error, message),
        "log_tail": f"INFO shop: order {n}\nERROR shop: {message}\n",
    }


def _stack(error: Error, message: str) -> str:
    place, _, source = error.source.partition(": ")
    where, function = place.split(" ")
    file, line = where.split(":")
    lines = [
        "Traceback (most recent call last):",
        '  File "/srv/shop/worker.py", line 41, in work',
        "    task(**job.payload)",
        f'  File "/srv/shop/{file}", line {line}, in {function}',
        f"    {source}",
    ]
    if error.library:
        place, function = error.library.split(" ")
        file, line = place.split(":")
        folder = "/usr/lib/python3.13/" + ("site-packages/" if "/" in file else "")
        lines += [f'  File "{folder}{file}", line {line}, in {function}', "    raise error"]
    return "\n".join([*lines, f"{error.type}: {message}", ""])


def _children(task: Task, parent: Row, chance: random.Random) -> Iterator[Row]:
    """Yield the executions that an execution of the nightly report, or of the month's, starts."""
    if task.name not in ("nightly_report", "close_month"):
        return
    begin, ms = parent["started_at"], parent["execution_time_ms"]
    parts = [("collect_orders", 0.3), ("collect_stock", 0.2), ("render_pages", 0.4)]
    for number, (name, share) in enumerate(parts):
        start = begin + timedelta(milliseconds=ms * (0.02 + 0.3 * number))
        child = parent | {
            "id": new_execution_id(start),
            "job_id": f"{parent['job_id']}/{name}",
            "task_identifier": name,
            "worker_id": f"web-{number + 1}:{4100 + number}",
            "parent_id": parent["id"],
            "started_at": start,
            "execution_time_ms": round(ms * share * chance.uniform(0.6, 1)),
            "queue_time_ms": round(chance.expovariate(1 / 80)),
            "status": "completed",
        }
        yield child
        if name == "render_pages":
            for page in range(4):
                yield _page(child, page)


def _page(parent: Row, page: int) -> Row:
    start = parent["started_at"] + timedelta(milliseconds=200 + 40 * page)
    return parent | {
        "id": new_execution_id(start),
        "job_id": f"{parent['job_id']}/{page}",
        "task_identifier": "render_page",
        "parent_id": parent["id"],
        "started_at": start,
        "execution_time_ms": round(parent["execution_time_ms"] * (0.5 + 0.1 * page)),
    }


def _run_now(engine: Engine, now: datetime) -> None:
    """Start executions that have not ended: usual ones, one with progress, and one that hangs."""
    for task, seconds, progress in (
        ("rebuild_search_index", 1260, 0.44),
        ("import_feed", 95, 0.7),
        ("export_orders", 7400, None),
        ("resize_image", 1, None),
        ("send_email", 0.3, None),
    ):
        store = _store_at(engine, now - timedelta(seconds=seconds))
        job = Job(f"{task}-now", task, {"order": 4711}, labels={"queue": "default"})
        execution_id = _start(store, job, f"web-2:{4100 + len(task) % 6}")
        if progress is not None:
            row = {"heartbeat_at": now - timedelta(seconds=5), "progress": progress}
            store.internals.history.heartbeat(execution_id, f"{task}-now", row)


def _start_again(engine: Engine, row: Row) -> None:
    """Record the start of an execution that has not ended yet."""
    job = Job(
        row["job_id"],
        row["task_identifier"],
        row["payload"],
        row["attempt_number"],
        labels=row["labels"],
    )
    _store_at(engine, row["started_at"]).record_start(
        job,
        row["worker_id"],
        row["correlation_id"],
        execution_id=row["id"],
        parent_id=row.get("parent_id"),
    )


def _lose_workers(engine: Engine, now: datetime) -> None:
    """Leave executions of a worker that was killed twice, which `reap` marked as failed."""
    for task, days in (("import_feed", 6), ("export_orders", 6), ("resize_image", 2)):
        start = now - days * _DAY
        _start(_store_at(engine, start), Job(f"{task}-lost-{days}", task), LOST_WORKER)
        _store_at(engine, start + timedelta(hours=2)).reap_lost("1h", worker_id=LOST_WORKER)


def _expect(engine: Engine, now: datetime) -> None:
    """Declare the schedules at the beginning of the month, and check them at its end."""
    store = _store_at(engine, now - DAYS * _DAY)
    for task in TASKS:
        if isinstance(task.runs, str):
            store.expect(task.name, cron=task.runs, timezone="UTC", grace="20 minutes")
    store.expect("export_orders", max_runtime="30 minutes")
    _store_at(engine, now).check()


def _start(store: HistoryStore, job: Job, worker: str) -> UUID:
    return store.record_start(job, worker, f"order-{job.id}").id


def _store_at(engine: Engine, moment: datetime) -> HistoryStore:
    return create_store(engine, history_retention=RETENTION, clock=lambda: moment)
