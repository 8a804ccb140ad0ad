"""A worker loop: a queue table in the app's database, with the history beside it.

Install and run it with::

    pip install 'jobhistory[cli]'      # and [postgresql] for PostgreSQL
    python worker_loop.py              # creates worker_loop.db, an SQLite file, in this folder
    jobhistory list --url sqlite:///worker_loop.db

It queues four jobs and executes them. Two succeed, one succeeds at its second attempt, and one
fails three times. Each attempt is one row of the history. Then the program does what cron does in
production: it marks the executions of killed workers as failed, and deletes expired rows.

Run it again, and the history grows. Run several at once, and they share the queue. To use another
database, give its URL: ``python worker_loop.py postgresql+psycopg://app@localhost/app``.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import JSON, create_engine, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from jobhistory import HistoryStore, Job, create_store, migrate

MOST_ATTEMPTS = 3
LEASE = 3600.0
"""After so many seconds, another worker may take a job: the one that has it is probably dead."""


class Base(DeclarativeBase):
    """The base of the app's models."""


class QueuedJob(Base):
    """A job that is not done; moments are seconds since 1970."""

    __tablename__ = "queued_jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    task: Mapped[str]
    arguments: Mapped[dict[str, Any]] = mapped_column(JSON)
    attempts: Mapped[int] = mapped_column(default=0)
    run_at: Mapped[float] = mapped_column(default=time.time)
    leased_until: Mapped[float] = mapped_column(default=0.0)


def greet(name: str, attempt: int) -> None:
    """Do the simplest work there is."""


def fetch_prices(url: str, attempt: int) -> None:
    """Fail at the first attempt, as services on the network do."""
    if attempt == 1:
        raise TimeoutError(f"no answer from {url}")


def bill(customer: int, attempt: int) -> None:
    """Fail each time."""
    raise LookupError(f"there is no customer {customer}")


TASKS: dict[str, Callable[..., None]] = {"greet": greet, "fetch_prices": fetch_prices, "bill": bill}


def enqueue(sessions: sessionmaker[Session], task: str, **arguments: Any) -> None:
    """Queue a job."""
    with sessions.begin() as session:
        session.add(QueuedJob(id=str(uuid4()), task=task, arguments=arguments))


def take(sessions: sessionmaker[Session]) -> Job | None:
    """Take the job that is due for longest; return `None` if none is due."""
    now = time.time()
    due = (
        select(QueuedJob.id)
        .where(QueuedJob.run_at <= now, QueuedJob.leased_until <= now)
        .order_by(QueuedJob.run_at)
        .limit(1)
        .with_for_update(skip_locked=True)  # SQLite has one writer at a time and needs no lock
        .scalar_subquery()
    )
    taking = (
        update(QueuedJob)
        .where(QueuedJob.id == due)
        .values(attempts=QueuedJob.attempts + 1, leased_until=now + LEASE)
        .returning(QueuedJob)
    )
    with sessions.begin() as session:
        job = session.scalar(taking)
        if job is None:
            return None
        due_at = datetime.fromtimestamp(job.run_at, UTC)
        return Job(job.id, job.task, job.arguments, job.attempts, due_at)


def put_back(sessions: sessionmaker[Session], job: Job) -> None:
    """Let the job be tried again, a little later each time."""
    later = time.time() + 0.05 * 2**job.attempts
    with sessions.begin() as session:
        session.execute(
            update(QueuedJob).where(QueuedJob.id == job.id).values(run_at=later, leased_until=0.0)
        )


def remove(sessions: sessionmaker[Session], job: Job) -> None:
    """Take the job off the queue."""
    with sessions.begin() as session:
        if queued := session.get(QueuedJob, job.id):
            session.delete(queued)


def execute(store: HistoryStore, job: Job, worker_id: str) -> None:
    """Execute a job; whatever it raises is recorded, and passed on."""
    with store.track(job, worker_id, correlation_id=job.id) as execution:
        execution.set_will_retry(job.attempts < MOST_ATTEMPTS)
        TASKS[job.task_identifier](**job.payload, attempt=job.attempts)


def work(sessions: sessionmaker[Session], store: HistoryStore, worker_id: str) -> None:
    """Execute what is queued, until the queue is empty. A real worker would go on."""
    while is_anything_queued(sessions):
        job = take(sessions)
        if job is None:
            time.sleep(0.02)
            continue
        try:
            execute(store, job, worker_id)
        except Exception as error:
            print(f"{job.task_identifier}, attempt {job.attempts}: {error}")
            if job.attempts < MOST_ATTEMPTS:
                put_back(sessions, job)
                continue
        else:
            print(f"{job.task_identifier}, attempt {job.attempts}: done")
        remove(sessions, job)


def is_anything_queued(sessions: sessionmaker[Session]) -> bool:
    """Return whether the queue has jobs that no worker holds."""
    free = select(QueuedJob.id).where(QueuedJob.leased_until <= time.time()).limit(1)
    with sessions() as session:
        return session.scalar(free) is not None


def report(store: HistoryStore) -> None:
    """Print what the last day brought."""
    last_day = datetime.now(UTC) - timedelta(days=1)
    print()
    for stats in store.stats(from_=last_day):
        rate = "-" if stats.failure_rate is None else f"{stats.failure_rate:.0%}"
        print(f"{stats.task_identifier}: {stats.executions} executions, {rate} failed")
    for group in store.failure_groups(from_=last_day):
        print(f"{group.count} x {group.task_identifier}: {group.error_type}: {group.message}")


def main(url: str) -> None:
    """Queue four jobs, execute them, report, and clean up."""
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    migrate.upgrade(engine)  # in production, a step of your deployment
    sessions = sessionmaker(engine)
    store = create_store(sessions, history_retention="90 days")

    enqueue(sessions, "greet", name="Ann")
    enqueue(sessions, "greet", name="Ben")
    enqueue(sessions, "fetch_prices", url="https://prices.example")
    enqueue(sessions, "bill", customer=17)
    work(sessions, store, worker_id=f"{socket.gethostname()}:{os.getpid()}")
    report(store)

    # In production, cron runs these: `jobhistory reap --older-than 2h` and `jobhistory expire`.
    print(f"\nexecutions of lost workers: {store.reap_lost(older_than='2h')}")
    print(f"expired rows deleted: {store.expire()}")
    engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "sqlite:///worker_loop.db")
