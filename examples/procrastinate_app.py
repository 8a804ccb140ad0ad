"""Procrastinate jobs with their history: a job that defers another one, and retries.

Install and run it with::

    pip install 'jobhistory[procrastinate]'
    python procrastinate_app.py      # creates procrastinate_app.db, an SQLite file, in this folder

The queue is in memory, so the program is its own worker. In production, use a `PsycopgConnector`,
and run ``procrastinate --app=procrastinate_app.app worker``; nothing else changes.
"""

from __future__ import annotations

import asyncio

from procrastinate import App
from procrastinate.testing import InMemoryConnector
from sqlalchemy import create_engine

from jobhistory import create_store, migrate
from jobhistory.contrib.procrastinate import link, record_jobs, schedules

engine = create_engine("sqlite:///procrastinate_app.db")
store = create_store(engine)
app = App(
    connector=InMemoryConnector(),
    worker_defaults={"worker_middleware": [record_jobs(store)]},
)


@app.task(name="order")
async def order(customer: int) -> None:
    """Defer another job."""
    await bill.defer_async(customer=customer, **link())


@app.task(name="bill", retry=2)
def bill(customer: int) -> None:
    """Fail each time; a function that is not async runs in a thread."""
    raise LookupError(f"there is no customer {customer}")


@app.periodic(cron="17 2 * * *")
@app.task(name="clean_up")
def clean_up(timestamp: int) -> None:
    """Do what is due each night."""


async def main() -> None:
    """Defer a job, let a worker do all jobs, and print their history."""
    async with app.open_async():
        id_ = await order.defer_async(customer=17)
        await app.run_worker_async(wait=False)

    together = store.get_by_correlation_id(str(id_))
    for record in sorted(together, key=lambda record: record.started_at):
        line = f"{record.task_identifier}, attempt {record.attempt_number}: {record.status.value}"
        if record.will_retry:
            line += ", will be tried again"
        if record.error_message is not None:
            line += f": {record.error_message}"
        print(line)
    for schedule in schedules(app):
        print(f"{schedule.task_identifier} is due at {schedule.cron}, {schedule.timezone}")


if __name__ == "__main__":
    migrate.upgrade(engine)
    asyncio.run(main())
    engine.dispose()
