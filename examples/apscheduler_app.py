"""An app with APScheduler: two periodic jobs, one of which fails and is run again.

Install and run it with::

    pip install 'jobhistory[apscheduler,cli]'
    python apscheduler_app.py          # creates apscheduler_app.db, an SQLite file, in this folder
    jobhistory list --url sqlite:///apscheduler_app.db

It starts a scheduler, whose hourly job fails at once. It runs that job again, prints both
executions, and lists the schedules. A server would go on; this program ends.

For another database, set ``DATABASE_URL``.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import create_engine

from jobhistory import HistoryRecord, create_store, migrate
from jobhistory.contrib.apscheduler import record_jobs, schedules
from jobhistory.contrib.replay import replay

engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///apscheduler_app.db"))
migrate.upgrade(engine)
store = create_store(engine)

scheduler = BackgroundScheduler(timezone="Europe/Berlin")
record_jobs(scheduler, store)

answers = iter([ConnectionError("no answer"), None])


def fetch_prices(url: str) -> None:
    """Fail the first time, as services on the network do."""
    error = next(answers)
    if error is not None:
        raise error


def send_report() -> None:
    """Do nothing; it is listed, and it is not due."""


def main() -> None:
    """Run the scheduler until both executions have ended, and print what history has of them."""
    scheduler.add_job(
        fetch_prices,
        "interval",
        ["https://example.org/prices"],
        hours=1,
        id="prices",
        next_run_time=datetime.now(UTC),
    )
    scheduler.add_job(send_report, "cron", day_of_week="mon-fri", hour=2, minute=17, id="report")
    begun = datetime.now(UTC)
    scheduler.start()
    failed = wait_for("failed", begun)
    print(f"{failed.task_identifier} failed: {failed.error_message}")
    replay(store, scheduler, failed.id)
    print(f"run again: {wait_for('completed', begun).status}")
    for schedule in schedules(scheduler):
        print(schedule.name, schedule.cron or f"every {schedule.every}", schedule.timezone)
    scheduler.shutdown()


def wait_for(status: str, begun: datetime) -> HistoryRecord:
    """Return the execution of this run of the program that has a status, when there is one."""
    for _ in range(200):
        for record in store.query(status=status, from_=begun, limit=1):
            return record
        time.sleep(0.05)
    raise SystemExit(f"no execution has {status}")


if __name__ == "__main__":
    main()
