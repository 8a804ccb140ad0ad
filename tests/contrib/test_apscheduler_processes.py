"""The adapter for APScheduler 3 in processes: those of a pool, and schedulers that are killed."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from jobhistory import create_store

from .workers import running, wait_for, write_app

pytest.importorskip("apscheduler")

pytestmark = pytest.mark.adapters

EXAMPLES = Path(__file__).parents[2] / "examples"

APP = """
import os, signal, sys, time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from apscheduler.schedulers.background import BackgroundScheduler
from jobhistory import Recorder, create_store
from jobhistory.contrib.apscheduler import record_jobs

def make_store(mark):
    with Path(mark).open("a") as file:
        file.write("x")
    return Recorder(create_store(URL), max_delay=60) if RECORDS else create_store(URL)

def succeed(number): ...

def fail(number):
    raise ValueError(f"number {number}")

def leave():
    sys.exit(3)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def late(): ...

def slow(seconds):
    Path("slow").touch()
    time.sleep(seconds)

def stop(*_):
    global running
    running = False

def main():
    import jobs_app
    scheduler = BackgroundScheduler(
        timezone="UTC",
        executors={
            "default": {"type": "threadpool", "max_workers": 8},
            "processes": {"type": "processpool", "max_workers": 1},
        },
        job_defaults={"misfire_grace_time": None},
    )
    record_jobs(scheduler, partial(jobs_app.make_store, "made"), skipped="record")
    for line in Path("jobs").read_text().splitlines():
        executor, name, *args = line.split()
        run_date = datetime(2026, 1, 1, tzinfo=UTC)
        scheduler.add_job(
            f"jobs_app:{name}", "date", [float(each) for each in args], executor=executor,
            run_date=run_date, misfire_grace_time=1 if name == "late" else None,
        )
    signal.signal(signal.SIGTERM, stop)
    scheduler.start()
    while running:
        new = Path("more")
        if new.exists():
            new.unlink()
            scheduler.add_job("jobs_app:succeed", args=[0], executor="processes")
        if not scheduler.get_jobs():
            Path("submitted").touch()
        time.sleep(0.02)
    scheduler.shutdown()

running = True
if __name__ == "__main__":
    main()
"""


@pytest.fixture
def store(postgres_database):
    with create_store(postgres_database.engine) as store:
        yield store


@pytest.fixture
def app(postgres_database, tmp_path):
    """A function that writes the app and its jobs, and returns the folder."""

    def write(*jobs, records=False):
        url = postgres_database.url.render_as_string(hide_password=False)
        write_app(tmp_path, APP, URL=url, RECORDS=records)
        (tmp_path / "jobs").write_text("\n".join(jobs))
        return tmp_path

    return write


def ended(store, count):
    return store.count().value >= count and not store.query(status="started")


def by_task(store):
    return Counter(
        (r.task_identifier.partition(":")[2], r.labels["queue"], r.status.value, r.error_type)
        for r in store.iterate()
    )


@pytest.mark.parametrize("records", [False, True])
def test_threads_and_processes_record_each_of_200_jobs(app, store, records):
    jobs = ["default fail 7", "processes fail 7", *["default succeed 1"] * 4]
    jobs += ["processes succeed 1"] * 4
    special = [
        "processes leave",
        "default leave",
        "processes late",
        "default late",
        "default slow 1",
    ]
    folder = app(*jobs * 20, *special, records=records)
    with running("jobs_app", folder=folder) as worker:
        if not records:  # otherwise the end of each process writes everything
            wait_for(lambda: store.count().value >= 204, f"the jobs: {worker.printed}")
        wait_for((folder / "submitted").exists, "the last submission")
        wait_for((folder / "slow").exists, "the slow job")
        assert worker.end() == 0, worker.printed

    failed, cancelled = ("failed", "ValueError"), ("cancelled", None)
    assert by_task(store) == {
        ("succeed", "default", "completed", None): 80,
        ("succeed", "processes", "completed", None): 80,
        ("fail", "default", *failed): 20,
        ("fail", "processes", *failed): 20,
        ("leave", "default", "failed", "SystemExit"): 1,
        ("leave", "processes", "failed", "SystemExit"): 1,
        ("late", "default", *cancelled): 1,
        ("late", "processes", *cancelled): 1,
        ("slow", "default", "completed", None): 1,
    }
    failures = store.query(status="failed", task_identifier="jobs_app:fail")
    assert all("in fail\n" in r.error_stack for r in failures)
    pids = {r.labels["pid"] for r in store.iterate() if r.labels["queue"] == "processes"}
    assert len(pids) == 1
    assert str(worker.process.pid) not in pids
    assert (folder / "made").read_text() == "xx"  # one for the scheduler, and one for the process


def test_a_killed_process_of_a_pool_is_lost_when_the_pool_starts_the_next(app, store):
    folder = app("processes die")
    with running("jobs_app", folder=folder) as worker:
        wait_for(lambda: "BrokenProcessPool" in worker.printed, "the end of the process")
        assert [r.status for r in store.query()] == ["started"]
        (folder / "more").touch()
        wait_for(lambda: ended(store, 2), "the next job")
        assert worker.end() == 0

    assert by_task(store) == {
        ("die", "processes", "failed", "jobhistory.WorkerLost"): 1,
        ("succeed", "processes", "completed", None): 1,
    }


def test_what_a_killed_scheduler_left_is_lost_when_it_starts_again(app, store):
    folder = app("default slow 60")
    with running("jobs_app", folder=folder) as worker:
        wait_for(lambda: store.query(status="started"), "the job")
        worker.end(signal.SIGKILL)
    app("default succeed 1")
    with running("jobs_app", folder=folder):
        wait_for(lambda: ended(store, 2), "the lost one")

    assert by_task(store) == {
        ("slow", "default", "failed", "jobhistory.WorkerLost"): 1,
        ("succeed", "default", "completed", None): 1,
    }


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import time
from apscheduler.schedulers.gevent import GeventScheduler
from jobhistory import create_store, current_execution
from jobhistory.contrib.apscheduler import record_jobs

def job(number):
    before = current_execution().id
    time.sleep(0.2)
    assert current_execution().id == before
    if number % 4 == 0:
        raise ValueError(number)

scheduler = GeventScheduler(timezone="UTC")
store = create_store()
record_jobs(scheduler, store)
for number in range(20):
    scheduler.add_job(job, args=[number])
scheduler.start()
while store.count(status=["completed", "failed"]).value < 20:
    time.sleep(0.01)
scheduler.shutdown()
records = store.query()
first_end = min(r.completed_at for r in records)
print("at once:", sum(r.started_at < first_end for r in records) > 1)
print("failed:", sorted(r.error_message for r in records if r.status == "failed"))
"""


@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
def test_greenlets_are_recorded_as_threads_are(tmp_path):
    (tmp_path / "greenlets.py").write_text(GREENLETS)
    with running("greenlets", folder=tmp_path) as script:
        assert script.process.wait(30) == 0, script.printed

    assert "at once: True\nfailed: ['0', '12', '16', '4', '8']\n" in script.printed


def test_the_example_runs_jobs_and_shows_their_history(tmp_path):
    shutil.copy(EXAMPLES / "apscheduler_app.py", tmp_path)
    for _ in range(2):  # the history of the first run does not disturb the second
        with running("apscheduler_app", folder=tmp_path) as script:
            assert script.process.wait(30) == 0, script.printed
        for line in (
            "__main__:fetch_prices failed: no answer",
            "run again: completed",
            "prices every 1:00:00 Europe/Berlin",
            "report 17 2 * * 1-5 Europe/Berlin",
        ):
            assert line in script.printed.splitlines()
