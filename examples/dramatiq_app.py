"""An app with Dramatiq: three actors, and what became of the messages sent to them.

Install and run it with::

    pip install 'jobhistory[cli,dramatiq]' 'dramatiq[redis]'
    dramatiq dramatiq_app &            # the workers
    python dramatiq_app.py             # sends three messages, and shows their history
    jobhistory list --url sqlite:///dramatiq_app.db

It needs Redis: set ``REDIS_URL`` if that is not on this machine. The history is an SQLite file in
this folder, unless ``DATABASE_URL`` is set.

One actor succeeds, one succeeds at its second attempt, and one fails for good. Each attempt is one
row of the history.
"""

from __future__ import annotations

import os
import time

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from sqlalchemy import create_engine

from jobhistory import HistoryRecord, create_store, current_execution, migrate
from jobhistory.contrib.dramatiq import JobHistory

DATABASE_URL = os.environ.get("DATABASE_URL", "sqlite:///dramatiq_app.db")

engine = create_engine(DATABASE_URL)
migrate.upgrade(engine)
store = create_store(engine)

broker = RedisBroker(url=os.environ.get("REDIS_URL", "redis://localhost:6379/0"))
broker.add_middleware(JobHistory(store))
dramatiq.set_broker(broker)


@dramatiq.actor
def greet(name: str) -> None:
    """Do the simplest work there is."""


@dramatiq.actor(max_retries=3, min_backoff=100, max_backoff=1000)
def fetch_prices(url: str) -> None:
    """Fail at the first attempt, as services on the network do."""
    execution = current_execution()
    assert execution is not None
    record = store.get(execution.id)
    if record is not None and record.attempt_number == 1:
        raise ConnectionError("no answer")


@dramatiq.actor(throws=LookupError)
def bill(customer: int) -> None:
    """Fail with an error that no retry can help."""
    raise LookupError(f"there is no customer {customer}")


def main() -> None:
    """Send a message to each actor, wait for the workers, and print each attempt."""
    messages = [
        greet.send("Ann"),
        fetch_prices.send("https://example.org/prices"),
        bill.send(17),
    ]
    for message in messages:
        for record in wait_for_the_end(message.message_id):
            print(described(record))


def wait_for_the_end(message_id: str) -> list[HistoryRecord]:
    """Return the attempts at a message, oldest first, as soon as the last one has ended."""
    for _ in range(300):
        records = store.get_by_job_id(message_id)
        if records and records[0].status != "started" and not records[0].will_retry:
            return records[::-1]
        time.sleep(0.1)
    raise SystemExit("no worker answers; start one with: dramatiq dramatiq_app")


def described(record: HistoryRecord) -> str:
    """Return a line about an attempt."""
    line = f"{record.task_identifier}, attempt {record.attempt_number}: {record.status}"
    if record.will_retry:
        line += ", will be tried again"
    if record.error_type:
        line += f": {record.error_type}: {record.error_message}"
    return line


if __name__ == "__main__":
    main()
