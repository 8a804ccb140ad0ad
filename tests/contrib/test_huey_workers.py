"""Tasks of Huey, with real consumers, Redis and PostgreSQL."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobhistory import create_store
from tests.contrib.workers import running, wait_for, write_app

huey_package = pytest.importorskip("huey")

from redis import Redis  # noqa: E402

pytestmark = pytest.mark.adapters

ROOT = Path(__file__).parents[2]
VERSION = tuple(int(part) for part in huey_package.__version__.split(".")[:2])

APP = """
import os

if os.environ.get("GREENLETS"):  # as apps do whose workers are greenlets
    from gevent import monkey

    monkey.patch_all()

import signal, sys, time
from pathlib import Path

from huey import RedisHuey
from sqlalchemy import create_engine, text

from jobhistory import Recorder, create_store
from jobhistory.contrib.huey import record_tasks

engine = create_engine(URL)
with engine.connect() as connection:  # used before the consumer forks
    connection.execute(text("SELECT 1"))
STORES = {
    "url": lambda: create_store(URL),
    "engine": lambda: create_store(engine),
    "recorder": lambda: Recorder(create_store(engine)),
    "silent": lambda: create_store(SILENT),
}
huey = RedisHuey("shop", url=REDIS)
record_tasks(huey, STORES[os.environ.get("STORE", "url")]())


@huey.task()
def double(number, **_):
    return 2 * number


@huey.task()
def fail():
    raise ValueError("no such order")


@huey.task(retries=2)
def flaky():
    raise TimeoutError("no answer")


@huey.task()
def enqueue_double():
    double(1)


@huey.task()
def kill():
    os.kill(os.getpid(), signal.SIGKILL)


@huey.task()
def leave():
    sys.exit(3)


@huey.task()
def wait(seconds):
    Path(STARTED).write_text(str(os.getpid()))
    for _ in range(int(seconds * 20)):
        time.sleep(0.05)


LIMIT = {"timeout": 1} if HAS_LIMITS else {}


@huey.task(**LIMIT)
def late():
    time.sleep(60 if HAS_LIMITS else 0)
"""


class Machine:
    """A folder with an app, a Redis, and a database for its history."""

    def __init__(self, folder, redis_url, database):
        self.folder = folder
        self.url = database.url.render_as_string(hide_password=False)
        self.started = folder / "started"
        self.redis = Redis.from_url(redis_url)
        self.store = create_store(database.engine)
        self.silent = socket.create_server(("127.0.0.1", 0))
        silent = f"postgresql+psycopg://app@127.0.0.1:{self.silent.getsockname()[1]}/app"
        path = write_app(
            folder,
            APP,
            URL=self.url,
            REDIS=redis_url,
            STARTED=str(self.started),
            SILENT=silent,
            HAS_LIMITS=VERSION >= (3, 0),
        )
        spec = importlib.util.spec_from_file_location("jobs_app", path)
        self.app = importlib.util.module_from_spec(spec)
        sys.modules["jobs_app"] = self.app
        spec.loader.exec_module(self.app)

    def consuming(self, *options, store="url", greenlets=""):
        command = ["huey.bin.huey_consumer", "jobs_app.huey", "--health-check-interval=1"]
        environment = {"STORE": store, "GREENLETS": greenlets}
        return running(*command, *options, folder=self.folder, environment=environment)

    def rows(self, **criteria):
        records = self.store.query(limit=10_000, **criteria)
        return sorted(records, key=lambda record: (record.started_at, record.id))

    def wait_for_rows(self, number):
        def are_ended():
            return self.store.count().value >= number and not self.store.running()

        wait_for(are_ended, f"{number} executions have ended")
        records = self.rows()
        assert len(records) == number
        return records

    def wait_until_started(self):
        wait_for(lambda: self.started.exists() and self.started.read_text(), "the task has begun")
        return int(self.started.read_text())

    def close(self):
        self.silent.close()
        self.app.engine.dispose()
        self.app.huey.storage.conn.connection_pool.disconnect()
        self.redis.close()
        del sys.modules["jobs_app"]


@pytest.fixture
def machine(tmp_path, redis_url, postgres_database):
    machine = Machine(tmp_path, redis_url, postgres_database)
    yield machine
    machine.close()


def one(records):
    (record,) = records
    return record


def attempt(record):
    return record.attempt_number, record.will_retry


def test_200_tasks_in_processes_are_recorded_and_a_killed_process_is_lost(machine):
    app = machine.app
    for number in range(120):
        app.double(number)
    for _ in range(30):
        app.fail()
    for _ in range(15):
        app.flaky()
    for _ in range(4):
        app.enqueue_double()
    app.double(1, big="x" * 20_000_000, password="hunter2")
    app.late()
    app.kill()
    app.leave()
    with machine.consuming("-k", "process", "-w", "4") as consumer:
        records = machine.wait_for_rows(120 + 30 + 3 * 15 + 2 * 4 + 4)
        assert consumer.end(signal.SIGINT) == 0

    by_task = {}
    for record in records:
        by_task.setdefault(record.task_identifier.removeprefix("jobs_app."), []).append(record)
    assert {record.status for record in by_task["double"]} == {"completed"}
    assert all("in fail\n" in record.error_stack for record in by_task["fail"])
    attempts = sorted(
        (each.job_id, each.attempt_number, each.will_retry) for each in by_task["flaky"]
    )
    assert [each[1:] for each in attempts] == 15 * [(1, True), (2, True), (3, False)]

    parents = {record.id: record.correlation_id for record in by_task["enqueue_double"]}
    children = [record for record in by_task["double"] if record.parent_id]
    assert {record.parent_id: record.correlation_id for record in children} == parents

    assert one(by_task["kill"]).error_type == "jobhistory.WorkerLost"
    assert one(by_task["leave"]).error_type == "jobhistory.WorkerLost"
    if VERSION >= (3, 0):
        assert one(by_task["late"]).error_type == "jobhistory.TimedOut"
    assert "hunter2" not in str([record.payload for record in by_task["double"]])
    assert len({record.worker_id for record in records}) >= 4


def test_what_a_killed_consumer_left_is_lost_and_running_twins_are_not(machine):
    machine.app.wait(60)
    with machine.consuming("-k", "thread", "-w", "2") as consumer:
        assert machine.wait_until_started() == consumer.process.pid
        os.kill(consumer.process.pid, signal.SIGKILL)
        consumer.process.wait()
    twin = machine.store.record_start({"id": "2", "task_identifier": "t"}, "elsewhere:1", "2")

    for number in range(20):
        machine.app.double(number)
    with machine.consuming("-k", "thread", "-w", "4"):
        wait_for(lambda: machine.store.count(status="completed").value == 20, "tasks are done")
        wait_for(lambda: machine.store.count(status="failed"), "the leftover is ended")

    lost = one(machine.rows(status="failed"))
    assert (lost.task_identifier, lost.error_type) == ("jobs_app.wait", "jobhistory.WorkerLost")
    assert one(machine.store.running()).id == twin.id


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_graceful_stop_waits_and_another_stop_is_a_lost_worker(machine, kind):
    for number, status in [(signal.SIGINT, "completed"), (signal.SIGTERM, "failed")]:
        machine.started.unlink(missing_ok=True)
        machine.app.wait(1)
        with machine.consuming("-k", kind, "-w", "1") as consumer:
            machine.wait_until_started()
            consumer.end(number)
            records = machine.rows()
        assert records[-1].status == status, consumer.printed

    assert records[-1].error_type == "jobhistory.WorkerLost"


@pytest.mark.parametrize("store", ["engine", "recorder"])
def test_an_engine_that_was_used_before_the_fork_and_a_recorder_lose_nothing(machine, store):
    for number in range(20):
        machine.app.double(number)
    machine.app.fail()
    with machine.consuming("-k", "process", "-w", "2", store=store) as consumer:
        wait_for(lambda: machine.redis.llen("huey.redis.shop") == 0, "the queue is empty")
        assert consumer.end(signal.SIGINT) == 0

    assert len(machine.rows()) == 21
    assert not machine.store.running()


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
def test_tasks_in_greenlets_are_recorded(machine):
    for number in range(20):
        machine.app.double(number)
    machine.app.flaky()
    machine.app.leave()
    with machine.consuming("-k", "greenlet", "-w", "4", greenlets="1") as consumer:
        records = machine.wait_for_rows(24)
        consumer.end(signal.SIGINT)

    assert sum(record.status == "completed" for record in records) == 20


def test_tasks_run_while_the_database_does_not_answer(machine):
    results = [machine.app.double(number) for number in range(3)]
    began = time.monotonic()
    with machine.consuming("-k", "process", "-w", "1", store="silent") as consumer:
        assert [result(blocking=True, timeout=20) for result in results] == [0, 2, 4]
        assert time.monotonic() - began < 15
        consumer.end(signal.SIGINT)
        assert "not recorded: the start of jobs_app.double" in consumer.printed


def test_the_example_runs(redis_url, tmp_path):
    example = ROOT / "examples" / "huey_app.py"
    done = subprocess.run(
        [sys.executable, example],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "charge_card, attempt 2: completed" in done.stdout
