"""Tasks of Celery in eager mode, and in a worker on a memory transport. No broker is needed."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4
from weakref import ref

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from jobhistory import (
    InvalidInput,
    NotReplayable,
    create_store,
    current_execution,
    new_execution_id,
)
from tests.contrib.workers import wait_for

pytest.importorskip("celery")

from billiard.pool import SIG_SOFT_TIMEOUT, soft_timeout_sighandler
from celery import Celery, chain, chord, group, signals
from celery.app.task import Context
from celery.contrib.testing.worker import start_worker
from celery.exceptions import (
    Ignore,
    Reject,
    SoftTimeLimitExceeded,
    TimeLimitExceeded,
    WorkerLostError,
)
from celery.exceptions import Retry as CeleryRetry
from celery.local import Proxy
from celery.schedules import BaseSchedule, crontab, schedule
from celery.utils.dispatch import Signal
from celery.worker.state import revoked as revoked_tasks

from jobhistory.contrib.adapter import HEADER, Carried, Replay
from jobhistory.contrib.celery import enqueue, record_tasks, schedules
from jobhistory.contrib.replay import replay

pytestmark = [
    pytest.mark.adapters,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:celery"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:kombu"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:celery"),  # "exception raised outside body"
]


class Refused(Exception):
    """An error that cannot be pickled or printed."""

    def __init__(self, lock):
        super().__init__(lock)

    def __str__(self):
        raise RuntimeError("no text")

    def __reduce__(self):
        raise TypeError("no pickle")


class Unpicklable(Exception):
    def __init__(self, text, needed):
        super().__init__(text)


class Fault(Exception):
    pass


class PartlyPicklable(Fault):
    """Celery makes an error of the base class from it, which has no traceback."""

    def __init__(self, text, needed):
        super().__init__(text)


class Empty(Exception):
    def __len__(self):
        return 0


def nothing():
    pass


def take(what):
    pass


@pytest.fixture
def store():
    return create_store()


def new_app():
    """Return an app on Celery's memory transport, which all apps of this process share."""
    app = Celery("shop", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = uuid4().hex
    app.conf.task_eager_propagates = False
    app.conf.broker_transport_options = {"polling_interval": 0.01}
    app.task = partial(app.task, shared=False)  # otherwise, every app has the tasks of all
    return app


@pytest.fixture
def soft_limits():
    """Let the signal for a soft time limit raise its exception, as in the child of a worker."""
    if SIG_SOFT_TIMEOUT is None:
        pytest.skip("there are no soft time limits")
    usual = signal.signal(SIG_SOFT_TIMEOUT, soft_timeout_sighandler)
    yield
    signal.signal(SIG_SOFT_TIMEOUT, usual)


@pytest.fixture
def make_app():
    """Make apps, and stop recording their tasks afterwards."""
    made = []

    def make(store=None, **options):
        app = new_app()
        if store is not None:
            made.append(record_tasks(app, store, **options))
        return app

    yield make
    for each in made:
        each.close()


@pytest.fixture
def app(make_app, store):
    return make_app(store)


def outcomes(store, **criteria):
    """Return what history says about each attempt, oldest first."""
    return [
        (record.attempt_number, record.status.value, record.error_type, record.will_retry)
        for record in store.query(order="oldest", **criteria)
    ]


def only(store):
    (record,) = store.query()
    return record


@pytest.fixture(scope="module")
def working_app():
    """An app for whose tasks a worker runs in this process. Starting one takes seconds."""
    app = new_app()

    @app.task(name="add")
    def add(a, b):
        return a + b

    @app.task(name="total")
    def total(numbers):
        return sum(numbers)

    @app.task(name="fail")
    def fail():
        raise ValueError("no")

    @app.task(name="fetch", bind=True, max_retries=1)
    def fetch(self):
        raise self.retry(exc=ValueError("no"), countdown=0)

    @app.task(name="apply")
    def apply():
        add.apply((1, 2))

    @app.task(name="start")
    def start():
        fetch.delay()

    @app.task(name="ship", bind=True, max_retries=1)
    def ship(self, order, *, by):
        if self.request.retries == 0:
            raise self.retry(exc=ValueError(by), countdown=0)
        return order

    signals.setup_logging.connect(leave_logging_alone)
    with start_worker(app, pool="threads", perform_ping_check=False) as controller:
        app.node_name = controller.hostname
        yield app
    signals.setup_logging.disconnect(leave_logging_alone)


def leave_logging_alone(**_):
    """As the receiver of a signal, keep Celery from configuring the logging of this process."""


@pytest.fixture
def worker(working_app, store):
    """The same, with its tasks recorded."""
    recorded = record_tasks(working_app, store)
    yield working_app
    recorded.close()


def ended(store, count):
    """Wait until so many executions have ended, and return all, oldest first."""
    wait_for(
        lambda: store.count().value == count and not store.running(), f"{count} ended executions"
    )
    return store.query(order="oldest")


class TestEagerMode:
    def test_a_task_is_recorded_with_its_arguments_and_number(self, app, store):
        @app.task(name="add")
        def add(a, b):
            assert current_execution() is not None
            return a + b

        result = add.apply((1,), {"b": 2})

        record = only(store)
        assert result.get() == 3
        assert record.status == "completed"
        assert (record.job_id, record.task_identifier) == (result.id, "add")
        assert record.correlation_id == result.id
        assert record.payload == {"args": [1], "kwargs": {"b": 2}}
        assert record.payload_is_exact
        assert record.queue_time_ms is None
        assert record.worker_id.startswith(f"{socket.gethostname()}:")
        assert record.result is None

    def test_a_bound_task_is_recorded_without_itself(self, app, store):
        @app.task(bind=True)
        def show(self, what):
            return what

        show.apply(("x",))

        assert only(store).payload == {"args": ["x"], "kwargs": {}}

    def test_each_attempt_has_the_original_exception_with_its_traceback(self, app, store):
        @app.task(bind=True, max_retries=1)
        def fetch(self):
            try:
                {}["price"]
            except KeyError as error:
                raise self.retry(exc=error, countdown=0) from error

        fetch.apply()

        assert outcomes(store) == [
            (1, "failed", "KeyError", True),
            (2, "failed", "KeyError", False),
        ]
        records = store.query()
        assert all('{}["price"]' in record.error_stack for record in records)
        assert len({record.job_id for record in records}) == 1

    def test_autoretry_is_a_failure_that_will_be_retried(self, app, store):
        @app.task(autoretry_for=(OSError,), retry_kwargs={"max_retries": 2, "countdown": 0})
        def fetch():
            raise OSError("no answer")

        fetch.apply()

        assert outcomes(store) == [
            (1, "failed", "OSError", True),
            (2, "failed", "OSError", True),
            (3, "failed", "OSError", False),
        ]

    @pytest.mark.parametrize("error", [Unpicklable, PartlyPicklable, Empty])
    def test_a_retry_keeps_an_error_that_celery_replaces_or_overlooks(self, app, store, error):
        @app.task(bind=True, max_retries=3)
        def fetch(self):
            if self.request.retries == 0:
                try:
                    raise error("no answer", nothing)
                except error as caught:
                    raise self.retry(exc=caught, countdown=0) from None

        fetch.apply()

        first, _ = store.query(order="oldest")
        assert (first.error_type, first.will_retry) == (f"{__name__}.{error.__name__}", True)
        assert 'raise error("no answer", nothing)' in first.error_stack

    def test_a_retry_that_reaches_the_caller_is_no_retry_and_keeps_its_error(self, app, store):
        @app.task(bind=True)
        def fetch(self):
            raise self.retry(exc=ValueError("no"), countdown=0)

        with pytest.raises(CeleryRetry):
            fetch.apply(throw=True)

        assert outcomes(store) == [(1, "failed", "ValueError", None)]

    def test_the_error_of_a_retry_need_not_be_the_one_that_is_handled(self, app, store):
        @app.task(bind=True)
        def fetch(self):
            if self.request.retries == 0:
                try:
                    raise KeyError("of the code")
                except KeyError:
                    raise self.retry(exc=ValueError("of the task"), countdown=0) from None

        @app.task(bind=True)
        def refuse(self):
            if self.request.retries == 0:
                raise self.retry(exc=Unpicklable("no answer", nothing), countdown=0)

        fetch.apply()
        refuse.apply()

        types = [record.error_type for record in store.query(status="failed", order="oldest")]
        assert types == ["ValueError", f"{__name__}.Unpicklable"]

    def test_a_retry_without_an_error_is_recorded_as_such(self, app, store):
        @app.task(bind=True)
        def poll(self):
            if self.request.retries == 0:
                raise self.retry(countdown=0)

        poll.apply()

        first, second = outcomes(store)
        assert first == (1, "failed", "celery.exceptions.Retry", True)
        assert second == (2, "completed", None, None)

    def test_an_ignored_task_completes_and_a_rejected_one_is_cancelled(self, app, store):
        @app.task
        def stop(error):
            raise error

        stop.apply((Ignore(),))
        stop.apply((Reject("no room", requeue=False),))

        ignored, rejected = store.query(order="oldest")
        assert (ignored.status, ignored.result) == ("completed", None)
        assert (rejected.status, rejected.error_message) == ("cancelled", "rejected: no room")

    def test_a_soft_time_limit_is_timed_out(self, app, store):
        @app.task
        def crawl():
            raise SoftTimeLimitExceeded

        crawl.apply()

        record = only(store)
        assert (record.status, record.error_type) == ("failed", "jobhistory.TimedOut")
        assert "raise SoftTimeLimitExceeded" in record.error_stack

    def test_a_time_limit_of_gevents_pool_is_timed_out(self, make_app, store):
        gevent = pytest.importorskip("gevent")
        app = make_app(store)

        @app.task
        def crawl():
            raise gevent.Timeout(5)

        with pytest.raises(gevent.Timeout):
            crawl.apply()

        assert outcomes(store) == [(1, "failed", "jobhistory.TimedOut", None)]
        assert only(store).error_message == "Timeout: 5 seconds"

    @pytest.mark.parametrize("is_nested", [False, True])
    def test_a_soft_limit_that_comes_while_the_end_is_recorded_does_not_interrupt_that(
        self, make_app, is_nested, soft_limits
    ):
        due = []

        def exceed():
            if due:
                due.clear()
                os.kill(os.getpid(), SIG_SOFT_TIMEOUT)
            return datetime.now(UTC)

        store = create_store(clock=exceed)
        app = make_app(store)

        @app.task(name="crawl")
        def crawl():
            due.append(True)

        @app.task(name="outer")
        def outer():
            crawl.apply()
            time.sleep(5)

        (outer if is_nested else crawl).apply()
        time.sleep(0.2)

        assert outcomes(store, task_identifier="crawl") == [(1, "completed", None, None)]
        if is_nested:  # then the limit is that of the outer task
            assert outcomes(store, task_identifier="outer") == [
                (1, "failed", "jobhistory.TimedOut", False)
            ]

    @pytest.mark.parametrize(
        ("seconds", "outcome"),
        [(5, (1, "failed", "jobhistory.TimedOut", False)), (0, (1, "completed", None, None))],
    )
    def test_a_soft_limit_that_comes_while_the_start_is_recorded_reaches_a_task_that_still_runs(
        self, make_app, store, seconds, outcome, soft_limits
    ):
        def exceed(request):
            os.kill(os.getpid(), SIG_SOFT_TIMEOUT)

        app = make_app(store, correlation_id=exceed)

        @app.task
        def crawl():
            time.sleep(seconds)

        crawl.apply()
        time.sleep(0.2)

        assert outcomes(store) == [outcome]

    @pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
    def test_an_error_that_reaches_the_caller_is_recorded(self, app, store, error):
        @app.task
        def fail():
            raise error

        with pytest.raises(type(error)):
            fail.apply(throw=True)

        record = only(store)
        assert (record.status, record.error_type) == ("failed", type(error).__name__)
        assert "raise error" in record.error_stack

    def test_it_fails_with_the_error_that_its_caller_handles_if_it_raises_that(self, app, store):
        @app.task
        def fail(error):
            raise error

        try:
            raise ValueError("of the caller")
        except ValueError as error:
            with pytest.raises(ValueError, match="of the caller"):
                fail.apply((error,), throw=True)

        assert outcomes(store) == [(1, "failed", "ValueError", None)]

    def test_a_task_can_copy_its_request(self, app, store):
        @app.task(bind=True)
        def show(self):
            assert copy.deepcopy(self.request).id == pickle.loads(pickle.dumps(self.request)).id
            return json.dumps(vars(self.request))

        show.apply()

        assert outcomes(store) == [(1, "completed", None, None)]

    def test_the_error_that_its_caller_handles_does_not_fail_it(self, app, store):
        @app.task
        def clean_up():
            pass

        try:
            raise ValueError("of the caller")
        except ValueError:
            clean_up.apply()

        assert outcomes(store) == [(1, "completed", None, None)]

    def test_an_inner_task_knows_its_parent_and_a_retry_keeps_it(self, app, store):
        @app.task(bind=True, max_retries=1)
        def inner(self):
            raise self.retry(exc=ValueError("no"), countdown=0)

        @app.task
        def outer():
            inner.apply()

        result = outer.apply()

        first, *others = store.query(order="oldest")
        assert len(others) == 2
        assert {record.parent_id for record in others} == {first.id}
        assert {record.correlation_id for record in [first, *others]} == {result.id}

    def test_it_need_not_be_recorded(self, make_app, store):
        app = make_app(store, eager=False)
        app.conf.task_always_eager = True

        @app.task
        def add():
            return 1

        assert add.delay().get() == 1
        assert store.count().value == 0

    def test_neither_is_its_retry_recorded(self, make_app, store):
        app = make_app(store, eager=False)

        @app.task(bind=True, max_retries=1)
        def fetch(self):
            raise self.retry(exc=ValueError("no"), countdown=0)

        fetch.apply()

        assert store.count().value == 0

    def test_the_task_by_which_celery_polls_is_not_recorded(self, app, store):
        @app.task(name="celery.chord_unlock", bind=True, max_retries=1)
        def unlock(self):
            raise self.retry(countdown=0)

        unlock.apply()

        assert store.count().value == 0

    def test_a_direct_call_is_no_attempt(self, app, store):
        @app.task
        def add(a, b):
            return a + b

        assert add(1, 2) == 3
        assert store.count().value == 0

    def test_the_result_is_stored_if_the_options_say_so(self, make_app, store):
        app = make_app(store, result=True)

        @app.task
        def add(a, b):
            return a + b

        add.apply((1, 2))

        assert only(store).result == 3

    def test_functions_among_the_options_get_the_request(self, make_app, store):
        app = make_app(
            store,
            worker_id=lambda request: f"worker of {request.id}",
            correlation_id=lambda request: request.kwargs["order"],
        )

        @app.task
        def ship(order):
            pass

        result = ship.apply(kwargs={"order": "order-7"})

        record = only(store)
        assert record.worker_id == f"worker of {result.id}"
        assert record.correlation_id == "order-7"

    def test_a_task_runs_although_history_fails(self, make_app, caplog):
        def fail():
            raise OSError("no history")

        app = make_app(fail)

        @app.task
        def add(a, b):
            return a + b

        assert add.apply((1, 2)).get() == 3
        assert "not recorded: the start of" in caplog.text
        assert "Signal handler" not in caplog.text

    def test_hostile_values_break_nothing(self, app, store):
        @app.task(name="hostile")
        def hostile(*_, **__):
            raise Refused(threading.Lock())

        hostile.apply(("nul \0", "x" * 100_000_000), {"password": "hunter2", "at": object()})

        record = only(store)
        assert record.status == "failed"
        assert record.error_type.endswith("Refused")
        assert "raise Refused" in record.error_stack
        assert "hunter2" not in str(record.payload)
        assert not record.payload_is_exact


class TestSetUp:
    def test_the_last_one_counts(self, app, store):
        other = create_store()
        record_tasks(app, other)
        again = record_tasks(app, other)

        @app.task
        def add():
            pass

        add.apply()
        assert store.count().value == 0
        assert other.count().value == 1

        again.close()
        add.apply()
        assert other.count().value == 1

    def test_an_earlier_one_that_is_closed_late_stops_nothing(self, app, store):
        other = create_store()
        first = record_tasks(app, store)
        second = record_tasks(app, other)

        @app.task
        def add():
            pass

        first.close()
        add.apply()
        assert other.count().value == 1
        second.close()

    def test_it_leaves_no_receiver_behind(self, store):
        every = [value for value in vars(signals).values() if isinstance(value, Signal)]
        before = [len(signal.receivers) for signal in every]

        for _ in range(3):
            app = Celery("once", broker="memory://", set_as_current=False)
            record_tasks(app, store)
            record_tasks(app, store).close()

        assert [len(signal.receivers) for signal in every] == before

    def test_two_apps_in_one_process_are_kept_apart(self, make_app):
        stores = create_store(), create_store()
        tasks = []
        for store in stores:
            app = make_app(store)
            tasks.append(app.task(name="add")(nothing))

        tasks[0].apply()
        tasks[1].apply()
        tasks[1].apply()

        assert [store.count().value for store in stores] == [1, 2]

    def test_the_apps_own_signal_handlers_run(self, app, store):
        seen = []

        def note(sender=None, state=None, **_):
            seen.append((state, None if current_execution() is None else "recorded"))
            raise ValueError("of the handler")

        @app.task
        def add():
            pass

        signals.task_prerun.connect(note)
        signals.task_postrun.connect(note)
        try:
            add.apply()
        finally:
            signals.task_prerun.disconnect(note)
            signals.task_postrun.disconnect(note)

        assert [state for state, _ in seen] == [None, "SUCCESS"]
        assert outcomes(store) == [(1, "completed", None, None)]

    @pytest.mark.parametrize("wrong", [None, "celery", object()])
    def test_what_is_not_an_app_is_refused(self, store, wrong):
        with pytest.raises(InvalidInput, match="not a Celery app"):
            record_tasks(wrong, store)

    def test_a_proxy_stands_for_the_app_that_it_stands_for_now(self, store):
        apps = [new_app(), new_app()]
        proxy = Proxy(lambda: apps[0])
        with closing(record_tasks(proxy, store)):
            task = apps[0].task(name="add")(nothing)
            apps.reverse()
            task.apply()

        assert store.count().value == 1

    def test_an_argument_that_is_not_boolean_is_refused(self, make_app, store):
        with pytest.raises(InvalidInput, match="eager"):
            make_app(store, eager="no")

    def test_an_unknown_option_is_refused(self, make_app, store):
        with pytest.raises(InvalidInput, match="retention"):
            make_app(store, retention="1 day")

    def test_importing_it_without_celery_says_what_to_install(self):
        code = "import sys; sys.modules['celery'] = None; import jobhistory.contrib.celery"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "pip install 'jobhistory[celery]'" in done.stderr


class TestAWorker:
    def test_it_records_with_its_node_name_and_queue(self, worker, store):
        sent = worker.tasks["add"].delay(1, b=2)
        worker.tasks["fail"].delay()
        records = {record.task_identifier: record for record in ended(store, 2)}

        assert records["add"].status == "completed"
        assert records["add"].job_id == sent.id
        assert records["add"].payload == {"args": [1], "kwargs": {"b": 2}}
        assert records["fail"].error_message == "no"
        for record in records.values():
            assert record.worker_id == worker.node_name
            assert record.labels["queue"] == worker.conf.task_default_queue
            assert 0 <= record.queue_time_ms < 10_000

    def test_a_retry_keeps_the_parent_and_counts(self, worker, store):
        result = worker.tasks["start"].delay()
        first, *others = ended(store, 3)

        assert [(record.attempt_number, record.will_retry) for record in others] == [
            (1, True),
            (2, False),
        ]
        assert {record.parent_id for record in others} == {first.id}
        assert {record.correlation_id for record in [first, *others]} == {result.id}

    def test_a_task_that_a_task_applies_is_left_by_the_same_worker_if_that_is_killed(
        self, worker, store
    ):
        worker.tasks["apply"].delay()
        outer, inner = ended(store, 2)

        assert outer.worker_id == inner.worker_id == worker.node_name
        assert inner.parent_id == outer.id

    def test_the_steps_of_a_chain_are_parents_of_each_other(self, worker, store):
        add = worker.tasks["add"]
        result = chain(add.s(1, 2), add.s(3), add.s(4)).delay()
        records = ended(store, 3)

        assert result.get(timeout=10) == 10
        assert [record.parent_id for record in records] == [None, records[0].id, records[1].id]
        assert len({record.correlation_id for record in records}) == 1

    def test_groups_and_chords_work(self, worker, store):
        add, total = worker.tasks["add"], worker.tasks["total"]
        group(add.s(1, 1), add.s(2, 2)).delay()
        ended(store, 2)
        result = chord([add.s(1, 1), add.s(2, 2)], total.s()).delay()
        records = ended(store, 5)

        assert result.get(timeout=10) == 6
        last = next(record for record in records if record.task_identifier == "total")
        assert last.parent_id in {record.id for record in records}
        marked = [record for record in records if "not_replayable" in record.labels]
        assert [record.task_identifier for record in marked] == ["add", "add"]

    def test_a_task_is_due_at_its_eta(self, worker, store):
        begun = time.monotonic()
        worker.tasks["add"].apply_async((1, 2), countdown=0.5)
        (record,) = ended(store, 1)

        assert record.queue_time_ms < (time.monotonic() - begun - 0.5) * 1000

    def test_it_belongs_to_the_trace_in_which_it_was_sent(self, worker, store):
        span = SpanContext(trace_id=7, span_id=8, is_remote=False, trace_flags=TraceFlags(1))
        with use_span(NonRecordingSpan(span)):
            worker.tasks["add"].delay(1, 2)
        (record,) = ended(store, 1)

        assert (int(record.trace_id, 16), int(record.span_id, 16)) == (7, 8)

    @pytest.mark.parametrize("protocol", [1, 2])
    def test_it_records_messages_of_both_protocols(self, worker, store, protocol, monkeypatch):
        monkeypatch.setattr(
            worker.amqp, "create_task_message", worker.amqp.task_protocols[protocol]
        )
        worker.tasks["fetch"].delay()
        records = ended(store, 2)

        assert [record.attempt_number for record in records] == [1, 2]
        assert len({record.job_id for record in records}) == 1

    @pytest.mark.parametrize("skipped", ["ignore", "record"])
    def test_what_never_began_is_recorded_only_on_request(self, worker, store, skipped):
        recorded = record_tasks(worker, store, skipped=skipped)
        heard = []

        def note(request, **_):
            heard.append(request.id)

        signals.task_revoked.connect(note)
        revoked = str(uuid4())
        revoked_tasks.add(revoked)
        worker.tasks["add"].apply_async((1, 2), task_id=revoked)
        late = datetime.now(UTC) - timedelta(seconds=1)
        expired = worker.tasks["add"].apply_async((1, 2), expires=late).id
        wait_for(lambda: set(heard) == {revoked, expired}, "both")
        signals.task_revoked.disconnect(note)
        recorded.close()

        assert sorted((record.status, record.error_message) for record in store.query()) == (
            [("cancelled", "expired"), ("cancelled", "revoked")] if skipped == "record" else []
        )

    def test_the_trace_is_that_which_opentelemetry_sends(self, worker, store):
        """Its instrumentation may begin the span of the task after we record its start."""
        trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        worker.tasks["fetch"].apply_async(headers={"traceparent": f"00-{trace}-{span}-01"})
        worker.tasks["add"].apply_async((1, 2), headers={"traceparent": "no"})
        records = ended(store, 3)

        assert {(each.task_identifier, each.trace_id, each.span_id) for each in records} == {
            ("fetch", trace, span),
            ("add", None, None),
        }


class TestMessages:
    @pytest.fixture
    def headers(self, app):
        """Return the header of each message that is sent."""
        seen = []

        def note(headers, **_):
            seen.append(headers[HEADER])

        signals.before_task_publish.connect(note)
        yield seen
        signals.before_task_publish.disconnect(note)

    def test_they_carry_the_execution_in_which_they_are_sent(self, app, store, headers):
        @app.task
        def add():
            pass

        add.delay()
        with store.track({"id": "1", "task_identifier": "web"}, "web-1", "request-7") as execution:
            add.delay()

        first, second = map(Carried.read, headers)
        assert (first.parent_id, first.correlation_id) == (None, None)
        assert (second.parent_id, second.correlation_id) == (execution.id, "request-7")
        assert abs(first.enqueued_at - datetime.now(UTC)) < timedelta(seconds=10)

    def test_copied_headers_do_not_pass_for_those_of_the_copy(self, app, store, headers):
        @app.task
        def add():
            pass

        old = {"parent_id": str(uuid4()), "id": "another", "replay_of": str(uuid4())}
        add.apply_async(headers={HEADER: old})

        assert Carried.read(headers[0]).parent_id is None
        assert Carried.read(headers[0]).replay_of is None

    def test_a_retry_whose_first_attempt_carries_nothing_gets_no_parent(self, app, store, headers):
        @app.task
        def add():
            pass

        with store.track({"id": "1", "task_identifier": "add"}, "worker"):
            add.apply_async(retries=1)

        assert Carried.read(headers[0]).parent_id is None


class TestChildrenThatAreLost:
    """What the main process of a worker hears of its children, by the signals that it sends."""

    @pytest.fixture
    def task(self, app):
        return app.task(name="work")(nothing)

    @pytest.fixture
    def received(self, app, task):
        """Receive a task as the main process does, and return its request."""

        class Request:
            def __init__(self, **values):
                self.id, self.task, self.hostname = "job-1", task, "main@host"
                self.time_start, self.worker_pid = datetime.now(UTC).timestamp(), 4711
                self.request_dict = {"id": "job-1", "root_id": "root-1", "retries": 2, "args": [1]}
                self.request_dict |= {"hostname": self.hostname, "kwargs": {}}
                self.on_reject = lambda *_: None

        request = Request()
        signals.task_received.send(sender=self.Consumer(app), request=request)
        return request

    class Consumer:
        def __init__(self, app):
            self.app, self.hostname = app, "main@host"

    def run(self, *arguments, **options):
        """Run the task as a child does, up to its end if there is one."""
        copy_context().run(self.run_here, *arguments, **options)

    def run_here(self, task, request, state="SUCCESS", retval=None):
        task.request_stack.push(Context(request.request_dict))
        try:
            signals.task_prerun.send(sender=task, task_id="job-1", task=task)
            if state is not None:
                signals.task_postrun.send(sender=task, task=task, state=state, retval=retval)
        finally:
            task.request_stack.pop()

    def fail(self, task, error):
        signals.task_failure.send(sender=task, task_id="job-1", exception=error)

    def test_the_row_that_the_child_began_is_lost(self, store, task, received):
        self.run(task, received, state=None)
        self.fail(task, WorkerLostError("signal 9"))

        record = only(store)
        assert (record.status, record.error_type) == ("failed", "jobhistory.WorkerLost")
        assert record.error_message == "signal 9"

    def test_a_row_whose_start_was_lost_too_is_inserted_whole(self, store, task, received):
        self.fail(task, WorkerLostError("signal 9"))

        record = only(store)
        assert record.error_type == "jobhistory.WorkerLost"
        assert (record.job_id, record.correlation_id) == ("job-1", "root-1")
        assert (record.worker_id, record.attempt_number) == ("main@host", 3)
        assert record.labels["pid"] == "4711"
        assert record.payload == {"args": [1], "kwargs": {}}

    def test_signals_that_come_twice_make_one_row(self, store, task, received):
        self.fail(task, TimeLimitExceeded(5))
        self.fail(task, TimeLimitExceeded(5))

        assert outcomes(store) == [(3, "failed", "jobhistory.TimedOut", None)]

    def test_the_outcome_of_the_child_stays(self, store, task, received):
        self.run(task, received)
        self.fail(task, WorkerLostError("signal 9"))

        assert outcomes(store) == [(3, "completed", None, None)]

    def test_an_outcome_of_the_child_that_comes_late_replaces_the_loss(self, store, task, received):
        self.fail(task, WorkerLostError("signal 9"))
        self.run(task, received, "FAILURE", ValueError("no"))

        assert outcomes(store) == [(3, "failed", "ValueError", False)]

    @pytest.mark.parametrize("hours", [-35, 1, 23, 505])
    def test_both_name_the_same_row_however_long_the_task_has_waited(
        self, store, task, received, hours
    ):
        chosen = new_execution_id(datetime.now(UTC) - timedelta(hours=hours))
        received.request_dict[HEADER]["execution_id"] = str(chosen)
        self.run(task, received, state=None)
        self.fail(task, WorkerLostError("signal 9"))

        assert outcomes(store) == [(3, "failed", "jobhistory.WorkerLost", None)]

    @pytest.mark.parametrize(("acknowledged", "will_retry"), [(True, None), (False, True)])
    def test_a_task_that_is_delivered_again_after_a_time_limit_will_be_retried(
        self, store, task, received, acknowledged, will_retry
    ):
        task.acks_late = True
        task.acks_on_failure_or_timeout = task.acks_on_timeout = acknowledged
        self.run(task, received, state=None)
        self.fail(task, TimeLimitExceeded(5))

        assert outcomes(store) == [(3, "failed", "jobhistory.TimedOut", will_retry)]

    def test_a_revoked_execution_is_cancelled(self, store, task, received):
        self.run(task, received, state=None)
        signals.task_revoked.send(
            sender=task, request=Context(received.request_dict), terminated=True, expired=False
        )

        assert outcomes(store) == [(3, "cancelled", None, None)]

    def test_a_worker_that_stops_cancels_what_it_runs(self, store, task, received):
        self.run(task, received, state=None)
        signals.task_retry.send(sender=task, request=Context(received.request_dict), einfo=None)

        assert outcomes(store) == [(3, "cancelled", None, None)]

    def test_a_retry_of_a_lost_task_is_a_loss_that_will_be_retried(self, store, task, received):
        self.run(task, received, state=None)
        signals.task_retry.send(
            sender=task,
            request=Context(received.request_dict),
            reason=CeleryRetry(exc=WorkerLostError("signal 9")),
        )

        assert outcomes(store) == [(3, "failed", "jobhistory.WorkerLost", True)]

    def test_a_loss_that_only_puts_the_message_back_will_be_retried(self, app, store, task):
        task.reject_on_worker_lost = True
        rejected = []

        class Request:
            id, hostname, time_start = "job-1", "main@host", 1.0

        request = Request()
        request.task, request.request_dict = task, {"id": "job-1"}
        request.on_reject = lambda *arguments: rejected.append(arguments)
        signals.task_received.send(sender=self.Consumer(app), request=request)
        request.time_start = datetime.now(UTC).timestamp()
        self.run(task, request, state=None)
        request.on_reject("logger", (), True)

        assert rejected == [("logger", (), True)]
        assert outcomes(store) == [(1, "failed", "jobhistory.WorkerLost", True)]

    def test_a_received_task_is_not_kept(self, app, store, task):
        class Request:
            id, hostname = "job-1", "main@host"

        for _ in range(100):
            request = Request()
            request.task, request.request_dict = task, {"id": "job-1"}
            task.reject_on_worker_lost = True
            request.on_reject = None
            signals.task_received.send(sender=self.Consumer(app), request=request)
        watched = ref(request)
        del request
        assert watched() is None


class Dawn(BaseSchedule):
    def __repr__(self):
        return "<at sunrise>"


class TestSchedules:
    def test_each_kind_of_entry_is_listed(self, make_app):
        app = make_app()
        app.conf.timezone = "Europe/Berlin"
        app.conf.beat_schedule = {
            "nightly": {"task": "report", "schedule": crontab(minute=17, hour=2)},
            "often": {"task": "poll", "schedule": crontab(minute="*/20", day_of_week="mon,fri")},
            "both": {"task": "bill", "schedule": crontab(0, 0, day_of_week=1, day_of_month=13)},
            "delta": {"task": "sync", "schedule": timedelta(minutes=5)},
            "seconds": {"task": "sync", "schedule": 30.0},
            "object": {"task": "sync", "schedule": schedule(run_every=60)},
            "dawn": {"task": "wake", "schedule": Dawn()},
        }
        found = {each.name: each for each in schedules(app)}

        assert {each.timezone for each in found.values()} == {"Europe/Berlin"}
        assert {name: each.cron for name, each in found.items() if each.cron} == {
            "nightly": "17 2 * * *",
            "often": "0,20,40 * * * 1,5",
        }
        assert {name: each.every for name, each in found.items() if each.every} == {
            "delta": timedelta(minutes=5),
            "seconds": timedelta(seconds=30),
            "object": timedelta(minutes=1),
        }
        assert found["nightly"].task_identifier == "report"
        assert "17 2" in found["nightly"].description
        assert "sunrise" in found["dawn"].description

    def test_periodic_tasks_that_the_app_adds_are_listed(self, make_app):
        app = make_app()

        @app.task(name="poll")
        def poll():
            pass

        @app.on_after_finalize.connect
        def set_up(sender, **_):
            sender.add_periodic_task(10.0, poll.s(), name="every 10 s")

        (found,) = schedules(app)
        assert (found.name, found.task_identifier) == ("every 10 s", "poll")
        assert found.timezone == "UTC"


class TestReplay:
    def replay(self, name, **values):
        carried = Carried(correlation_id="order-7", replay_of=UUID(int=7))
        values = {"args": [], "kwargs": {}, "queue": None} | values
        return Replay(task_identifier=name, correlation_id="order-7", carried=carried, **values)

    @pytest.mark.parametrize("knows_queue", [True, False])
    def test_the_new_task_is_recorded_as_a_replay(self, worker, store, knows_queue):
        queue = worker.conf.task_default_queue if knows_queue else None
        job_id = enqueue(worker, self.replay("ship", args=[7], kwargs={"by": "air"}, queue=queue))
        records = ended(store, 2)

        assert [record.payload for record in records] == [
            {"args": [7], "kwargs": {"by": "air"}}
        ] * 2
        assert [record.job_id for record in records] == [job_id, job_id]
        assert {record.correlation_id for record in records} == {"order-7"}
        assert {record.labels["replay_of"] for record in records} == {str(UUID(int=7))}
        assert all(0 <= record.queue_time_ms < 10_000 for record in records)

    def test_in_eager_mode_it_is_recorded_as_a_replay_as_well(self, app, store):
        app.conf.task_always_eager = True

        @app.task(name="ship")
        def ship():
            ship_one.apply()

        @app.task(name="ship-one")
        def ship_one():
            pass

        enqueue(app, self.replay("ship"))

        first, second = store.query(order="oldest")
        assert first.labels["replay_of"] == str(UUID(int=7))
        assert "replay_of" not in second.labels
        assert {first.correlation_id, second.correlation_id} == {"order-7"}

    def test_an_unknown_task_is_refused_with_what_the_app_has(self, app):
        app.task(name="ship")(nothing)

        with pytest.raises(InvalidInput, match="which has ship"):
            enqueue(app, self.replay("os.system"))

    def test_arguments_that_the_task_does_not_take_are_refused(self, app):
        app.task(name="ship")(take)

        with pytest.raises(TypeError, match="what"):
            enqueue(app, self.replay("ship"))

    def test_arguments_that_json_cannot_hold_are_not_exact(self, app, store):
        app.task(name="pay")(take).apply((Decimal("1.5"),))

        assert not only(store).payload_is_exact

    def test_history_replays_a_task_but_no_member_of_a_chord(self, worker, store):
        add, total = worker.tasks["add"], worker.tasks["total"]
        chord([add.s(1, 1)], total.s()).delay()
        member, body = ended(store, 2)

        with pytest.raises(NotReplayable, match="chord"):
            replay(store, worker, member.id)
        replayed = replay(store, worker, body.id)
        *_, last = ended(store, 3)

        assert last.job_id == replayed.job_id
        assert last.payload == body.payload
        assert last.correlation_id == body.correlation_id
        assert last.labels["replay_of"] == str(body.id)


def test_the_example_prints_what_it_recorded(tmp_path):
    program = Path(__file__).parents[2] / "examples" / "celery_app.py"
    done = subprocess.run(
        [sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines() == [
        "fetch_price, attempt 1: failed, will be tried again: the shop does not answer",
        "fetch_price, attempt 2: completed",
        "bill, attempt 1: completed",
        "fetch_price, attempt 1: failed, will be tried again: the shop does not answer",
        "fetch_price, attempt 2: completed",
        "bill, attempt 1: failed: there is no customer 17",
        "the arguments of the task that failed: [7, 17]",
    ]
