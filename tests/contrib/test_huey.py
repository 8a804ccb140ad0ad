"""Tasks of Huey, in memory."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import socket
import sys
import time
import weakref
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from jobhistory import InvalidInput, Recorder, create_store, current_execution
from tests.contrib.workers import wait_for

huey_package = pytest.importorskip("huey")

from huey import CancelExecution, MemoryHuey, RetryTask, crontab  # noqa: E402
from huey.consumer import Consumer  # noqa: E402

from jobhistory.contrib import huey as adapter  # noqa: E402
from jobhistory.contrib.adapter import Carried, Replay  # noqa: E402
from jobhistory.contrib.huey import enqueue, record_tasks, schedules  # noqa: E402
from jobhistory.contrib.replay import replay  # noqa: E402

pytestmark = pytest.mark.adapters

VERSION = tuple(int(part) for part in huey_package.__version__.split(".")[:2])
REPLAYED = UUID(int=7 << 76 | 2 << 62)


class Refused(Exception):
    """An error that cannot be printed."""

    def __str__(self):
        raise RuntimeError("no text")


class App:
    """A Huey whose tasks are executed by `work`, as a consumer does."""

    def __init__(self, huey):
        self.huey = huey
        self.calls = []
        huey.task(name="double")(lambda number, **_: 2 * number)
        self.double = huey.task(name="twice")(self._double)
        self.fail = huey.task(name="fail")(self._fail)
        self.flaky = huey.task(name="flaky", retries=2)(self._fail)

    def _double(self, number, **others):
        self.calls.append((number, others))
        return 2 * number

    def _fail(self):
        raise ValueError("no such order")

    def work(self):
        """Execute tasks until there are none, scheduled ones as if it were tomorrow."""
        tomorrow = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)
        while len(self.huey):
            task = self.huey.dequeue()
            self.huey.execute(task, tomorrow if task.eta else None)
            for scheduled in self.huey.read_schedule(tomorrow):
                self.huey.enqueue(scheduled)


@pytest.fixture
def store():
    return create_store()


@pytest.fixture
def app():
    return App(MemoryHuey("shop"))


@pytest.fixture
def huey(app):
    return app.huey


@pytest.fixture
def recorded(huey, store):
    history = record_tasks(huey, store)
    yield history
    history.close()


def rows(store):
    records = store.query(limit=10_000)
    return sorted(records, key=lambda record: (record.started_at, record.id))


def one(records):
    (record,) = records
    return record


def outcomes(records):
    return [(record.attempt_number, record.status, record.will_retry) for record in records]


def replay_of(task, *args, **kwargs):
    carried = Carried(correlation_id="request-1", replay_of=REPLAYED)
    return Replay(
        task_identifier=task,
        args=list(args),
        kwargs=kwargs,
        correlation_id="request-1",
        queue=None,
        carried=carried,
    )


@pytest.mark.usefixtures("recorded")
def test_a_task_is_recorded_with_what_huey_knows(app, store):
    result = app.double(2, tag="a")
    app.work()

    record = one(rows(store))
    assert (record.job_id, record.correlation_id) == (result.id, result.id)
    assert (record.task_identifier, record.status) == (f"{__name__}.twice", "completed")
    assert record.worker_id == f"{socket.gethostname()}:{os.getpid()}"
    assert record.payload == {"args": [2], "kwargs": {"tag": "a"}}
    assert record.payload_is_exact
    assert record.attempt_number == 1
    assert 0 <= record.queue_time_ms < 60_000
    assert record.labels == {
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "queue": "shop",
    }
    assert app.calls == [(2, {"tag": "a"})]
    assert result() == 4


@pytest.mark.usefixtures("recorded")
def test_each_attempt_is_a_row_with_the_original_exception(app, store):
    app.flaky()
    app.work()

    records = rows(store)
    assert outcomes(records) == [(1, "failed", True), (2, "failed", True), (3, "failed", False)]
    assert {record.error_type for record in records} == {"ValueError"}
    assert all("in _fail\n" in record.error_stack for record in records)
    assert len({record.job_id for record in records}) == 1


@pytest.mark.usefixtures("recorded")
def test_a_retry_that_a_task_asks_for_counts_on_and_shows_the_cause(app, huey, store):
    @huey.task(context=True, retries=1)
    def ask(left, task=None):
        try:
            raise TimeoutError("no answer")
        except TimeoutError as error:
            app.calls.append(task.id)
            if len(app.calls) < 4:
                raise RetryTask("later", delay=60 if len(app.calls) > 1 else None) from error

    ask(1)
    app.work()

    records = rows(store)
    assert outcomes(records) == [
        (1, "failed", True),
        (2, "failed", True),
        (3, "failed", True),
        (4, "completed", None),
    ]
    assert records[0].error_type == "TimeoutError"
    assert {len(record.payload["kwargs"]) for record in records} == {0}


@pytest.mark.usefixtures("recorded")
def test_a_retry_with_a_delay_keeps_the_count_and_the_parent(app, huey, store):
    @huey.task(retries=1, retry_delay=3600)
    def later():
        raise ValueError("no")

    with store.track({"id": "1", "task_identifier": "web"}, "web", "request-1") as execution:
        later()
    app.work()

    records = rows(store)[1:]
    assert outcomes(records) == [(1, "failed", True), (2, "failed", False)]
    assert {record.parent_id for record in records} == {execution.id}
    assert {record.correlation_id for record in records} == {"request-1"}


@pytest.mark.usefixtures("recorded")
def test_cancelled_and_locked_tasks_are_cancelled(app, huey, store):
    @huey.task(retries=1)
    def cancel(retry):
        raise (
            CancelExecution("not now", retry=retry) if VERSION >= (3, 5) else CancelExecution(retry)
        )

    @huey.task()
    @huey.lock_task("reports")
    def locked():
        """Never run."""

    cancel(False)
    app.work()
    cancel(None)
    app.work()
    with huey.lock_task("reports"):
        locked()
        app.work()

    assert [record.attempt_number for record in rows(store)] == [1, 1, 2, 1]
    assert {record.status for record in rows(store)} == {"cancelled"}
    assert "lock" in rows(store)[3].error_message


@pytest.mark.usefixtures("recorded")
def test_a_hook_that_cancels_a_task_cancels_its_execution(app, huey, store):
    @huey.pre_execute()
    def refuse(task):
        raise CancelExecution

    app.double(1)
    app.work()

    assert one(rows(store)).status == "cancelled"
    assert app.calls == []


@pytest.mark.parametrize("skipped", ["ignore", "record"])
def test_revoked_and_expired_tasks_leave_rows_only_if_that_is_wanted(app, huey, store, skipped):
    history = record_tasks(huey, store, skipped=skipped)
    app.double(1).revoke()
    huey.enqueue(app.double.s(2, expires=datetime(2020, 1, 1)))
    app.work()
    history.close()

    assert app.calls == []
    expected = [(1, "cancelled", None)] * 2 if skipped == "record" else []
    assert outcomes(rows(store)) == expected


@pytest.mark.skipif(VERSION < (3, 0), reason="Huey 2 has no rate limit")
@pytest.mark.usefixtures("recorded")
def test_a_rate_limited_task_is_cancelled_and_tried_again(app, huey, store):
    @huey.task()
    @huey.rate_limit("api", 1, 3600)
    def call():
        """Call a service."""

    call()
    call()
    for _ in range(2):
        huey.execute(huey.dequeue())

    assert outcomes(rows(store)) == [(1, "completed", None), (1, "cancelled", None)]
    assert huey.scheduled_count() == 1


@pytest.mark.skipif(VERSION < (3, 0), reason="Huey 2 has no time limits")
@pytest.mark.usefixtures("recorded")
def test_a_time_limit_is_recorded_as_timed_out(app, huey, store):
    @huey.task(timeout=0.001, context=True)
    def slow(task=None):
        time.sleep(0.01)
        task.check_timeout()

    slow()
    app.work()

    assert one(rows(store)).error_type == "jobhistory.TimedOut"


@pytest.mark.usefixtures("recorded")
def test_a_scheduled_task_waits_from_its_eta_on(app, store):
    app.double.schedule((1,), delay=3600)
    app.work()

    assert one(rows(store)).queue_time_ms == 0


@pytest.mark.usefixtures("recorded")
def test_a_task_that_enqueues_another_one_is_its_parent(app, huey, store):
    @huey.task()
    def outer():
        app.double(1)
        return current_execution().id

    result = outer()
    app.work()

    parent, child = rows(store)
    assert parent.id == result()
    assert (child.parent_id, child.correlation_id) == (parent.id, parent.job_id)


@pytest.mark.usefixtures("recorded")
def test_the_steps_of_a_pipeline_know_the_one_before(app, huey, store):
    huey.enqueue(app.double.s(1).then(app.double).then(app.double))
    app.work()

    first, second, third = rows(store)
    assert (second.parent_id, third.parent_id) == (first.id, second.id)
    assert {each.correlation_id for each in (first, second, third)} == {first.job_id}
    assert third.payload["args"] == [4]


@pytest.mark.usefixtures("recorded")
def test_an_error_handler_knows_the_task_that_failed(app, huey, store):
    @huey.task()
    def report(error):
        """Tell somebody."""

    huey.enqueue(app.fail.s().error(report))
    app.work()

    failed, reported = rows(store)
    assert (reported.status, reported.parent_id) == ("completed", failed.id)


@pytest.mark.skipif(VERSION < (3, 0), reason="Huey 2 has no chords")
@pytest.mark.usefixtures("recorded")
def test_the_callback_of_a_chord_knows_its_last_member(app, huey, store):
    @huey.task()
    def total(numbers):
        return sum(numbers)

    huey.enqueue(huey_package.chord([app.double.s(1), app.double.s(2)], total))
    app.work()

    *_, last, callback = rows(store)
    assert (callback.status, callback.parent_id) == ("completed", last.id)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("header", [None, "x", {"attempts": "many", "parent_id": 3}])
def test_a_header_that_somebody_wrote_wrongly_fails_no_task(app, store, header):
    app.double(1, _jobhistory=header)
    app.work()

    assert outcomes(rows(store)) == [(1, "completed", None)]
    assert app.calls == [(1, {})]


def test_without_carry_the_arguments_stay_as_they_are(app, huey, store):
    record_tasks(huey, store, carry=False)
    result = app.double(1)
    app.flaky()
    assert result.task.kwargs == {}
    app.work()

    assert [record.attempt_number for record in rows(store)] == [1, 1, 2, 3]
    assert app.calls == [(1, {})]


def test_without_carry_a_retry_runs_in_a_consumer_without_the_adapter(app, huey, store):
    record_tasks(huey, store, carry=False)
    app.flaky()
    huey.execute(huey.dequeue())

    assert huey.dequeue().kwargs == {}


def test_immediate_mode_records_nested_tasks_too(store):
    app = App(MemoryHuey("shop", immediate=True))
    record_tasks(app.huey, store)

    @app.huey.task()
    def outer():
        app.double(1)
        app.flaky()

    outer()

    parent, *children = rows(store)
    assert parent.status == "completed"
    assert outcomes(children) == [
        (1, "completed", None),
        (1, "failed", True),
        (2, "failed", True),
        (3, "failed", False),
    ]
    assert {child.parent_id for child in children} == {parent.id}


def test_the_result_is_stored_if_wanted(app, huey, store):
    record_tasks(huey, store, result=True)
    app.double(21)
    app.work()

    assert one(rows(store)).result == 42


def test_frequent_tasks_are_stored_only_if_they_do_not_complete(app, huey, store):
    tasks = {f"{__name__}.{name}": "failures" for name in ("twice", "fail")}
    record_tasks(huey, store, record=tasks)
    app.double(21)
    app.fail()
    app.work()

    assert one(rows(store)).error_type == "ValueError"


def test_setting_it_up_twice_records_once_and_closing_stops(app, huey, store):
    record_tasks(huey, create_store())
    history = record_tasks(huey, store)
    app.double(1)
    app.work()
    history.close()
    app.double(2)
    app.work()

    assert one(rows(store)).payload["args"] == [1]
    assert app.calls == [(1, {}), (2, {})]


def test_two_hueys_of_a_process_are_kept_apart(app, huey, store):
    other, other_store = App(MemoryHuey("other")), create_store()
    record_tasks(huey, store)
    record_tasks(other.huey, lambda: other_store)
    app.double(1)
    other.double(2)
    app.work()
    other.work()

    assert one(rows(store)).labels["queue"] == "shop"
    assert one(rows(other_store)).labels["queue"] == "other"


def test_a_huey_that_nobody_uses_is_not_kept_in_memory(store):
    huey = MemoryHuey("short-lived")
    record_tasks(huey, store)
    reference = weakref.ref(huey)
    del huey
    gc.collect()

    assert reference() is None


@pytest.mark.usefixtures("recorded")
def test_the_signals_and_hooks_of_the_app_stay(app, huey):
    seen = []
    huey.signal()(lambda signal, task, *_: seen.append(signal))
    huey.post_execute("own")(lambda task, value, error: seen.append(value))

    @huey.post_execute()
    def broken(task, value, error):
        raise OSError("the hook of the app")

    app.double(1)
    app.work()

    assert seen == ["enqueued", "executing", 2, "complete"]


def test_values_that_are_hard_to_store_break_nothing(app, huey, store):
    @huey.task()
    def refuse():
        raise Refused

    record_tasks(huey, store)
    huey.results = False  # Huey itself prints the error for its results
    refuse()
    app.double(2, password="hunter2", text="a\0b", raw=b"x" * 1_000_000)
    app.work()

    refused, doubled = rows(store)
    assert refused.error_type.endswith("Refused")
    assert doubled.status == "completed"
    assert "hunter2" not in str(doubled.payload)


def test_history_that_fails_fails_no_task(app, huey, caplog):
    def no_store():
        raise OSError("no configuration")

    record_tasks(huey, no_store)
    result = app.double(1)
    with caplog.at_level(logging.ERROR, "jobhistory"):
        app.work()

    assert result() == 2
    assert "no configuration" in caplog.text
    assert app.calls == [(1, {})]


def test_tasks_wait_at_most_once_for_a_database_that_does_not_answer(app, huey):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent = create_store(f"postgresql+psycopg://app@127.0.0.1:{silent.getsockname()[1]}/app")
        record_tasks(huey, silent)
        for number in range(4):
            app.double(number)
        began = time.monotonic()
        app.work()
        took = time.monotonic() - began
        silent.close()

    assert [number for number, _ in app.calls] == [0, 1, 2, 3]
    assert took < 6


def test_a_recorder_gets_everything(app, huey, store):
    with Recorder(store) as recorder:
        record_tasks(huey, recorder)
        app.double(1)
        app.fail()
        app.work()

    assert [record.status for record in rows(store)] == ["completed", "failed"]


class Consuming:
    """A consumer with threads."""

    def __init__(self, huey, **options):
        options = {"workers": 2, "initial_delay": 0.01, "max_delay": 0.05, **options}
        self.consumer = Consumer(huey, **options)
        self.consumer._set_signal_handlers = lambda: None

    def __enter__(self):
        self.consumer.start()
        return self.consumer

    def __exit__(self, *_):
        self.consumer.stop(graceful=True)


@pytest.mark.usefixtures("recorded")
def test_a_consumer_ends_what_ended_processes_left_and_records_in_threads(app, huey, store):
    gone = f"{socket.gethostname()}:999999999"
    store.record_start({"id": "1", "task_identifier": "t"}, gone, "1")
    store.record_start({"id": "2", "task_identifier": "t"}, "elsewhere:1", "2")
    for number in range(20):
        app.double(number)
    with Consuming(huey):
        wait_for(lambda: store.count(status="completed").value == 20, "the tasks are executed")
        wait_for(lambda: store.count(status="failed").value == 1, "the leftover is ended")

    assert one(store.running()).worker_id == "elsewhere:1"
    assert store.query(status="failed")[0].error_type == "jobhistory.WorkerLost"


@pytest.mark.usefixtures("recorded")
def test_a_task_that_exits_is_a_lost_worker(huey, store):
    @huey.task()
    def leave():
        raise SystemExit(3)

    leave()
    with Consuming(huey):
        wait_for(lambda: store.count(status="failed"), "the worker has ended")

    assert one(rows(store)).error_type == "jobhistory.WorkerLost"


@pytest.mark.usefixtures("recorded")
def test_a_task_that_a_stop_of_the_consumer_interrupts_is_lost(huey, store):
    @huey.task()
    def sleep():
        time.sleep(1)

    sleep()
    with Consuming(huey) as consumer:
        wait_for(lambda: store.running(), "the task has begun")
        consumer.stop()
        huey.notify_interrupted_tasks()

    assert one(rows(store)).error_type == "jobhistory.WorkerLost"
    assert "stopped" in one(rows(store)).error_message


def test_schedules_are_those_of_crontab_as_far_as_cron_has_them(huey):
    @huey.periodic_task(crontab(minute="17", hour="2", day_of_week="1-5"))
    def nightly():
        """Run at night."""

    @huey.periodic_task(crontab(minute="*/20"))
    def often():
        """Run often."""

    @huey.periodic_task(crontab(minute="0", day="1", day_of_week="1"))
    def both():
        """Run on a first that is a Monday."""

    def is_full_moon(moment):
        raise AssertionError("listing calls nothing")

    @huey.periodic_task(is_full_moon)
    def howl():
        """Run at full moon."""

    listed = {each.name.rpartition(".")[2]: each for each in schedules(huey)}
    assert listed["nightly"].task_identifier == f"{__name__}.nightly"
    assert listed["nightly"].cron == "17 2 * * 1,2,3,4,5"
    assert listed["nightly"].timezone == "UTC"
    assert listed["often"].cron == "0,20,40 * * * *"
    assert listed["both"].cron is None
    assert "day='1'" in listed["both"].description
    assert "day_of_week='1'" in listed["both"].description
    assert (listed["howl"].cron, listed["howl"].every) == (None, None)
    assert "is_full_moon" in listed["howl"].description


@pytest.mark.usefixtures("recorded")
def test_periodic_tasks_are_recorded(app, huey, store):
    @huey.periodic_task(crontab())
    def tick():
        """Run each minute."""

    for task in huey.read_periodic(datetime(2026, 1, 1)):
        huey.enqueue(task)
    app.work()

    record = one(rows(store))
    assert (record.task_identifier, record.status) == (f"{__name__}.tick", "completed")


@pytest.mark.usefixtures("recorded")
def test_enqueue_repeats_a_task_with_its_correlation(app, huey, store):
    job_id = enqueue(huey, replay_of(f"{__name__}.twice", 4, tag="a"))
    app.work()

    record = one(rows(store))
    assert (record.job_id, record.correlation_id) == (job_id, "request-1")
    assert record.labels["replay_of"] == str(REPLAYED)
    assert record.payload == {"args": [4], "kwargs": {"tag": "a"}}


@pytest.mark.usefixtures("recorded")
def test_a_failed_task_can_be_replayed(app, huey, store):
    app.fail()
    app.work()
    failed = one(rows(store))
    replay(store, huey, failed.id)
    app.work()

    _, again = rows(store)
    assert again.labels["replay_of"] == str(failed.id)
    assert (again.correlation_id, again.attempt_number) == (failed.correlation_id, 1)


def test_enqueue_refuses_a_task_that_huey_does_not_know(app, huey):
    with pytest.raises(InvalidInput, match=rf"os.system.*{__name__}\.twice"):
        enqueue(huey, replay_of("os.system", "ls"))
    assert len(huey) == 0


def test_importing_the_adapter_without_huey_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huey.exceptions", None)
    monkeypatch.delitem(sys.modules, "jobhistory.contrib.huey")

    with pytest.raises(ImportError, match=r"pip install 'jobhistory\[huey\]'"):
        importlib.import_module("jobhistory.contrib.huey")
    monkeypatch.undo()
    assert sys.modules["jobhistory.contrib.huey"] is adapter
