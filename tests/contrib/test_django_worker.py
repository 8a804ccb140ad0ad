"""Django's tasks with workers of django-tasks-db and PostgreSQL."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from jobhistory import create_store
from tests.contrib.django_shop import APPS, write_package
from tests.contrib.workers import running, wait_for

pytestmark = pytest.mark.adapters

SETTINGS = """
import os

SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = [*APPS, "django_tasks_db"]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql", **DATABASE}}
JOBHISTORY = {"RESULT": True}
if "HISTORY_STORE" in os.environ:
    JOBHISTORY = {"STORE": os.environ["HISTORY_STORE"]}
"""

RECORDER = """
from jobhistory import Recorder, create_store
from jobhistory.contrib.django.configuration import url_of

def recorder():
    return Recorder(create_store(url_of("default")), max_delay=60)
"""

SHELL = """
import sys, traceback, django

django.setup()
from uuid import UUID
from django.apps import apps
from django.core.management import call_command
from django.db import close_old_connections
from jobhistory import new_execution_id
from jobhistory.contrib.adapter import Carried, Replay
from jobhistory.contrib.django import enqueue
from shop.tasks import *

for line in sys.stdin:
    try:
        exec(eval(line))
    except Exception:
        traceback.print_exc(file=sys.stdout)
    print("done", flush=True)
"""

WORKER = ("django", "db_worker", "--no-startup-delay", "--interval", "0.05", "--queue-name", "*")


class Project:
    """A Django project whose tasks and history are in one database."""

    def __init__(self, folder, url):
        self.folder = folder
        self.environment = {"DJANGO_SETTINGS_MODULE": "worker_settings", "PYTHONUNBUFFERED": "1"}
        self.engine = create_engine(url)
        self.store = create_store(self.engine)

    @contextmanager
    def shell(self):
        """Start the one process for whatever is not a worker, as starting Django takes long."""
        with subprocess.Popen(
            [sys.executable, "shell.py"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder), **self.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as self.process:
            yield
            self.process.stdin.close()

    def run(self, code):
        """Run code in the shell, such as `add.enqueue(1)`, and return what it prints."""
        print(repr(code), file=self.process.stdin, flush=True)
        printed = "".join(iter(self.process.stdout.readline, "done\n"))
        assert "Traceback" not in printed, printed
        return printed

    def worker(self, *options, **environment):
        return running(
            *WORKER,
            *options,
            folder=self.folder,
            environment={**self.environment, **environment},
        )

    def statuses(self):
        """Return how many tasks of django-tasks-db have each status."""
        query = "SELECT status, count(*) FROM django_tasks_database_dbtaskresult GROUP BY 1"
        with self.engine.connect() as connection:
            return dict(connection.execute(text(query)).all())

    def executions(self, name, **criteria):
        return self.store.query(task_identifier=f"shop.tasks.{name}", **criteria)

    def empty(self):
        with self.engine.begin() as connection:
            connection.execute(text("TRUNCATE job_history, django_tasks_database_dbtaskresult"))


@pytest.fixture(scope="module")
def migrated_project(tmp_path_factory, new_postgres_database):
    folder = write_package(tmp_path_factory.mktemp("project"))
    (folder / "shell.py").write_text(SHELL)
    (folder / "shop" / "stores.py").write_text(RECORDER)
    with new_postgres_database() as url:
        database = {
            "NAME": url.database,
            "USER": url.username,
            "PASSWORD": url.password or "",
            "HOST": url.host or url.query.get("host", ""),
            "PORT": url.port or url.query.get("port", ""),
        }
        constants = f"APPS = {APPS!r}\nDATABASE = {database!r}\n"
        (folder / "worker_settings.py").write_text(constants + SETTINGS)
        project = Project(folder, url)
        with project.shell():
            project.run("call_command('migrate', verbosity=0)")
            assert "up to date" in project.run("call_command('upgrade_history')")
            yield project
        project.engine.dispose()


@pytest.fixture
def project(migrated_project):
    yield migrated_project
    migrated_project.empty()


JOBS = """
for number in range(150):
    add.enqueue(number, b=1)
for number in range(40):
    fail.enqueue(f"no order {number}")
for each in (leave, unprintable, cancel, wait, attempt):
    each.enqueue()
order.enqueue(7)
for number in range(4):
    order_linked.enqueue(number)
original = new_execution_id()
replay = Replay(
    task_identifier="shop.tasks.add", args=[1], kwargs={"b": 41}, correlation_id="request-1",
    queue="default", carried=Carried(correlation_id="request-1", replay_of=original),
)
print(enqueue(apps, replay), original)
"""


def test_a_worker_records_each_of_200_tasks_once(project):
    replayed, original = project.run(JOBS).split()
    with project.worker("--batch") as worker:
        assert worker.process.wait(60) == 0, worker.printed

    store = project.store
    records = store.query(limit=1_000)
    assert len(records) == 206
    assert Counter(str(each.status) for each in records) == {
        "completed": 163,
        "failed": 42,
        "cancelled": 1,
    }
    assert project.statuses() == {"SUCCESSFUL": 163, "FAILED": 43}
    assert len({each.job_id for each in records}) == 206
    assert {each.attempt_number for each in records} == {1}
    assert all(each.error_stack for each in records if each.status == "failed")
    assert all(each.queue_time_ms > 0 for each in records)
    assert {each.worker_id for each in records} == {
        f"{each.labels['host']}:{each.labels['pid']}" for each in records
    }
    assert {each.labels["queue"] for each in records} == {"default"}
    assert {each.error_type for each in records} - {None} == {
        "LookupError",
        "SystemExit",
        "shop.tasks.Unprintable",
    }
    assert "not recorded" not in worker.printed

    for parent in project.executions("order_linked"):
        (child,) = store.query(parent_id=parent.id)
        assert child.correlation_id == parent.job_id
        assert child.payload == {"args": parent.payload["args"], "kwargs": {}}
    (replay,) = store.get_by_job_id(replayed)
    assert (replay.correlation_id, replay.labels["replay_of"]) == ("request-1", original)
    assert (replay.result, replay.payload) == (42, {"args": [1], "kwargs": {"b": 41}})


def test_a_restarted_worker_ends_what_a_killed_one_left_and_stopped_ones_lose_nothing(project):
    project.run("sleep.enqueue(60)")
    with project.worker() as killed:
        wait_for(lambda: project.executions("sleep"), "the task that is killed")
        project.run("sleep.enqueue(60)")
        with project.worker() as other:
            wait_for(lambda: len(project.executions("sleep")) == 2, "the other worker's task")
            killed.end(signal.SIGKILL)
            with project.worker(HISTORY_STORE="shop.stores.recorder") as restarted:
                (lost,) = wait_for(
                    lambda: project.executions("sleep", status="failed"), "the lost execution"
                )
                (running_elsewhere,) = project.executions("sleep", status="started")
                stop_twice(other)
                (left,) = project.executions("sleep", worker_id=running_elsewhere.worker_id)
                stop_with_a_recorder(project, restarted)

    assert lost.error_type == "jobhistory.WorkerLost"
    assert lost.worker_id.endswith(f":{killed.process.pid}")
    assert running_elsewhere.worker_id.endswith(f":{other.process.pid}")
    assert (left.status, left.error_type) == ("failed", "SystemExit")
    assert left.execution_time_ms < 30_000


def stop_twice(worker):
    worker.process.send_signal(signal.SIGTERM)
    wait_for(lambda: "shutting down gracefully" in worker.printed, "the first signal")
    worker.end(signal.SIGTERM)


def stop_with_a_recorder(project, worker):
    """Stop a worker in its second task, before its recorder has written anything."""
    project.run("add.enqueue(1); wait.enqueue(1)")
    in_second = {"FAILED": 1, "SUCCESSFUL": 1, "RUNNING": 2}  # one of these was killed
    wait_for(lambda: project.statuses() == in_second, "the second task")
    assert project.executions("add") == []
    assert worker.end(signal.SIGTERM) == 0, worker.printed
    assert [each.status for each in project.executions("add")] == ["completed"]
    assert [each.status for each in project.executions("wait")] == ["completed"]


def test_the_example_sends_parcels_and_shows_their_history(tmp_path):
    shutil.copy(Path(__file__).parents[2] / "examples" / "django_app.py", tmp_path)

    commands = [
        "migrate",
        "upgrade_history",
        "order 1 13",
        "db_worker --batch --no-startup-delay",
        "history",
    ]
    # In one process, as starting Django takes long.
    code = "import sys, django_app\n" + "".join(
        f"sys.argv = {['django_app.py', *command.split()]}\ndjango_app.main()\n"
        for command in commands
    )
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout

    assert printed.endswith(
        "take_order [1]: completed\n"
        "take_order [13]: completed\n"
        "send_parcel [1]: completed  because of another task\n"
        "send_parcel [13]: no address for order 13  because of another task\n"
    )
