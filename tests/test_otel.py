"""Executions as spans and metrics of OpenTelemetry."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from contextvars import copy_context
from datetime import timedelta

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from jobhistory import (
    Cancelled,
    InvalidInput,
    Job,
    Recorder,
    create_async_store,
    create_store,
    new_execution_id,
)
from jobhistory.contrib import otel
from jobhistory.watch import watch_with

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


class Telemetry:
    """What the SDK has received."""

    def __init__(self):
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def instrument(self, **options):
        otel.instrument(tracer_provider=self.tracers, meter_provider=self.meters, **options)

    @property
    def spans(self):
        return {span.attributes["jobhistory.job.id"]: span for span in self.own_spans}

    @property
    def own_spans(self):
        return [each for each in self.exporter.get_finished_spans() if each.name != "app"]

    def points(self, name):
        """Return the points of a metric, by their labels in alphabetical order."""
        data = self.reader.get_metrics_data()
        return {
            tuple(value for _, value in sorted(point.attributes.items())): point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        }


@pytest.fixture
def telemetry():
    telemetry = Telemetry()
    telemetry.instrument()
    yield telemetry
    otel.uninstrument()
    telemetry.tracers.shutdown()
    telemetry.meters.shutdown()


@pytest.fixture
def memory(clock):
    return create_store(clock=clock)


def test_a_completed_execution(telemetry, plain_store, clock):
    job = Job("1", "import", attempts=2, run_at=clock.now - timedelta(seconds=3))
    with plain_store.track(job, "w", "request-7"):
        pass

    (record,) = plain_store.query()
    (span,) = telemetry.own_spans
    assert (span.name, span.kind, span.parent) == ("run import", SpanKind.CONSUMER, None)
    assert dict(span.attributes) == {
        "jobhistory.task": "import",
        "jobhistory.job.id": "1",
        "jobhistory.execution.id": str(record.id),
        "jobhistory.execution.attempt": 2,
        "jobhistory.correlation_id": "request-7",
        "jobhistory.queue_time": 3.0,
        "jobhistory.status": "completed",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == span.links == ()
    duration = telemetry.points("jobhistory.execution.duration")["completed", "import"]
    assert duration.count == 1
    assert duration.sum == record.execution_time_ms / 1000
    assert duration.explicit_bounds[:2] == (0.01, 0.05)
    assert telemetry.points("jobhistory.queue_time")["import",].sum == 3.0
    assert telemetry.points("jobhistory.execution.active")["import",].value == 0


def test_a_failed_one_and_one_that_is_cancelled(telemetry, memory):
    def fail(job_id, error, will_retry=False):
        memory.begin(Job(job_id, "t"), "w").end(error, will_retry=will_retry)

    fail("failed", TimeoutError("password=hunter2"))
    fail("retried", TimeoutError(), will_retry=True)
    fail("cancelled", Cancelled("stopped"))
    memory.begin(Job("partial", "t"), "w").end(partial_results={"failed_steps": ["a"]})

    failed, cancelled = telemetry.spans["failed"], telemetry.spans["cancelled"]
    assert failed.attributes["error.type"] == "TimeoutError"
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, None)
    assert failed.events == ()
    assert "hunter2" not in failed.to_json()
    assert telemetry.spans["retried"].attributes["jobhistory.status"] == "retried"
    assert cancelled.status.status_code is StatusCode.UNSET
    assert "error.type" not in cancelled.attributes
    assert telemetry.points("jobhistory.execution.duration").keys() == {
        ("TimeoutError", "failed", "t"),
        ("TimeoutError", "retried", "t"),
        ("cancelled", "t"),
        ("partial_success", "t"),
    }


def test_what_runs(telemetry, memory):
    execution = memory.begin(Job("1", "t"), "w")
    assert telemetry.points("jobhistory.execution.active")["t",].value == 1

    execution.end()
    execution.end()
    assert telemetry.points("jobhistory.execution.active")["t",].value == 0
    assert len(telemetry.own_spans) == 1


def test_the_span_is_current_in_a_tracked_block(telemetry, memory):
    tracer = telemetry.tracers.get_tracer("app")
    with tracer.start_as_current_span("app") as around:
        with memory.track(Job("outer", "t"), "w"), memory.track(Job("inner", "t"), "w"):
            memory.begin(Job("begun", "t"), "w").end()
        assert trace.get_current_span() is around
    assert trace.get_current_span() is trace.INVALID_SPAN

    spans = telemetry.spans
    ids = {name: span.context.span_id for name, span in spans.items()}
    assert {name: span.parent.span_id for name, span in spans.items()} == {
        "outer": around.get_span_context().span_id,
        "inner": ids["outer"],
        "begun": ids["inner"],
    }
    assert not any(span.links for span in spans.values())


def test_an_execution_in_no_trace_has_the_ids_of_its_span(telemetry, plain_store):
    with plain_store.track(Job("1", "t"), "w"):
        pass

    (record,) = plain_store.query()
    own = telemetry.own_spans[0].context
    assert record.trace_id == f"{own.trace_id:032x}"
    assert record.span_id == f"{own.span_id:016x}"


def test_a_link_to_what_enqueued_the_job(telemetry, memory):
    with memory.track(Job("1", "t"), "w", traceparent=TRACEPARENT):
        pass

    (span,) = telemetry.own_spans
    (link,) = span.links
    assert span.parent is None
    assert f"{link.context.trace_id:032x}" == TRACE_ID
    assert f"{link.context.span_id:016x}" == SPAN_ID
    assert memory.recent()[0].trace_id == TRACE_ID


def test_decorated_functions(telemetry, memory):
    @memory.track(lambda number: Job(number, "t"), "w")
    def work(number):
        return trace.get_current_span().get_span_context().span_id

    seen = [work("1"), work("2")]
    assert seen == [telemetry.spans[name].context.span_id for name in ("1", "2")]


@pytest.mark.parametrize("make_store", [create_store, create_async_store])
def test_coroutines(telemetry, make_store):
    store = make_store()
    seen = {}

    @store.track(lambda name, *_: Job(name, "t"), "w")
    async def work(name, started, other):
        started.set()
        await other.wait()
        seen[name] = trace.get_current_span().get_span_context().span_id
        if name == "b":
            raise KeyError(name)

    async def both():
        a, b = asyncio.Event(), asyncio.Event()
        await asyncio.gather(work("a", a, b), work("b", b, a), return_exceptions=True)
        assert trace.get_current_span() is trace.INVALID_SPAN

    asyncio.run(both())
    assert seen == {name: span.context.span_id for name, span in telemetry.spans.items()}
    assert telemetry.spans["b"].attributes["error.type"] == "KeyError"
    assert telemetry.points("jobhistory.execution.active")["t",].value == 0


def test_a_function_that_returns_an_awaitable(telemetry, memory):
    async def wait():
        return trace.get_current_span().get_span_context().span_id

    tracked = memory.track(Job("1", "t"), "w")(lambda: wait())
    seen = asyncio.run(tracked())

    assert seen == telemetry.own_spans[0].context.span_id


def test_begin_and_end_for_asyncio(telemetry):
    async def main():
        store = create_async_store()
        execution = await store.begin(Job("1", "t"), "w")
        assert trace.get_current_span() is trace.INVALID_SPAN
        await execution.end(ValueError("x"))

    asyncio.run(main())
    assert telemetry.own_spans[0].attributes["error.type"] == "ValueError"


def test_executions_of_a_recorder_and_those_that_are_only_counted(telemetry, memory):
    with Recorder(memory) as recorder:
        with recorder.track(Job("1", "t"), "w"):
            pass
        recorder.begin(Job("2", "t"), "w", record="failures").end()

    assert telemetry.spans.keys() == {"1", "2"}
    assert memory.query()[0].trace_id is not None


def test_a_block_that_is_left_in_another_context(telemetry, memory):
    tracker = memory.track(Job("1", "t"), "w")
    copy_context().run(tracker.__enter__)
    tracker.__exit__(None, None, None)

    assert trace.get_current_span() is trace.INVALID_SPAN
    assert len(telemetry.own_spans) == 1


def test_an_execution_that_cannot_begin(telemetry, memory):
    id_ = new_execution_id(memory.internals.rows.now())
    memory.record_start(Job("1", "t"), "w", "c", execution_id=id_)
    with pytest.raises(InvalidInput), memory.track(Job("2", "t"), "w", execution_id=id_):
        pass

    (span,) = telemetry.own_spans
    assert span.status.status_code is StatusCode.ERROR
    assert telemetry.points("jobhistory.execution.active")["t",].value == 0
    assert telemetry.points("jobhistory.execution.duration") == {}


def test_metrics_of_few_tasks_and_types_of_errors(telemetry, memory):
    telemetry.instrument(max_tasks=2)
    for task in ("a", "b", "c", "a", "d"):
        memory.begin(Job(task, task), "w").end(type(f"Error{task}", (Exception,), {})())

    tasks = {key[-1] for key in telemetry.points("jobhistory.execution.duration")}
    types = {key[0].rpartition(".")[2] for key in telemetry.points("jobhistory.execution.duration")}
    assert tasks == {"a", "b", "_other"}
    assert types == {"Errora", "Errorb", "_other"}
    assert [span.name for span in telemetry.own_spans][2] == "run _other"
    assert telemetry.spans["c"].attributes["jobhistory.task"] == "c"


def test_nothing_is_made_without_instrumentation(telemetry, memory):
    running = memory.begin(Job("1", "t"), "w")
    otel.uninstrument()
    with memory.track(Job("2", "t"), "w"):
        assert trace.get_current_span() is trace.INVALID_SPAN
    running.end()

    assert telemetry.spans.keys() == {"1"}
    assert {record.job_id for record in memory.recent() if record.trace_id} == {"1"}


def test_without_an_sdk_nothing_happens(memory):
    otel.instrument()
    try:
        with memory.track(Job("1", "t"), "w"):
            pass
    finally:
        otel.uninstrument()

    assert memory.recent()[0].trace_id is None


class _Broken:
    def __getattr__(self, name):
        def broken(*args):
            raise OSError(f"{name} password=hunter2")

        return broken


@pytest.mark.parametrize("make_watch", [lambda row: _Broken(), lambda row: 1 / 0])
def test_what_watches_never_breaks_a_job(memory, caplog, make_watch):
    watch_with(make_watch)
    try:
        with caplog.at_level(logging.ERROR), memory.track(Job("1", "t"), "w"):
            pass
    finally:
        watch_with(None)

    assert memory.recent()[0].status == "completed"
    assert "not watched any more" in caplog.text
    assert "hunter2" not in caplog.text


def test_an_interruption_of_what_watches_does_not_lose_the_outcome(memory):
    class Interrupted(_Broken):
        def enter(self):
            pass

        leave = enter

        def end(self, outcome):
            raise KeyboardInterrupt

    watch_with(lambda row: Interrupted())
    try:
        with pytest.raises(KeyboardInterrupt), memory.track(Job("1", "t"), "w"):
            pass
    finally:
        watch_with(None)

    assert memory.recent()[0].status == "completed"


def test_the_number_of_tasks_is_checked():
    with pytest.raises(InvalidInput, match="max_tasks -1 is not a whole number"):
        otel.instrument(max_tasks=-1)


def test_the_extra_is_named_if_it_is_missing():
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "try:\n    import jobhistory.contrib.otel\n"
        "except ModuleNotFoundError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "jobhistory.contrib.otel requires pip install 'jobhistory[otel]'\n"
