"""Tasks of Huey, which a consumer records.

Install and run it with::

    pip install 'jobhistory[huey]'
    python huey_app.py                 # creates huey_app.db, an SQLite file

It enqueues three tasks: one succeeds, one fails at its first attempt, and one enqueues another one.
The consumer is a thread here, and the queue is in memory, so that the program needs nothing else.
Then it prints what history has. Each attempt is one row.

In production, the queue is a ``RedisHuey``, and the consumer is ``huey_consumer huey_app.huey``.
"""

from __future__ import annotations

import time

from huey import MemoryHuey
from huey.api import Task
from huey.consumer import Consumer
from sqlalchemy import create_engine

from jobhistory import HistoryStore, create_store, migrate
from jobhistory.contrib.huey import record_tasks

huey = MemoryHuey("shop")
engine = create_engine("sqlite:///huey_app.db")
store = create_store(engine)
record_tasks(huey, store)


@huey.task()
def send_receipt(order: int) -> None:
    """Do the simplest work there is."""


@huey.task(retries=2, context=True)
def charge_card(order: int, task: Task) -> None:
    """Fail at the first of three attempts, as services on the network do."""
    if task.retries == 2:
        raise TimeoutError("the bank does not answer")


@huey.task()
def ship(order: int) -> None:
    """Enqueue another task."""
    send_receipt(order)


def work(history: HistoryStore, executions: int) -> None:
    """Execute tasks until history has as many executions. A real consumer would go on."""
    consumer = Consumer(huey, workers=1)
    consumer.start()
    while history.count(status=["completed", "failed"]).value < executions:
        time.sleep(0.05)
    consumer.stop(graceful=True)


def report(history: HistoryStore, task_ids: list[str]) -> None:
    """Print each attempt at the tasks, and at the tasks that they enqueued."""
    for task_id in task_ids:
        for record in reversed(history.get_by_correlation_id(task_id)):
            name = record.task_identifier.rpartition(".")[2]
            print(f"{name}, attempt {record.attempt_number}: {record.status.value}")


def main() -> None:
    """Enqueue three tasks, execute them, and report."""
    migrate.upgrade(engine)  # in production, a step of your deployment
    before = store.count().value
    results = [send_receipt(17), charge_card(18), ship(19)]
    work(store, before + 5)
    report(store, [result.id for result in results])
    engine.dispose()


if __name__ == "__main__":
    main()
