"""Procrastinate with PostgreSQL and real workers."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest
from procrastinate import App, PsycopgConnector, SyncPsycopgConnector
from sqlalchemy import create_engine, text

from jobhistory import create_store, migrate
from jobhistory.contrib.procrastinate import record_jobs
from jobhistory.contrib.replay import replay, replay_async
from tests.contrib.workers import running, wait_for, write_app

pytestmark = pytest.mark.adapters

SOURCE = """
import asyncio, os, time
from procrastinate import App, PsycopgConnector
from jobhistory import AsyncRecorder, create_async_store, create_store
from jobhistory.contrib.procrastinate import link, record_jobs

def recorder():
    return AsyncRecorder(create_async_store(HISTORY_URL), max_delay=60)

def async_store():
    return create_async_store(HISTORY_URL)

store = globals()[os.environ["HISTORY_STORE"]]
app = App(
    connector=PsycopgConnector(conninfo=CONNINFO),
    worker_defaults={
        "worker_middleware": [record_jobs(store)],
        "update_heartbeat_interval": 0.3,
    },
)

@app.task(name="add")
async def add(a, b=1):
    return a + b

@app.task(name="add_sync")
def add_sync(a, b=1):
    time.sleep(0.001)

@app.task(name="fail")
async def fail(text):
    raise LookupError(text)

@app.task(name="flaky", retry=1, pass_context=True)
def flaky(context, number):
    if context.job.attempts == 0:
        raise ConnectionError("not yet")

@app.task(name="order")
async def order(number):
    await ship.defer_async(number=number, **link())

@app.task(name="ship")
def ship(number):
    pass

@app.task(name="sleep", aliases=["nap"])
async def sleep(seconds):
    await asyncio.sleep(seconds)
"""


class Project:
    """A queue and a history in one database, and workers for them."""

    def __init__(self, folder, url):
        self.folder = folder
        conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        history_url = url.render_as_string(hide_password=False)
        write_app(folder, SOURCE, CONNINFO=conninfo, HISTORY_URL=history_url)
        self.engine = create_engine(url)
        self.store = create_store(self.engine)
        self.conninfo = conninfo
        self.app = self.app_with(SyncPsycopgConnector)

    def app_with(self, connector):
        app = App(connector=connector(conninfo=self.conninfo))
        for name in ("add", "add_sync", "fail", "flaky", "order", "ship", "sleep"):
            app.task(name=name)(lambda **_: None)
        return app

    def defer(self, name, *jobs):
        with self.app.open():
            return self.app.configure_task(name).batch_defer(*jobs)

    def worker(self, *options, store="async_store"):
        return running(
            "procrastinate",
            "--app=jobs_app.app",
            "worker",
            "--fetch-job-polling-interval=0.1",
            *options,
            folder=self.folder,
            environment={"HISTORY_STORE": store},
        )

    def statuses(self):
        query = "SELECT status::text, count(*) FROM procrastinate_jobs GROUP BY 1"
        with self.engine.connect() as connection:
            return dict(connection.execute(text(query)).all())

    def executions(self, name, **criteria):
        return self.store.query(task_identifier=name, order="oldest", **criteria)

    def empty(self):
        with self.engine.begin() as connection:
            connection.execute(text("TRUNCATE job_history, procrastinate_jobs CASCADE"))


@pytest.fixture(scope="module")
def prepared_project(tmp_path_factory, new_postgres_database):
    with new_postgres_database() as url:
        project = Project(tmp_path_factory.mktemp("project"), url)
        migrate.upgrade(project.engine)
        with project.app.open():
            project.app.schema_manager.apply_schema()
        yield project
        project.engine.dispose()


@pytest.fixture
def project(prepared_project):
    yield prepared_project
    prepared_project.empty()


def test_a_worker_records_each_attempt_at_200_jobs_once(project):
    project.defer("add", *({"a": number} for number in range(100)))
    project.defer("add_sync", *({"a": number} for number in range(30)))
    project.defer("fail", *({"text": f"no order {number}"} for number in range(30)))
    project.defer("flaky", *({"number": number} for number in range(30)))
    project.defer("order", *({"number": number} for number in range(5)))
    with project.worker("--concurrency=10", "--one-shot") as worker:
        assert worker.process.wait(60) == 0, worker.printed

    store = project.store
    records = store.query(limit=1_000)
    assert Counter(str(each.status) for each in records) == {"completed": 170, "failed": 60}
    assert project.statuses() == {"succeeded": 170, "failed": 30}
    assert len({(each.job_id, each.attempt_number) for each in records}) == 230
    assert all(each.error_stack for each in records if each.status == "failed")
    assert {each.will_retry for each in project.executions("fail")} == {False}
    second = project.executions("flaky", min_attempt=2)
    first = [each for each in project.executions("flaky") if each.attempt_number == 1]
    assert ({each.will_retry for each in first}, len(second)) == ({True}, 30)
    assert all(each.queue_time_ms >= 0 for each in second)
    assert "not recorded" not in worker.printed
    for parent in project.executions("order"):
        (child,) = store.query(parent_id=parent.id)
        assert (child.task_identifier, child.correlation_id) == ("ship", parent.job_id)
        assert child.payload == {
            "args": [],
            "kwargs": {"number": parent.payload["kwargs"]["number"]},
        }


def test_a_restarted_worker_ends_what_a_killed_one_left_and_stopped_ones_lose_nothing(project):
    impatient = "--shutdown-graceful-timeout=0.1"
    (id_,) = project.defer("sleep", {"seconds": 60})
    with project.worker() as killed:
        wait_for(lambda: project.executions("sleep"), "the job that is killed")
        with project.worker(impatient) as other:
            project.defer("sleep", {"seconds": 60})
            wait_for(lambda: len(project.executions("sleep")) == 2, "the other worker's job")
            killed.end(signal.SIGKILL)
            wait_for(lambda: retry_stalled(project, id_), "the stalled job")
            with project.worker(impatient) as restarted:
                (lost,) = wait_for(
                    lambda: project.executions("sleep", status="failed"), "the lost execution"
                )
                wait_for(lambda: len(project.executions("sleep")) == 3, "the second attempt")
                left, twin, again = project.executions("sleep")
                restarted.end(signal.SIGTERM)
            stop_with_a_recorder(project)
            other.end(signal.SIGTERM)

    assert left.id == lost.id
    assert left.error_type == "jobhistory.WorkerLost"
    assert left.worker_id.endswith(f":{killed.process.pid}")
    assert (again.job_id, again.attempt_number) == (left.job_id, 2)
    assert again.worker_id.endswith(f":{restarted.process.pid}")
    assert twin.worker_id.endswith(f":{other.process.pid}")
    assert (twin.status, again.status) == ("started", "started")
    stopped = [each.status for each in project.executions("sleep") if each.id != left.id]
    assert stopped == ["cancelled", "cancelled"]
    assert project.statuses() == {"aborted": 2, "succeeded": 2}


def stop_with_a_recorder(project):
    """Stop a worker in its second job, before its recorder has written anything."""
    project.defer("add", {"a": 1})
    project.defer("nap", {"seconds": 1})
    with project.worker(store="recorder") as worker:
        in_second = {"aborted": 1, "succeeded": 1, "doing": 2}  # one is the other worker's
        wait_for(lambda: project.statuses() == in_second, "the second job")
        assert project.executions("add") == []
        assert worker.end(signal.SIGTERM) == 0, worker.printed
    assert [each.status for each in project.executions("add")] == ["completed"]
    assert [each.status for each in project.executions("nap")] == ["completed"]


def retry_stalled(project, id_):
    """Do what Procrastinate's guide lets a periodic task do."""

    async def retry():
        app = project.app_with(PsycopgConnector)
        async with app.open_async():
            jobs = await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=1)
            stalled = [job for job in jobs if job.id == id_]
            for job in stalled:
                await app.job_manager.retry_job(job)
            return stalled

    return asyncio.run(retry())


@pytest.mark.parametrize("connector", [SyncPsycopgConnector, PsycopgConnector])
@pytest.mark.parametrize("is_open", [True, False])
def test_a_job_is_replayed_with_an_app_that_is_open_or_not(project, connector, is_open):
    project.defer("add", {"a": 7})
    asyncio.run(work(project))
    (original,) = project.executions("add")
    app = project.app_with(connector)

    if is_open and connector is SyncPsycopgConnector:
        with app.open():
            replayed = replay(project.store, app, original.id)
    elif is_open:
        replayed = asyncio.run(replay_in_loop(project, app, original))
    else:
        replayed = replay(project.store, app, original.id)
    asyncio.run(work(project))

    _, again = project.executions("add")
    assert (again.job_id, again.correlation_id) == (replayed.job_id, original.correlation_id)
    assert (again.payload, again.status) == ({"args": [], "kwargs": {"a": 7}}, "completed")
    assert again.labels["replay_of"] == str(original.id)


async def work(project):
    """Run a worker in this process until the queue is empty."""
    app = project.app_with(PsycopgConnector)
    async with app.open_async():
        await app.run_worker_async(wait=False, worker_middleware=[record_jobs(project.store)])


async def replay_in_loop(project, app, record):
    async with app.open_async():
        return await replay_async(project.store, app, record.id)
