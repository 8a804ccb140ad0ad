"""Jobs of RQ, which a worker records.

Install and run it with::

    pip install 'jobhistory[rq]'
    python rq_app.py                   # needs a Redis; creates rq_app.db, an SQLite file

It enqueues three jobs: one succeeds, one fails at its first attempt, and one enqueues another job.
A worker executes them and stops. Then the program prints what history has. Each attempt is one row.

``python rq_app.py redis://localhost:6379/1 postgresql+psycopg://app@localhost/app`` uses another
Redis and another database.
"""

from __future__ import annotations

import sys

import rq
from redis import Redis
from sqlalchemy import create_engine

from jobhistory import HistoryStore, create_store, migrate
from jobhistory.contrib.rq import Queue, RecordsJobs


def send_receipt(order: int) -> None:
    """Do the simplest work there is."""


def charge_card(order: int) -> None:
    """Fail at the first of three attempts, as services on the network do."""
    job = rq.get_current_job()
    if job is not None and job.retries_left == 2:
        raise TimeoutError("the bank does not answer")


def ship(order: int) -> None:
    """Enqueue another job."""
    job = rq.get_current_job()
    assert job is not None
    Queue("default", connection=job.connection).enqueue("rq_app.send_receipt", order)


def work(connection: Redis, store: HistoryStore) -> None:
    """Execute what is queued, until the queue is empty. A real worker would go on."""

    class Worker(RecordsJobs, rq.Worker):
        history = store

    Worker(["default"], connection=connection).work(burst=True, logging_level="WARNING")


def report(store: HistoryStore, job_ids: list[str]) -> None:
    """Print each attempt at the jobs, and at the jobs that they enqueued."""
    for job_id in job_ids:
        for record in reversed(store.get_by_correlation_id(job_id)):
            name = record.task_identifier.removeprefix("rq_app.")
            print(f"{name}, attempt {record.attempt_number}: {record.status.value}")


def main(redis_url: str, database_url: str) -> None:
    """Enqueue three jobs, execute them, and report."""
    engine = create_engine(database_url)
    migrate.upgrade(engine)  # in production, a step of your deployment
    store = create_store(engine)
    connection = Redis.from_url(redis_url)
    queue = Queue("default", connection=connection)
    jobs = [
        queue.enqueue("rq_app.send_receipt", 17),
        queue.enqueue("rq_app.charge_card", 18, retry=rq.Retry(max=2)),
        queue.enqueue("rq_app.ship", 19),
    ]
    work(connection, store)
    report(store, [job.id for job in jobs])
    engine.dispose()
    connection.close()


if __name__ == "__main__":
    urls = [*sys.argv[1:], *("redis://localhost:6379", "sqlite:///rq_app.db")[len(sys.argv) - 1 :]]
    main(*urls)
