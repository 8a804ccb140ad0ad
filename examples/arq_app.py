"""arq jobs with their history: a job that enqueues another one, and a retry.

Install and run it with::

    pip install 'jobhistory[arq]'
    python arq_app.py                  # creates arq_app.db, an SQLite file, in this folder

It needs a Redis, at redis://localhost:6379 or at $REDIS_URL. The program enqueues a job, works
until the queue is empty, and prints the history. In production, run ``arq arq_app.WorkerSettings``.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from arq import Retry, create_pool
from arq.connections import RedisSettings
from arq.worker import create_worker
from sqlalchemy import create_engine

from jobhistory import create_store, migrate
from jobhistory.contrib.arq import enqueue_job, record_jobs

engine = create_engine("sqlite:///arq_app.db")
store = create_store(engine)


async def order(ctx: dict[str, Any], customer: int) -> None:
    """Enqueue another job, as a child of this one."""
    await enqueue_job(ctx["redis"], "bill", customer)


async def bill(ctx: dict[str, Any], customer: int) -> None:
    """Ask for a retry at the first attempt."""
    try:
        if ctx["job_try"] == 1:
            raise ConnectionError("the bank does not answer")
    except ConnectionError as error:
        raise Retry(defer=0.1) from error


@record_jobs(store)
class WorkerSettings:
    """What ``arq arq_app.WorkerSettings`` runs."""

    functions = [order, bill]  # noqa: RUF012 - as in arq's documentation
    queue_name = "arq_app"
    redis_settings = RedisSettings.from_dsn(os.environ.get("REDIS_URL", "redis://localhost:6379"))


async def main() -> None:
    """Enqueue a job, work until the queue is empty, and print the history."""
    pool = await create_pool(WorkerSettings.redis_settings, default_queue_name="arq_app")
    ordered = await pool.enqueue_job("order", 17)
    assert ordered is not None
    worker = create_worker(WorkerSettings, burst=True, redis_pool=pool)  # type: ignore[arg-type]
    await worker.async_run()
    await worker.close()

    for record in store.query(order="oldest"):
        line = f"{record.task_identifier}, attempt {record.attempt_number}: {record.status.value}"
        if record.will_retry:
            line += f", will be tried again: {record.error_message}"
        print(line)
    together = store.get_by_correlation_id(ordered.job_id)
    print("the order and its bill have the same correlation id:", len(together) == 3)


if __name__ == "__main__":
    migrate.upgrade(engine)
    asyncio.run(main())
    engine.dispose()
