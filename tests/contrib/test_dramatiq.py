"""The adapter for Dramatiq, with its `StubBroker`."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from jobhistory import InvalidInput, Recorder, create_store, current_execution
from jobhistory.contrib.adapter import HEADER, Carried, Replay

from ..servers import silent_server
from .workers import wait_for

dramatiq = pytest.importorskip("dramatiq")

from dramatiq.brokers.stub import StubBroker  # noqa: E402
from dramatiq.middleware import (  # noqa: E402
    AgeLimit,
    AsyncIO,
    GroupCallbacks,
    Middleware,
    Retries,
    SkipMessage,
    TimeLimit,
    TimeLimitExceeded,
)

from jobhistory.contrib.dramatiq import JobHistory, enqueue  # noqa: E402
from jobhistory.contrib.replay import replay as replay_execution  # noqa: E402

pytestmark = pytest.mark.adapters

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def store():
    with create_store() as store:
        yield store


def new_broker(*middleware):
    """A broker in memory with Dramatiq's own middleware, then ours; nothing waits for long."""
    broker = StubBroker(
        middleware=[
            AgeLimit(),
            TimeLimit(interval=10),
            Retries(max_retries=2, min_backoff=1, max_backoff=1),
            *middleware,
        ]
    )
    broker.fail_fast_default = False
    return broker


@pytest.fixture
def broker(store):
    return new_broker(JobHistory(store))


@contextmanager
def working(broker, threads=2):
    worker = dramatiq.Worker(broker, worker_timeout=20, worker_threads=threads)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
        broker.close()


def work(broker, *queues):
    """Run a worker until the queues are empty."""
    with working(broker) as worker:
        for queue in queues or ("default",):
            broker.join(queue, timeout=20_000)
        worker.join()


def history(store):
    """Return the records, in the order of their starts."""
    return store.query(order="oldest")


def only(store):
    (record,) = store.query()
    return record


# One row per attempt


def test_each_attempt_is_a_row_with_its_number_and_the_error(broker, store):
    @dramatiq.actor(broker=broker, queue_name="mail")
    def send(to, *, subject):
        if current_execution().id != history(store)[-1].id:
            raise AssertionError("this is not the current execution")
        if len(history(store)) < 3:
            raise LookupError(f"no address of {to}")

    message = send.send("ann", subject="hello")
    work(broker, "mail")

    first, second, third = history(store)
    for number, record in enumerate((first, second, third), start=1):
        assert record.job_id == record.correlation_id == message.message_id
        assert (record.task_identifier, record.attempt_number) == ("send", number)
        assert record.payload == {"args": ["ann"], "kwargs": {"subject": "hello"}}
        assert record.payload_is_exact
        assert record.labels["queue"] == "mail"
        assert record.labels["pid"] == str(os.getpid())
        assert record.worker_id == f"{socket.gethostname()}:{os.getpid()}"
        assert record.parent_id is None
        assert 0 <= record.queue_time_ms < 10_000
    for record in (first, second):
        assert (record.status, record.will_retry) == ("failed", True)
        assert (record.error_type, record.error_message) == ("LookupError", "no address of ann")
        assert "in send\n" in record.error_stack
    assert (third.status, third.will_retry) == ("completed", None)
    assert current_execution() is None


def test_the_last_attempt_will_not_be_retried(broker, store):
    @dramatiq.actor(broker=broker, max_retries=1)
    def fail():
        raise ValueError

    fail.send()
    fail.send_with_options(max_retries=0)
    work(broker)

    found = [(r.attempt_number, r.will_retry) for r in store.query()]
    assert sorted(found) == [(1, False), (1, True), (2, False)]


def test_whether_a_message_will_be_retried_is_what_dramatiq_decides(broker, store):
    asked = []

    def once(retries, error):
        asked.append(retries)
        return retries < 1

    @dramatiq.actor(broker=broker, throws=ValueError)
    def throws():
        raise ValueError

    @dramatiq.actor(broker=broker, retry_when=once)
    def predicate():
        raise ValueError

    @dramatiq.actor(broker=broker)
    def asks():
        if len(store.query(task_identifier="asks")) == 1:
            raise dramatiq.errors.Retry("not yet", delay=1)

    for actor in (throws, predicate, asks):
        actor.send()
    work(broker)

    found = {
        name: [(r.status, r.will_retry) for r in store.query(task_identifier=name, order="oldest")]
        for name in ("throws", "predicate", "asks")
    }
    assert found == {
        "throws": [("failed", False)],
        "predicate": [("failed", True), ("failed", False)],
        "asks": [("failed", True), ("completed", None)],
    }
    assert asked == [0, 1]  # the adapter does not ask the predicate again
    assert history(store)[0].error_stack


def test_without_the_middleware_for_retries_every_failure_is_final(store):
    broker = StubBroker(middleware=[JobHistory(store)])

    @dramatiq.actor(broker=broker)
    def fail():
        raise ValueError

    fail.send()
    work(broker)

    assert (only(store).status, only(store).will_retry) == ("failed", False)


def test_the_queue_time_of_a_delayed_message_begins_when_it_is_due(broker, store):
    @dramatiq.actor(broker=broker, min_backoff=400, max_backoff=400, max_retries=1)
    def fail():
        raise ValueError

    before = time.time()
    fail.send_with_options(delay=timedelta(milliseconds=500))
    work(broker)

    first, second = history(store)
    assert first.started_at.timestamp() - before >= 0.5
    assert (second.started_at - first.started_at).total_seconds() >= 0.2  # jitter halves it
    assert first.queue_time_ms < 300
    assert second.queue_time_ms < 300


def test_the_queue_time_of_a_message_from_elsewhere_begins_with_its_timestamp(broker, store):
    @dramatiq.actor(broker=broker)
    def work_hard(): ...

    message = work_hard.message()
    message = message.copy(options={HEADER: ["forged"], "retries": "many"})
    broker.queues["default"].put(message.encode())
    time.sleep(0.1)
    work(broker)

    assert only(store).attempt_number == 1
    assert 100 <= only(store).queue_time_ms < 10_000


def test_a_worker_does_not_pass_for_the_sender_of_a_message_from_elsewhere(store):
    elsewhere = new_broker()  # without the middleware

    @dramatiq.actor(broker=elsewhere, max_retries=1)
    def fail():
        raise ValueError

    fail.send()
    fail.send_with_options(delay=200)
    time.sleep(0.4)  # it is due long before a worker sees it
    elsewhere.add_middleware(JobHistory(store))
    work(elsewhere)

    records = history(store)
    assert [r.attempt_number for r in records].count(2) == 2
    assert all(r.parent_id is None for r in records)
    assert all(r.queue_time_ms >= 150 for r in records if r.attempt_number == 1)


# How executions end


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_time_limit_is_recorded_as_such(broker, store):
    @dramatiq.actor(broker=broker, time_limit=50, max_retries=0)
    def too_long():
        while True:
            time.sleep(0.01)

    broker.emit_after("process_boot")
    too_long.send()
    work(broker)

    record = only(store)
    assert (record.status, record.error_type) == ("failed", "jobhistory.TimedOut")
    assert "TimeLimitExceeded" in record.error_message
    assert "in too_long\n" in record.error_stack
    assert record.will_retry is False


def test_a_time_limit_that_interrupts_the_recording_of_the_start_ends_that_attempt(
    broker, store, monkeypatch
):
    insert, interrupted = store._history.insert, []

    def insert_slowly(row, **options):
        insert(row, **options)
        if not interrupted:
            interrupted.append(row)
            raise TimeLimitExceeded

    monkeypatch.setattr(store._history, "insert", insert_slowly)
    ran = []

    @dramatiq.actor(broker=broker)
    def succeed():
        ran.append(current_execution().id)

    succeed.send()
    work(broker)

    first, second = history(store)
    assert (first.status, first.will_retry) == ("failed", None)
    assert first.error_type.endswith("TimeLimitExceeded")
    assert (second.status, second.attempt_number) == ("completed", 2)
    assert ran == [second.id]


def test_an_attempt_that_a_shutdown_stops_is_cancelled_and_tried_again(store):
    class Notes(Middleware):
        def after_enqueue(self, broker, message, delay):
            sent.append(message.options.get("retries"))

    sent = []
    started = threading.Event()
    broker = new_broker(dramatiq.middleware.ShutdownNotifications(), Notes(), JobHistory(store))

    @dramatiq.actor(broker=broker, notify_shutdown=True, min_backoff=60_000, max_backoff=60_000)
    def endless():
        started.set()
        while True:
            time.sleep(0.01)

    endless.send()
    with working(broker):
        wait_for(started.is_set, "a start")

    assert (only(store).status, only(store).error_message) == ("cancelled", "Shutdown")
    assert sent == [None, 1]


def test_a_job_that_exits_or_is_cancelled_leaves_one_row(broker, store):
    @dramatiq.actor(broker=broker, max_retries=0)
    def leave():
        sys.exit(3)

    @dramatiq.actor(broker=broker, max_retries=0)
    def cancel():
        raise asyncio.CancelledError

    leave.send()
    cancel.send()
    work(broker)

    found = {r.task_identifier: (r.status, r.error_type) for r in store.query()}
    assert found == {"leave": ("failed", "SystemExit"), "cancel": ("cancelled", None)}


@pytest.mark.parametrize("skipped", ["ignore", "record"])
def test_what_never_begins_is_recorded_only_if_the_user_wants_that(store, skipped):
    class Rejects(Middleware):
        def before_process_message(self, broker, message):
            if message.actor_name == "rejected":
                message.fail()

    broker = new_broker(Rejects(), JobHistory(store, skipped=skipped))
    ran = []

    @dramatiq.actor(broker=broker, max_age=1)
    def expired():
        ran.append(1)

    @dramatiq.actor(broker=broker)
    def rejected():
        ran.append(1)

    expired.send()
    rejected.send()
    time.sleep(0.05)
    work(broker)

    assert ran == []
    expected = {"expired": "cancelled", "rejected": "cancelled"} if skipped == "record" else {}
    assert {r.task_identifier: r.status for r in store.query()} == expected


def test_an_actor_that_skips_its_own_message_is_cancelled(broker, store):
    @dramatiq.actor(broker=broker)
    def skip():
        raise SkipMessage("not today")

    skip.send()
    work(broker)

    assert (only(store).status, only(store).error_message) == (
        "cancelled",
        "the message was skipped",
    )


# Where it is among the middleware


class Notes(Middleware):
    """A middleware of the user, which notes what it is told."""

    def __init__(self):
        self.noted = []

    def before_process_message(self, broker, message):
        self.noted.append("before")

    def after_process_message(self, broker, message, *, result=None, exception=None):
        self.noted.append(("after", type(exception).__name__, current_execution() is not None))


@pytest.mark.parametrize("comes_last", [True, False])
def test_other_middleware_works_before_and_after_it(store, comes_last, caplog):
    notes = Notes()
    ours = [JobHistory(store)]
    broker = new_broker(*([notes] + ours if comes_last else ours + [notes]))

    @dramatiq.actor(broker=broker, max_retries=1)
    def fail():
        raise ValueError

    fail.send()
    work(broker)

    assert notes.noted == ["before", ("after", "ValueError", True)] * 2
    assert [(r.attempt_number, r.will_retry) for r in history(store)] == [(1, True), (2, False)]
    warned = "add JobHistory last: messages that Notes may skip are recorded as begun"
    assert (warned in caplog.text) == (not comes_last)


def test_a_message_that_a_later_middleware_skips_is_not_left_started(store):
    class Skips(Middleware):
        def before_process_message(self, broker, message):
            raise SkipMessage

    broker = new_broker(JobHistory(store), Skips())

    @dramatiq.actor(broker=broker)
    def never(): ...

    never.send()
    work(broker)

    assert only(store).status == "cancelled"


def test_a_middleware_that_fails_leaves_nothing_started(store):
    class Raises(Middleware):
        def before_process_message(self, broker, message):
            raise RuntimeError

        def after_process_message(self, broker, message, *, result=None, exception=None):
            raise RuntimeError

        def before_ack(self, broker, message):
            raise RuntimeError

    broker = new_broker(Raises(), JobHistory(store), Raises())

    @dramatiq.actor(broker=broker)
    def succeed(): ...

    succeed.send()
    work(broker)

    assert only(store).status == "completed"


def test_an_outcome_that_a_middleware_has_hidden_is_recorded_with_the_next_message(store):
    class Hides(Middleware):
        def before_ack(self, broker, message):
            raise SkipMessage  # later middleware is not called then

    broker = new_broker(Hides(), JobHistory(store))

    @dramatiq.actor(broker=broker)
    def succeed(): ...

    with working(broker, threads=1):
        succeed.send()
        succeed.send()
        wait_for(lambda: len(store.query()) == 2, "the second start")
        wait_for(lambda: store.query(status="completed"), "the first outcome")

    assert [r.status for r in history(store)] == ["completed", "started"]


def test_set_up_twice_it_records_once(store):
    broker = new_broker(JobHistory(store), JobHistory(store))

    @dramatiq.actor(broker=broker, max_retries=1)
    def fail():
        raise ValueError

    fail.send()
    work(broker)

    assert [(r.attempt_number, r.will_retry) for r in history(store)] == [(1, True), (2, False)]


def test_two_brokers_in_one_process_are_kept_apart():
    with create_store() as one, create_store() as other:
        brokers = new_broker(JobHistory(one)), new_broker(JobHistory(other))
        for name, broker in zip("ab", brokers, strict=True):

            def actor(): ...

            dramatiq.actor(actor, broker=broker, actor_name=name).send()
        with working(brokers[0]), working(brokers[1]):
            for broker in brokers:
                broker.join("default")

        assert only(one).task_identifier == "a"
        assert only(other).task_identifier == "b"


def test_one_middleware_serves_several_brokers(store):
    middleware = JobHistory(store)
    for name in "ab":
        broker = new_broker(middleware)

        def actor(): ...

        dramatiq.actor(actor, broker=broker, actor_name=name).send()
        work(broker)

    assert {r.task_identifier: r.status for r in store.query()} == {
        "a": "completed",
        "b": "completed",
    }


def test_after_close_nothing_is_recorded(store):
    middleware = JobHistory(store)
    broker = new_broker(middleware)

    @dramatiq.actor(broker=broker)
    def succeed(): ...

    middleware.close()
    message = succeed.send()
    work(broker)

    assert store.query() == []
    assert message.options == {}


def test_tasks_can_be_left_out_and_results_stored(store):
    broker = new_broker(JobHistory(store, skip=["ping"], result=True))

    @dramatiq.actor(broker=broker)
    def ping(): ...

    @dramatiq.actor(broker=broker)
    def add(a, b):
        return a + b

    ping.send()
    add.send(1, 2)
    work(broker)

    assert (only(store).task_identifier, only(store).result) == ("add", 3)


def test_the_functions_among_the_options_get_the_message(store):
    broker = new_broker(
        JobHistory(
            store,
            correlation_id=lambda message: message.options["request"],
            worker_id=lambda message: f"worker of {message.queue_name}",
            payload=lambda message: len(message.args),
        )
    )

    @dramatiq.actor(broker=broker)
    def add(a, b): ...

    add.send_with_options(args=(1, 2), request="request-7")
    work(broker)

    record = only(store)
    assert record.correlation_id == "request-7"
    assert record.worker_id == "worker of default"
    assert record.payload == 2


def test_a_wrong_option_is_refused_at_once(store):
    with pytest.raises(InvalidInput, match="skiped"):
        JobHistory(store, skiped="record")
    with pytest.raises(InvalidInput, match="store"):
        JobHistory("sqlite:///history.db")


# Jobs that send jobs


def test_a_message_sent_by_a_job_has_it_as_its_parent_and_so_have_its_retries(broker, store):
    @dramatiq.actor(broker=broker, max_retries=0)
    def parent():
        child.send()
        raise ValueError

    @dramatiq.actor(broker=broker, max_retries=1)
    def child():
        raise ValueError

    message = parent.send()
    work(broker)

    first, *children = history(store)
    assert [r.attempt_number for r in children] == [1, 2]
    assert {r.parent_id for r in children} == {first.id}
    assert {r.correlation_id for r in history(store)} == {message.message_id}


def test_a_message_sent_in_a_tracked_block_belongs_to_it(broker, store):
    @dramatiq.actor(broker=broker)
    def child(): ...

    with store.track({"id": "1", "task_identifier": "request"}, "web", "request-7") as request:
        child.send()
    work(broker)

    record = store.query(task_identifier="child")[0]
    assert (record.parent_id, record.correlation_id) == (request.id, "request-7")


def test_the_steps_of_a_pipeline_belong_together(broker, store):
    broker.add_middleware(dramatiq.middleware.Pipelines(), before=JobHistory)

    @dramatiq.actor(broker=broker)
    def add(a, b):
        time.sleep(0.2)
        return a + b

    steps = [add.message(1, 2), add.message(3), add.message(4)]
    dramatiq.pipeline(steps, broker=broker).run()
    work(broker)

    first, second, third = history(store)
    assert third.payload["args"] == [4, 6]
    assert (second.parent_id, third.parent_id) == (first.id, second.id)
    assert {r.correlation_id for r in history(store)} == {first.job_id}
    assert third.queue_time_ms < 300  # and not 400: it was sent by the second step


@pytest.mark.filterwarnings("ignore:MemcachedBackend is not available:ImportWarning")
def test_the_members_of_a_group_with_callbacks_share_a_correlation_id(store):
    from dramatiq.rate_limits.backends import StubBackend

    broker = new_broker(GroupCallbacks(StubBackend()), JobHistory(store))

    @dramatiq.actor(broker=broker)
    def member(): ...

    @dramatiq.actor(broker=broker)
    def finish(): ...

    group = dramatiq.group([member.message(), member.message()], broker=broker)
    group.add_completion_callback(finish.message())
    group.run()
    work(broker)

    *members, last = history(store)
    assert last.task_identifier == "finish"
    assert len(members) == 2
    assert len({r.correlation_id for r in history(store)}) == 1
    assert last.parent_id in {r.id for r in members}


def test_an_async_actor_is_the_current_execution_and_the_parent_of_what_it_sends(store):
    broker = new_broker(AsyncIO(), JobHistory(store))
    seen = {}

    @dramatiq.actor(broker=broker)
    async def parent(name):
        await asyncio.sleep(0.01)
        seen[name] = current_execution().id
        child.send(name)

    @dramatiq.actor(broker=broker)
    async def child(name): ...

    for name in "abc":
        parent.send(name)
    work(broker)

    by_id = {r.id: r for r in store.query()}
    assert {name: by_id[id_].payload["args"] for name, id_ in seen.items()} == {
        name: [name] for name in "abc"
    }
    children = [r for r in by_id.values() if r.task_identifier == "child"]
    assert {r.payload["args"][0]: r.parent_id for r in children} == seen
    assert all(r.status == "completed" for r in by_id.values())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_async_actor_can_exceed_its_time_limit(store):
    broker = new_broker(AsyncIO(), JobHistory(store))

    @dramatiq.actor(broker=broker, time_limit=50, max_retries=0)
    async def too_long():
        await asyncio.sleep(30)

    broker.emit_after("process_boot")
    too_long.send()
    work(broker)

    assert only(store).error_type == "jobhistory.TimedOut"


def test_a_call_of_an_actor_sends_nothing_and_is_not_recorded(broker, store):
    @dramatiq.actor(broker=broker)
    def double(x):
        return 2 * x

    assert double(3) == 6
    assert store.query() == []


# What must not break a job


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError

    __repr__ = __str__

    def __reduce__(self):
        raise RuntimeError


def test_errors_and_arguments_that_are_hard_to_store_break_nothing(broker, store, caplog):
    @dramatiq.actor(broker=broker, max_retries=0)
    def fail(data, password=None):
        raise Unprintable

    fail.send("x" * 10_000_000, password="hunter2")
    fail.send("a\0b\ud800", password="hunter2")
    work(broker)

    large, odd = history(store)
    assert large.error_type.endswith("Unprintable")
    assert odd.status == "failed"
    assert large.payload_is_exact is odd.payload_is_exact is False
    assert "hunter2" not in repr([r.to_dict() for r in (large, odd)])
    ours = [r for r in caplog.records if r.name.startswith("jobhistory")]
    assert "hunter2" not in "".join(r.getMessage() for r in ours)


def unanswered(port):
    return f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"


@pytest.mark.parametrize("answers", ["refuses", "never answers"])
def test_while_the_database_is_away_the_jobs_run(answers, caplog):
    with silent_server() as port:
        url = unanswered(port if answers == "never answers" else 1)
        with create_store(url) as store:
            broker = new_broker(JobHistory(store))
            ran = []

            @dramatiq.actor(broker=broker)
            def succeed():
                ran.append(time.monotonic())

            for _ in range(20):
                succeed.send()
            begun = time.monotonic()
            work(broker)

    assert len(ran) == 20
    assert ran[0] - begun < 3.5  # 2 s for the first connection
    assert time.monotonic() - begun < 10
    assert "not recorded" in caplog.text
    assert "Unexpected failure" not in caplog.text


def test_a_worker_ends_what_processes_that_are_gone_have_left(store):
    gone = f"{socket.gethostname()}:{2**22 + 1}"
    store.record_start({"id": "1", "task_identifier": "t"}, gone, "c")
    store.record_start({"id": "2", "task_identifier": "t"}, f"{socket.gethostname()}:1", "c")
    middleware = JobHistory(store)

    with working(new_broker(middleware)):
        wait_for(lambda: store.query(status="failed"), "the lost one")

    assert store.query(status="failed")[0].error_type == "jobhistory.WorkerLost"
    assert [r.job_id for r in store.query(status="started")] == ["2"]


def test_a_recorder_is_flushed_when_the_worker_stops(tmp_path):
    made = []

    def make():
        made.append(Recorder(create_store(), max_delay=60))
        return made[-1]

    broker = new_broker(JobHistory(make))

    @dramatiq.actor(broker=broker)
    def succeed(): ...

    for _ in range(2):  # a worker that starts again gets another one
        succeed.send()
        work(broker)

    assert [only(each.store).status for each in made] == ["completed", "completed"]


def test_without_dramatiq_the_import_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dramatiq.errors", None)
    monkeypatch.delitem(sys.modules, "jobhistory.contrib.dramatiq")

    with pytest.raises(ImportError, match=r"pip install 'jobhistory\[dramatiq\]'"):
        import jobhistory.contrib.dramatiq  # noqa: F401


# Replay


def replay(task, *args, queue=None, **kwargs):
    return Replay(
        task_identifier=task,
        args=list(args),
        kwargs=kwargs,
        correlation_id="request-7",
        queue=queue,
        carried=Carried(
            correlation_id="request-7", replay_of="0190163d-8694-739b-aea5-966c26f8ad91"
        ),
    )


def test_a_replay_is_a_new_message_with_the_same_arguments_and_correlation_id(broker, store):
    @dramatiq.actor(broker=broker)
    def add(a, *, b): ...

    broker.declare_queue("urgent")
    ids = [
        enqueue(broker, replay("add", 1, b=2)),
        enqueue(broker, replay("add", 1, b=2, queue="urgent")),
        enqueue(broker, replay("add", 1, b=2, queue="a queue of the past")),
    ]
    work(broker, "default", "urgent")

    assert {r.job_id: r.labels["queue"] for r in store.query()} == dict(
        zip(ids, ("default", "urgent", "default"), strict=True)
    )
    for record in store.query():
        assert record.payload == {"args": [1], "kwargs": {"b": 2}}
        assert record.correlation_id == "request-7"
        assert record.labels["replay_of"] == "0190163d-8694-739b-aea5-966c26f8ad91"
        assert record.parent_id is None
        assert record.queue_time_ms < 10_000


def test_a_replay_of_an_unknown_actor_names_those_that_there_are(broker):
    @dramatiq.actor(broker=broker)
    def add(): ...

    with pytest.raises(InvalidInput, match=r"'os.system' is no actor of the broker; it has: add"):
        enqueue(broker, replay("os.system", "ls"))


def test_an_execution_is_replayed_through_the_broker(broker, store):
    @dramatiq.actor(broker=broker, max_retries=0)
    def send(to, *, order):
        if len(store.query()) == 1:
            raise ConnectionError

    send.send("ann", order=7)
    work(broker)
    failed = only(store)
    replayed = replay_execution(store, broker, failed.id)
    work(broker)

    (new,) = store.query(status="completed")
    assert new.job_id == replayed.job_id != failed.job_id
    assert new.payload == failed.payload
    assert new.correlation_id == failed.correlation_id
    assert new.labels["replay_of"] == str(failed.id)
