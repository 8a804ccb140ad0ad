"""Taskiq tasks with their history: a task that sends another one, and retries.

Install and run it with::

    pip install 'jobhistory[taskiq]'
    python taskiq_app.py               # creates taskiq_app.db, an SQLite file, in this folder

The broker is in memory, so the program is its own worker. In production, use another broker, and
run ``taskiq worker taskiq_app:broker``; nothing else changes.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import create_engine
from taskiq import InMemoryBroker, SimpleRetryMiddleware

from jobhistory import create_store, migrate
from jobhistory.contrib.taskiq import JobHistory

engine = create_engine("sqlite:///taskiq_app.db")
store = create_store(engine)
broker = InMemoryBroker(await_inplace=True).with_middlewares(
    SimpleRetryMiddleware(default_retry_count=2), JobHistory(store)
)


@broker.task(task_name="resize")
def resize(path: str) -> None:
    """Do what takes long; a function that is not async runs in a thread."""


@broker.task(task_name="order")
async def order(customer: int) -> None:
    """Send another task."""
    await bill.kiq(customer)


@broker.task(task_name="bill", retry_on_error=True)
async def bill(customer: int) -> None:
    """Fail each time."""
    raise LookupError(f"there is no customer {customer}")


async def main() -> None:
    """Send tasks, and print their history."""
    await broker.startup()
    await resize.kiq("cat.png")
    ordered = await order.kiq(17)
    await broker.shutdown()

    for record in store.query(order="oldest"):
        line = f"{record.task_identifier}, attempt {record.attempt_number}: {record.status.value}"
        if record.will_retry:
            line += ", will be tried again"
        if record.error_message is not None:
            line += f": {record.error_message}"
        print(line)
    together = store.get_by_correlation_id(ordered.task_id)
    print("the order and its bill have the same correlation id:", len(together) == 3)


if __name__ == "__main__":
    migrate.upgrade(engine)
    asyncio.run(main())
    engine.dispose()
