"""The adapter for Dramatiq in real workers, with RabbitMQ and Redis."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from jobhistory import create_store

from .workers import running, wait_for, write_app

dramatiq = pytest.importorskip("dramatiq")

from jobhistory.contrib.dramatiq import JobHistory  # noqa: E402

pytestmark = pytest.mark.adapters

EXAMPLES = Path(__file__).parents[2] / "examples"

APP = """
import os, signal, time
from pathlib import Path
import dramatiq
from jobhistory import Recorder, create_store
from jobhistory.contrib.dramatiq import JobHistory

if BROKER.startswith("amqp"):
    from dramatiq.brokers.rabbitmq import RabbitmqBroker as Broker
else:
    from dramatiq.brokers.redis import RedisBroker as Broker
broker = Broker(url=BROKER)
store = (lambda: Recorder(create_store(URL))) if RECORDS else create_store(URL)
broker.add_middleware(JobHistory(store))
dramatiq.set_broker(broker)
options = dict(queue_name=QUEUE, min_backoff=1, max_backoff=1, max_retries=2)

@dramatiq.actor(**options)
def succeed(): ...

@dramatiq.actor(**options)
def fail(number):
    raise ValueError(f"number {number}")

@dramatiq.actor(**options)
def flaky(number):
    if first(f"flaky-{number}"):
        raise LookupError

@dramatiq.actor(**options)
def kill():
    if first("kill"):
        wait_for("neighbour")
        os.kill(os.getpid(), signal.SIGKILL)

@dramatiq.actor(**options)
def neighbour():
    if first("neighbour"):
        time.sleep(60)

@dramatiq.actor(**options)
def slow(seconds):
    first("slow")
    time.sleep(seconds)

@dramatiq.actor(queue_name=QUEUE, time_limit=300, max_retries=0)
def too_long():
    time.sleep(30)

def first(name):
    file = Path(name)
    with file.open("a") as marks:
        marks.write("x")
    return file.stat().st_size == 1

def wait_for(name):
    while not Path(name).exists():
        time.sleep(0.01)
"""


@contextmanager
def sending(url, queue):
    """Yield a function that sends messages, as a web process does."""
    if url.startswith("amqp"):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker as Broker
    else:
        from dramatiq.brokers.redis import RedisBroker as Broker
    broker = Broker(url=url)
    with create_store() as nowhere:
        broker.add_middleware(JobHistory(nowhere))
        broker.declare_queue(queue)

        def send(actor, *args):
            message = dramatiq.Message(queue, actor, args, {}, {})
            return broker.enqueue(message).message_id

        try:
            yield send
        finally:
            broker_channel = getattr(broker, "channel", None)
            for name in (queue, f"{queue}.DQ", f"{queue}.XQ"):
                if broker_channel is not None:
                    broker_channel.queue_delete(name)
            broker.close()


@pytest.fixture
def postgres_store(postgres_database):
    with create_store(postgres_database.engine) as store:
        yield store


def url_of(store_database):
    return store_database.url.render_as_string(hide_password=False)


def ended(store, count):
    """Return whether history has a number of rows, none of which is still started."""
    return store.count().value >= count and not store.query(status="started")


def test_processes_on_rabbitmq_record_every_attempt_at_200_jobs(
    rabbitmq_url, unique, postgres_database, postgres_store, tmp_path
):
    url = rabbitmq_url.removesuffix("//")  # for Pika, that is a virtual host without a name
    write_app(tmp_path, APP, BROKER=url, URL=url_of(postgres_database), QUEUE=unique, RECORDS=False)
    command = ("dramatiq", "jobs_app", "--processes", "2", "--threads", "4")
    with sending(url, unique) as send:
        sent = [send(*job) for job in jobs()]
        with running(*command, folder=tmp_path) as worker:
            wait_for(lambda: ended(postgres_store, 300), "300 rows")
            worker.end(signal.SIGKILL)  # faster than SIGTERM

    check_attempts(postgres_store, sent)


def test_the_messages_of_a_killed_process_are_lost_once_and_run_again(
    rabbitmq_url, unique, postgres_database, postgres_store, tmp_path
):
    store = postgres_store
    url = rabbitmq_url.removesuffix("//")
    write_app(tmp_path, APP, BROKER=url, URL=url_of(postgres_database), QUEUE=unique, RECORDS=False)
    command = ("dramatiq", "jobs_app", "--processes", "1", "--threads", "2")
    with sending(url, unique) as send:
        sent = [send("kill"), send("neighbour")]
        with running(*command, folder=tmp_path) as worker:
            assert worker.process.wait(30) != 0
        assert [r.status for r in store.query()] == ["started", "started"]

        with running(*command, folder=tmp_path) as worker:
            wait_for(lambda: ended(store, 4), "the second attempts")
            worker.end(signal.SIGKILL)

    for job_id in sent:
        rows = [(r.status, r.error_type, r.attempt_number) for r in store.get_by_job_id(job_id)]
        assert rows == [("completed", None, 1), ("failed", "jobhistory.WorkerLost", 1)]


def jobs():
    """200 jobs: 140 that succeed, 40 that fail three times, 20 that fail once."""
    for number in range(20):
        yield from [("succeed",)] * 7 + [("fail", number)] * 2 + [("flaky", number)]


def check_attempts(store, sent):
    records = list(store.iterate())
    assert {r.job_id for r in records} == set(sent)
    assert Counter(
        (r.task_identifier, r.attempt_number, r.status, r.will_retry) for r in records
    ) == {
        ("succeed", 1, "completed", None): 140,
        ("fail", 1, "failed", True): 40,
        ("fail", 2, "failed", True): 40,
        ("fail", 3, "failed", False): 40,
        ("flaky", 1, "failed", True): 20,
        ("flaky", 2, "completed", None): 20,
    }
    assert all("in fail\n" in r.error_stack for r in records if r.task_identifier == "fail")


def test_spawned_processes_on_redis_stop_warmly_and_lose_nothing_with_a_recorder(
    redis_url, unique, postgres_database, postgres_store, tmp_path
):
    store = postgres_store
    values = {"BROKER": redis_url, "URL": url_of(postgres_database), "QUEUE": unique}
    write_app(tmp_path, APP, **values, RECORDS=True)
    command = ("dramatiq", "jobs_app", "--processes", "1", "--threads", "4", "--use-spawn")
    with sending(redis_url, unique) as send:
        sent = [send("succeed") for _ in range(50)]
        send("fail", 1)
        with running(*command, folder=tmp_path) as worker:
            wait_for(lambda: ended(store, 53), f"53 rows: {worker.printed}")
            sent.append(send("slow", 1.5))
            wait_for((tmp_path / "slow").exists, "the slow job")
            assert worker.end() == 0

    records = list(store.iterate())
    assert len(records) == 54
    assert {r.job_id for r in records if r.status == "completed"} == set(sent)
    assert store.query(task_identifier="slow")[0].execution_time_ms >= 1500


@pytest.mark.skipif(find_spec("gevent") is None, reason="gevent is not installed")
def test_greenlets_are_recorded_as_threads_are(
    redis_url, unique, postgres_database, postgres_store, tmp_path
):
    store = postgres_store
    values = {"BROKER": redis_url, "URL": url_of(postgres_database), "QUEUE": unique}
    write_app(tmp_path, APP, **values, RECORDS=False)
    # What the command `dramatiq-gevent` does.
    (tmp_path / "dramatiq_gevent.py").write_text(
        "from gevent import monkey; monkey.patch_all()\n"
        "from dramatiq.cli import main; raise SystemExit(main())\n"
    )
    command = ("dramatiq_gevent", "jobs_app", "--processes", "1", "--threads", "20")
    with sending(redis_url, unique) as send:
        waiting = [send("slow", 1) for _ in range(20)]
        send("fail", 1)
        send("too_long")
        with running(*command, folder=tmp_path) as worker:
            wait_for(lambda: ended(store, 24), f"24 rows: {worker.printed}")
            worker.end(signal.SIGKILL)

    slow = store.query(task_identifier="slow", status="completed")
    assert {r.job_id for r in slow} == set(waiting)
    first_end = min(r.completed_at for r in slow)
    assert sum(r.started_at < first_end for r in slow) > 1  # at once
    assert [r.will_retry for r in store.query(task_identifier="fail", order="oldest")] == [
        True,
        True,
        False,
    ]
    assert store.query(task_identifier="too_long")[0].error_type == "jobhistory.TimedOut"


def test_the_example_sends_jobs_and_shows_their_history(redis_url, tmp_path):
    shutil.copy(EXAMPLES / "dramatiq_app.py", tmp_path)
    environment = {"REDIS_URL": redis_url}
    with (
        running("dramatiq", "dramatiq_app", folder=tmp_path, environment=environment) as worker,
        running("dramatiq_app", folder=tmp_path, environment=environment) as script,
    ):
        assert script.process.wait(40) == 0, script.printed
        worker.end(signal.SIGKILL)

    assert script.printed.splitlines() == [
        "greet, attempt 1: completed",
        "fetch_prices, attempt 1: failed, will be tried again: ConnectionError: no answer",
        "fetch_prices, attempt 2: completed",
        "bill, attempt 1: failed: LookupError: there is no customer 17",
    ]
