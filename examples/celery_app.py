"""Celery tasks with their history: retries, and a chain whose steps know each other.

Install and run it with::

    pip install 'jobhistory[celery]'
    python celery_app.py               # creates celery_app.db, an SQLite file, in this folder

The program needs no broker: it runs the tasks itself. For workers, pass ``broker="redis://..."``,
run ``celery -A celery_app worker``, and send tasks with ``delay``; nothing else changes.
"""

from __future__ import annotations

from celery import Celery, Task, chain
from sqlalchemy import create_engine

from jobhistory import create_store, migrate
from jobhistory.contrib.celery import record_tasks

engine = create_engine("sqlite:///celery_app.db")
store = create_store(engine)
app = Celery("celery_app")
record_tasks(app, store)


@app.task(name="fetch_price", bind=True, autoretry_for=(ConnectionError,), max_retries=2)
def fetch_price(self: Task, item: str) -> int:
    """Succeed at the second attempt."""
    if self.request.retries == 0:
        raise ConnectionError("the shop does not answer")
    return 7


@app.task(name="bill")
def bill(price: int, customer: int) -> int:
    """Fail for a customer."""
    if customer == 17:
        raise LookupError(f"there is no customer {customer}")
    return price


def main() -> None:
    """Run tasks, and print their history."""
    for customer in (16, 17):
        chain(fetch_price.s("tea"), bill.s(customer)).apply()

    for record in store.query(order="oldest"):
        line = f"{record.task_identifier}, attempt {record.attempt_number}: {record.status.value}"
        if record.will_retry:
            line += ", will be tried again"
        if record.error_message is not None:
            line += f": {record.error_message}"
        print(line)
    failed = store.query(status="failed", task_identifier="bill", limit=1)[0]
    print("the arguments of the task that failed:", failed.payload["args"])


if __name__ == "__main__":
    migrate.upgrade(engine)
    main()
    engine.dispose()
