"""Workers of Celery in processes of their own, on real brokers, with history in PostgreSQL."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec

import pytest

from jobhistory import create_store
from tests.contrib.workers import running, wait_for, write_app

pytest.importorskip("celery")

from celery import Celery
from kombu import Connection
from kombu.exceptions import VersionMismatch

from jobhistory.contrib.celery import record_tasks

pytestmark = [
    pytest.mark.adapters,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:celery"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:kombu"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:amqp"),
]

TASKS = """
import os
import signal
import sys
import time
from pathlib import Path

from celery import Celery
from kombu import Connection
from kombu.exceptions import VersionMismatch
from celery.exceptions import Ignore, Reject
from sqlalchemy import create_engine

from jobhistory import Recorder, create_store
from jobhistory.contrib.celery import record_tasks

app = Celery("jobs", broker=BROKER)
app.conf.task_default_queue = QUEUE
app.conf.broker_connection_retry_on_startup = True
app.conf.broker_transport_options = {"polling_interval": 0.05}
app.conf.worker_cancel_long_running_tasks_on_connection_loss = False


@app.task(name="succeed")
def succeed(number):
    return number


@app.task(name="fail")
def fail(number):
    raise ValueError(f"there is no {number}")


@app.task(name="retry", bind=True, max_retries=1)
def retry(self, number):
    if self.request.retries == 0:
        try:
            raise LookupError(number)
        except LookupError as error:
            raise self.retry(exc=error, countdown=0)


@app.task(name="send")
def send(number):
    succeed.delay(number)


@app.task(name="leave", acks_late=True)
def leave(how):
    raise Ignore() if how == "ignore" else Reject("no room", requeue=False)


@app.task(name="exit")
def leave_process():
    sys.exit(3)


@app.task(name="kill")
def kill():
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="kill-once", acks_late=True, reject_on_worker_lost=True)
def kill_once(path):
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="sleep")
def sleep(seconds):
    time.sleep(seconds)


@app.task(name="sleep-softly", soft_time_limit=1)
def sleep_softly():
    time.sleep(30)


@app.task(name="sleep-late", acks_late=True)
def sleep_late(path):
    if not Path(path).exists():
        Path(path).touch()
        time.sleep(60)
"""

DIRECT = "record_tasks(app, create_store(URL))"
WITH_AN_ENGINE_USED_BEFORE_THE_FORK = """
engine = create_engine(URL)
store = create_store(engine)
store.count()
record_tasks(app, store)
"""
THROUGH_A_RECORDER = "record_tasks(app, lambda: Recorder(create_store(URL)))"
WITH_A_SHORT_PAUSE = """
from jobhistory.database.circuit_breaker import CircuitBreaker

CircuitBreaker.__init__.__defaults__ = (1, time.monotonic)
record_tasks(app, create_store(URL))
"""


@pytest.fixture
def history(postgres_database):
    return create_store(postgres_database.engine)


@pytest.fixture
def start(tmp_path, postgres_database, unique):
    """Start a worker, and return it and an app that sends tasks to it."""
    direct = url_for_workers(postgres_database)
    with ExitStack() as stack:

        def start(broker, set_up, *options, through=None):
            url = through or direct
            pool = options[options.index("-P") + 1] if "-P" in options else "prefork"
            queue = f"{unique}_{pool}"
            folder = tmp_path / pool
            folder.mkdir(exist_ok=True)
            write_app(folder, TASKS + set_up, BROKER=broker, QUEUE=queue, URL=url)
            command = ["celery", "-A", "jobs_app", "worker", "-l", "INFO", "-n", f"{queue}@%h"]
            command += ["--without-mingle", "--without-gossip", *options]
            worker = stack.enter_context(running(*command, folder=folder))
            app = Celery("jobs", broker=broker, set_as_current=False)
            app.conf.task_default_queue = queue
            stack.callback(delete_queue, app, queue)
            stack.callback(record_tasks(app, create_store()).close)
            wait_for(lambda: " ready." in worker.printed, "the worker is ready")
            return worker, app

        yield start


def delete_queue(app, name):
    with app.connection_for_write() as connection, suppress(Exception):
        connection.default_channel.queue_delete(name)
    app.close()


def url_for_workers(database, **changes):
    return database.url.set(**changes).render_as_string(hide_password=False)


@pytest.fixture
def other_broker(redis_url, rabbitmq_url):
    """The URL of Redis, unless its client is too old for Celery, as arq may require it to be."""
    try:
        with Connection(redis_url) as connection:
            connection.connect()
    except VersionMismatch:
        return rabbitmq_url
    return redis_url


def send(app, name, *args, **options):
    return app.send_task(name, args, **options).id


def rows(history, job_id):
    """Return the attempts at a job, oldest first."""
    return sorted(history.get_by_job_id(job_id), key=lambda record: record.started_at)


def outcome(record):
    return record.status.value, record.error_type, record.will_retry


def all_ended(history, count):
    return wait_for(
        lambda: history.count().value == count and not history.running(), f"{count} ended attempts"
    )


@pytest.fixture
def node(unique):
    """Return the node name of the worker with a pool."""
    return lambda pool="prefork": f"{unique}_{pool}@{socket.gethostname()}"


def test_each_attempt_of_200_jobs_has_one_row_and_each_end_its_outcome(
    history, start, rabbitmq_url, tmp_path, node
):
    worker, app = start(rabbitmq_url, WITH_AN_ENGINE_USED_BEFORE_THE_FORK, "-c", "3")
    for number in range(100):
        send(app, "succeed", number)
    for number in range(40):
        send(app, "fail", number)
        send(app, "retry", number)
    for number in range(20):
        send(app, "send", number)
    all_ended(history, 100 + 40 + 80 + 40)

    counts = Counter(
        (record.task_identifier, record.attempt_number, record.status.value, record.will_retry)
        for record in history.query(limit=1000)
    )
    assert counts == {
        ("succeed", 1, "completed", None): 120,
        ("fail", 1, "failed", False): 40,
        ("retry", 1, "failed", True): 40,
        ("retry", 2, "completed", None): 40,
        ("send", 1, "completed", None): 20,
    }
    failures = history.query(status="failed", limit=1000)
    assert all("jobs_app.py" in record.error_stack for record in failures)
    assert {record.error_type for record in failures} == {"ValueError", "LookupError"}
    senders = {record.id: record for record in history.query(task_identifier="send", limit=1000)}
    sent = [record for record in history.query(limit=1000) if record.parent_id is not None]
    assert {record.parent_id for record in sent} == senders.keys()
    assert all(record.correlation_id == senders[record.parent_id].correlation_id for record in sent)
    check_ends(history, app, tmp_path)
    assert {record.worker_id for record in history.query(limit=1000)} == {node()}
    assert worker.end() == 0
    assert "not recorded" not in worker.printed


def check_ends(history, app, folder):
    """Check how executions end that do not return or raise in the ordinary way."""
    before = history.count().value
    jobs = {
        "killed": send(app, "kill"),
        "killed once": send(app, "kill-once", str(folder / "killed")),
        "exited": send(app, "exit"),
        "too long": send(app, "sleep", 30, time_limit=1),
        "softly too long": send(app, "sleep-softly"),
        "ignored": send(app, "leave", "ignore"),
        "rejected": send(app, "leave", "reject"),
        "expired": send(app, "succeed", 1, expires=-1),
        "revoked": send(app, "sleep", 60),
        "revoked by kill": send(app, "sleep", 60),
    }
    for job, number in (("revoked", "SIGTERM"), ("revoked by kill", "SIGKILL")):
        wait_for(lambda job=job: rows(history, jobs[job]), f"the start of what is {job}")
        app.control.revoke(jobs[job], terminate=True, signal=number)
    all_ended(history, before + 10)

    ends = {job: [outcome(record) for record in rows(history, id_)] for job, id_ in jobs.items()}
    assert ends == {
        "killed": [("failed", "jobhistory.WorkerLost", None)],
        "killed once": [
            ("failed", "jobhistory.WorkerLost", True),
            ("completed", None, None),
        ],
        "exited": [("failed", "SystemExit", None)],
        "too long": [("failed", "jobhistory.TimedOut", None)],
        "softly too long": [("failed", "jobhistory.TimedOut", False)],
        "ignored": [("completed", None, None)],
        "rejected": [("cancelled", None, None)],
        "expired": [],
        "revoked": [("cancelled", None, None)],
        "revoked by kill": [("cancelled", None, None)],
    }
    (exited,) = rows(history, jobs["exited"])
    assert "sys.exit(3)" in exited.error_stack


def test_a_worker_that_is_killed_and_starts_again_ends_only_its_own_executions(
    history, start, rabbitmq_url, tmp_path, node
):
    twin = history.begin({"id": "1", "task_identifier": "sleep-late"}, "prefork@elsewhere")
    worker, app = start(rabbitmq_url, DIRECT, "-c", "1")
    job_id = send(app, "sleep-late", str(tmp_path / "begun"))
    wait_for(lambda: rows(history, job_id), "the start")
    worker.end(signal.SIGKILL)

    start(rabbitmq_url, DIRECT, "-c", "1")
    wait_for(
        lambda: (
            [record.status.value for record in rows(history, job_id)] == ["failed", "completed"]
        ),
        "both rows",
    )

    first, second = rows(history, job_id)
    assert outcome(first) == ("failed", "jobhistory.WorkerLost", None)
    assert (first.attempt_number, second.attempt_number) == (1, 1)
    assert first.worker_id == second.worker_id == node()
    assert [record.worker_id for record in history.running()] == ["prefork@elsewhere"]
    twin.end()


def pools():
    return ["threads", "solo"] + (["gevent"] if find_spec("gevent") else [])


def test_each_pool_records_what_prefork_does(history, start, other_broker, node):
    for pool in pools():
        _, app = start(other_broker, DIRECT, "-P", pool, "-c", "3")
        for number in range(3):
            send(app, "succeed", number)
            send(app, "fail", number)
            send(app, "retry", number)
            send(app, "send", number)
        send(app, "leave", "reject")
    all_ended(history, len(pools()) * 19)

    for pool in pools():
        records = history.query(worker_id=node(pool), limit=100)
        assert Counter(
            (record.task_identifier, record.attempt_number, record.status.value)
            for record in records
        ) == {
            ("succeed", 1, "completed"): 6,
            ("fail", 1, "failed"): 3,
            ("retry", 1, "failed"): 3,
            ("retry", 2, "completed"): 3,
            ("send", 1, "completed"): 3,
            ("leave", 1, "cancelled"): 1,
        }
        assert sum(record.parent_id is not None for record in records) == 3


def test_a_recorder_loses_nothing_when_a_worker_stops_and_the_start_of_a_killed_task(
    history, start, other_broker
):
    worker, app = start(other_broker, THROUGH_A_RECORDER, "-c", "2", "--max-tasks-per-child", "30")
    killed = send(app, "kill")
    wait_for(lambda: rows(history, killed), "the row of the killed task")
    for number in range(25):
        send(app, "succeed", number)
        send(app, "retry", number)
    exited = send(app, "exit")
    all_ended(history, 77)
    running_ = send(app, "sleep", 1)
    wait_for(lambda: rows(history, running_), "the start of the last one")
    assert worker.end() == 0

    counts = Counter(record.status.value for record in history.query(limit=1000))
    assert counts == {"completed": 51, "failed": 27}
    assert [outcome(record) for record in rows(history, killed)] == [
        ("failed", "jobhistory.WorkerLost", None)
    ]
    assert [outcome(record) for record in rows(history, exited)] == [("failed", "SystemExit", None)]


class Gateway:
    """A way to a server that can refuse connections, or accept them and pass nothing on."""

    def __init__(self, url):
        self.folder = url.query.get("host")  # of the socket of a server that listens on no port
        self.target = url.host, url.port or 5432
        self.mode = "pass"
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.connections = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            if self.mode == "refuse":
                client.close()
                continue
            self.connections.append(client)
            server = self.connected()
            self.connections.append(server)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self.copy, args=(source, target), daemon=True).start()

    def connected(self):
        if self.folder is None:
            return socket.create_connection(self.target)
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{self.folder}/.s.PGSQL.{self.target[1]}")
        return server

    def copy(self, source, target):
        with suppress(OSError):
            while data := source.recv(65536):
                while self.mode == "silent":
                    time.sleep(0.05)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def set(self, mode):
        self.mode = mode
        if mode == "refuse":
            self.drop()

    def drop(self):
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.connections.clear()

    def close(self):
        self.mode = "refuse"
        self.socket.close()
        self.drop()


@contextmanager
def gateway(url):
    way = Gateway(url)
    try:
        yield way
    finally:
        way.close()


def test_jobs_run_while_the_database_is_away_and_history_resumes(
    history, start, other_broker, postgres_database, tmp_path
):
    with gateway(postgres_database.url) as way:
        through = url_for_workers(postgres_database, host="127.0.0.1", port=way.port, query={})
        worker, app = start(other_broker, WITH_A_SHORT_PAUSE, "-c", "1", through=through)
        first = send(app, "succeed", 0)
        wait_for(lambda: rows(history, first), "the first row")
        for mode in ("refuse", "silent"):
            way.set(mode)
            begun = time.monotonic()
            ids = [send(app, "succeed", number) for number in range(5)]
            wait_for(lambda ids=ids: succeeded(worker, ids), f"tasks run with mode {mode}")
            assert time.monotonic() - begun < 9
        way.set("pass")
        time.sleep(1)
        last = send(app, "succeed", 9)
        wait_for(lambda: [outcome(each) for each in rows(history, last)], "history again")
        assert worker.end() == 0

    assert "not recorded" in worker.printed
    assert "Signal handler" not in worker.printed


def succeeded(worker, ids):
    printed = worker.printed
    return all(f"[{id_}] succeeded" in printed for id_ in ids)
