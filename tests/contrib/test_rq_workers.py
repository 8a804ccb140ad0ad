"""Jobs of RQ, with real workers, Redis and PostgreSQL."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobhistory import create_store
from tests.contrib.workers import running, wait_for, write_app

rq = pytest.importorskip("rq")

from redis import Redis  # noqa: E402
from rq.command import send_stop_job_command  # noqa: E402
from rq.registry import StartedJobRegistry  # noqa: E402

from jobhistory.contrib.rq import Queue  # noqa: E402

pytestmark = [
    pytest.mark.adapters,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:rq"),
]

ROOT = Path(__file__).parents[2]
VERSION = tuple(int(part) for part in rq.version.VERSION.split(".")[:2])


def rows(store, **criteria):
    records = store.query(limit=10_000, **criteria)
    return sorted(records, key=lambda record: (record.started_at, record.id))


def one(records):
    (record,) = records
    return record


APP = """
import os, signal, sys, time
from pathlib import Path

import rq
from redis import Redis
from sqlalchemy import create_engine, text

from jobhistory import Recorder, create_store
from jobhistory.contrib.rq import Queue, RecordsJobs

engine = create_engine(URL)
with engine.connect() as connection:  # used before the workers fork
    connection.execute(text("SELECT 1"))
store = create_store(engine)


class OnEngine(RecordsJobs, rq.Worker):
    history = store


class WithRecorder(RecordsJobs, rq.Worker):
    history = Recorder(store)


class Silent(RecordsJobs, rq.Worker):
    history = create_store(SILENT)


def double(number, **_):
    return 2 * number


def fail():
    raise ValueError("no such order")


def flaky():
    raise TimeoutError("no answer")


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_once(number):
    if rq.get_current_job().retries_left:
        os.kill(os.getpid(), number)
        os._exit(3)


def leave_politely():
    sys.exit(3)


def wait(seconds):
    Path(STARTED).write_text(str(os.getpid()))
    time.sleep(seconds)


def enqueue_double():
    Queue("default", connection=Redis.from_url(REDIS)).enqueue(double, 1)
"""


class Machine:
    """A folder with an app, a Redis, and a database for its history."""

    def __init__(self, folder, redis_url, database):
        self.folder, self.redis_url = folder, redis_url
        self.url = database.url.render_as_string(hide_password=False)
        self.started = folder / "started"
        self.redis = Redis.from_url(redis_url)
        self.queue = Queue("default", connection=self.redis)
        self.store = create_store(database.engine)
        self.silent = socket.create_server(("127.0.0.1", 0))
        silent = f"postgresql+psycopg://app@127.0.0.1:{self.silent.getsockname()[1]}/app"
        values = {"URL": self.url, "REDIS": redis_url, "STARTED": str(self.started)}
        write_app(folder, APP, **values, SILENT=silent)

    def working(self, *options, worker="jobhistory.contrib.rq.Worker"):
        command = ["rq.cli", "worker", "--url", self.redis_url, "-w", worker, *options]
        return running(*command, folder=self.folder, environment={"JOBHISTORY_URL": self.url})

    def work(self, *options, **arguments):
        """Run a worker until there are no jobs; return what it printed."""
        with self.working("--burst", *options, **arguments) as worker:
            assert worker.process.wait(60) == 0, worker.printed
            return worker.printed

    def enqueue(self, task, *args, **options):
        return self.queue.enqueue(f"jobs_app.{task}", args=args, **options)

    def rows(self, **criteria):
        return rows(self.store, **criteria)

    def wait_until_started(self):
        wait_for(lambda: self.started.exists() and self.started.read_text(), "the job has begun")
        return int(self.started.read_text())


@pytest.fixture
def machine(tmp_path, redis_url, postgres_database):
    machine = Machine(tmp_path, redis_url, postgres_database)
    yield machine
    machine.silent.close()
    machine.redis.close()


def test_200_jobs_of_a_real_worker_are_recorded_attempt_by_attempt(machine):
    """In one process, because a fork for each job takes most of the time."""
    check_many_jobs(machine, 32, worker="jobhistory.contrib.rq.SimpleWorker")


def test_jobs_of_two_workers_that_fork_are_recorded_also_if_a_fork_is_killed(machine):
    machine.enqueue("leave_politely")
    big = machine.enqueue("double", 1, big="x" * 20_000_000, password="hunter2").id
    numbers = [signal.SIGKILL, signal.SIGCONT]  # the latter does nothing
    lost = [machine.enqueue("kill_once", int(n), retry=rq.Retry(max=1)).id for n in numbers]
    late = machine.enqueue("wait", 60, job_timeout=1).id
    check_many_jobs(machine, 4, workers=2)

    assert one(machine.rows(task_identifier="jobs_app.leave_politely")).error_type == "SystemExit"
    assert one(machine.rows(job_id=late)).error_type == "jobhistory.TimedOut"
    for job_id in lost:
        killed, again = machine.rows(job_id=job_id)
        assert (attempt(killed), attempt(again)) == ((1, True), (2, None))
        assert (killed.error_type, again.status) == ("jobhistory.WorkerLost", "completed")
        assert "waitpid returned" in killed.error_message
    assert one(machine.rows(job_id=big)).status == "completed"
    assert "hunter2" not in str(one(machine.rows(job_id=big)).payload)


def check_many_jobs(machine, count, *, workers=1, **arguments):
    """Run several jobs of each kind, and others that are in the queue."""
    others = machine.queue.job_ids
    for number in range(count):
        for _ in range(3):
            machine.enqueue("double", number)
        machine.enqueue("fail")
        machine.enqueue("flaky", retry=rq.Retry(max=2))
        machine.enqueue("enqueue_double")
    with ExitStack() as stack:
        running = [
            stack.enter_context(machine.working("--burst", **arguments)) for _ in range(workers)
        ]
        for worker in running:
            assert worker.process.wait(60) == 0, worker.printed

    by_task = {}
    for record in machine.rows():
        assert record.status != "started"
        if record.job_id not in others:
            by_task.setdefault(record.task_identifier.removeprefix("jobs_app."), []).append(record)
    assert {task: len(records) for task, records in by_task.items()} == {
        "double": 4 * count,
        "fail": count,
        "flaky": 3 * count,
        "enqueue_double": count,
    }
    assert {record.status for record in by_task["double"]} == {"completed"}
    assert len({record.job_id for record in by_task["double"]}) == 4 * count
    assert all("in fail\n" in record.error_stack for record in by_task["fail"])
    attempts = sorted((each.job_id, *attempt(each)) for each in by_task["flaky"])
    assert [each[1:] for each in attempts] == count * [(1, True), (2, True), (3, False)]
    assert len({record.worker_id for record in machine.rows()}) == workers

    parents = {record.id: record.correlation_id for record in by_task["enqueue_double"]}
    children = [record for record in by_task["double"] if record.parent_id]
    assert {record.parent_id: record.correlation_id for record in children} == parents


def attempt(record):
    return record.attempt_number, record.will_retry


def test_a_job_that_an_operator_stops_is_cancelled_and_a_warm_shutdown_waits(machine):
    with machine.working() as worker:
        stopped = machine.enqueue("wait", 60, retry=rq.Retry(max=1))
        machine.wait_until_started()
        send_stop_job_command(machine.redis, stopped.id)
        record = wait_for(lambda: machine.rows(status="cancelled"), "the job is stopped")[0]
        assert (record.job_id, record.task_identifier) == (stopped.id, "jobs_app.wait")

        machine.started.unlink()
        waiting = machine.enqueue("wait", 1)
        machine.wait_until_started()
        assert worker.end(signal.SIGTERM) == 0

    assert one(machine.rows(job_id=waiting.id)).status == "completed"


def test_what_a_killed_worker_left_is_lost_and_runs_again(machine):
    job = machine.enqueue("wait", 2, retry=rq.Retry(max=1))
    with machine.working("--name", "worker-1") as worker:
        horse = machine.wait_until_started()
        os.kill(worker.process.pid, signal.SIGKILL)
        os.kill(horse, signal.SIGKILL)
        worker.process.wait()
    twin = machine.store.record_start({"id": "2", "task_identifier": "t"}, "worker-2", "2")

    registry = StartedJobRegistry("default", connection=machine.redis)
    (execution,) = machine.redis.zrange(registry.key, 0, -1)
    machine.redis.zadd(registry.key, {execution: time.time() - 1})  # 90 s later
    machine.work("--name", "worker-3")

    lost, again = machine.rows(job_id=job.id)
    assert (lost.error_type, lost.will_retry, lost.worker_id) == (
        "jobhistory.WorkerLost",
        True,
        "worker-1",
    )
    assert (again.attempt_number, again.status) == (2, "completed")
    assert machine.store.get(twin.id).status == "started"


def test_an_engine_that_was_used_before_the_fork_and_a_recorder_lose_nothing(machine):
    for worker in ("OnEngine", "WithRecorder"):
        machine.enqueue("double", 1)
        machine.enqueue("fail")
        machine.enqueue("kill")
        machine.work(worker=f"jobs_app.{worker}")

    assert [record.status for record in machine.rows()] == 2 * ["completed", "failed", "failed"]


@pytest.mark.skipif(VERSION < (3, 0), reason="RQ 2 spawns workers without the hooks of the class")
def test_a_worker_that_spawns_records_too(machine):
    machine.enqueue("fail", retry=rq.Retry(max=1))
    machine.enqueue("kill")
    machine.work(worker="jobhistory.contrib.rq.SpawnWorker")

    records = machine.rows()
    errors = {(each.task_identifier, each.attempt_number, each.error_type) for each in records}
    assert errors == {
        ("jobs_app.fail", 1, "ValueError"),
        ("jobs_app.fail", 2, "ValueError"),
        ("jobs_app.kill", 1, "jobhistory.WorkerLost"),
    }


def test_jobs_run_while_the_database_does_not_answer(machine):
    job = machine.enqueue("double", 2)
    began = time.monotonic()
    printed = machine.work(worker="jobs_app.Silent")

    assert job.return_value(refresh=True) == 4
    assert time.monotonic() - began < 20
    assert "not recorded: the start of jobs_app.double" in printed


def test_the_example_runs(redis_url, tmp_path):
    example = ROOT / "examples" / "rq_app.py"
    done = subprocess.run(
        [sys.executable, example, redis_url, f"sqlite:///{tmp_path}/history.db"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "charge_card, attempt 2: completed" in done.stdout
