"""Traces and metrics of executions, through the API of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

try:
    from opentelemetry import context, trace
    from opentelemetry.metrics import MeterProvider, get_meter
    from opentelemetry.trace import (
        Link,
        SpanContext,
        SpanKind,
        StatusCode,
        TraceFlags,
        TracerProvider,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "jobhistory.contrib.otel requires pip install 'jobhistory[otel]'", name=error.name
    ) from error

from jobhistory._runtime.fork import ForkSafeLock
from jobhistory.errors import check_count
from jobhistory.execution.status import Status
from jobhistory.statistics.prometheus import LIMITS_MS, OTHER
from jobhistory.watch import watch_with

_NAME = "jobhistory"
_SECONDS = [limit / 1000 for limit in LIMITS_MS]


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    max_tasks: int = 200,
) -> None:
    """Make a span and metrics for each execution that begins in this process from now on.

    It is for executions of `track`, of `begin`, and of adapters, in any store. Call it once, when
    the process starts, after the SDK is configured. Errors of OpenTelemetry never reach a job.

    A span is named `run TASK`, of the kind CONSUMER. It is a child of the current span, and in a
    tracked block it is the current span. If the execution has another `traceparent`, the span has a
    link to that. Its status is an error if the execution fails. Exceptions are not recorded: their
    messages may hold secrets, and history has them, redacted. If an execution is in no trace, its
    record gets the ids of the span.

    Args:
        tracer_provider, meter_provider: where spans and metrics go; by default, the global ones.
        max_tasks: the number of tasks that have metrics of their own, first come, first served. The
            others together are the task `_other`. The same limit applies to types of errors.

    Raises:
        InvalidInput: if `max_tasks` is not a whole number from 0 up.
    """
    check_count(max_tasks, "max_tasks", least=0, example=200)
    watch_with(_Telemetry(tracer_provider, meter_provider, max_tasks).watch)


def uninstrument() -> None:
    """Make no more spans and metrics. Executions that run end as they began."""
    watch_with(None)


class _Limited:
    """Lets only a number of different values pass. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()
        self._lock = ForkSafeLock()

    def __call__(self, value: str) -> str:
        with self._lock:
            if value not in self._known and len(self._known) < self._most:
                self._known.add(value)
            return value if value in self._known else OTHER


class _Telemetry:
    """The tracer and the instruments."""

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        max_tasks: int,
    ) -> None:
        self.tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider)
        meter = get_meter(_NAME, meter_provider=meter_provider)
        self.duration = meter.create_histogram(
            "jobhistory.execution.duration",
            unit="s",
            description="How long executions ran.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.queue_time = meter.create_histogram(
            "jobhistory.queue_time",
            unit="s",
            description="How long executions waited in a queue.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self.active = meter.create_up_down_counter(
            "jobhistory.execution.active",
            unit="{execution}",
            description="Executions that run.",
        )
        self.task = _Limited(max_tasks)
        self.error_type = _Limited(max_tasks)

    def watch(self, row: dict[str, Any]) -> _Watched:
        """Begin to watch the execution of a row, which gets the ids of its span if it has none."""
        return _Watched(self, row)


class _Watched:
    """The span and the metrics of one execution."""

    def __init__(self, telemetry: _Telemetry, row: dict[str, Any]) -> None:
        self._telemetry = telemetry
        self._task = {"jobhistory.task": telemetry.task(row["task_identifier"])}
        self._has_ended = False
        self._outside: Any = None
        self._span = telemetry.tracer.start_span(
            f"run {self._task['jobhistory.task']}",
            kind=SpanKind.CONSUMER,
            links=_links(row),
            attributes=_attributes(row),
        )
        _join_trace(row, self._span.get_span_context())
        telemetry.active.add(1, self._task)
        if row["queue_time_ms"] is not None:
            telemetry.queue_time.record(row["queue_time_ms"] / 1000, self._task)

    def enter(self) -> None:
        """Make the span the current one."""
        self._outside = context.get_current()
        context.attach(trace.set_span_in_context(self._span))

    def leave(self) -> None:
        """Make the span around this one the current one again."""
        # No token, because a fixture may have entered the block in another context.
        if self._outside is not None and trace.get_current_span() is self._span:
            context.attach(self._outside)

    def end(self, outcome: Mapping[str, Any] | None) -> None:
        """End the span, and count the outcome."""
        if self._has_ended:
            return
        self._has_ended = True
        self._telemetry.active.add(-1, self._task)
        if outcome is None:
            self._span.set_status(StatusCode.ERROR, "it could not begin")
        else:
            self._count(outcome)
        self._span.end()

    def _count(self, outcome: Mapping[str, Any]) -> None:
        is_failed = outcome["status"] == Status.FAILED
        is_retried = is_failed and outcome.get("will_retry")
        status = "retried" if is_retried else Status(outcome["status"]).value
        labels = self._task | {"jobhistory.status": status}
        self._span.set_attribute("jobhistory.status", status)
        if is_failed:
            error_type = outcome.get("error_type") or OTHER
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(StatusCode.ERROR)
            labels["error.type"] = self._telemetry.error_type(error_type)
        milliseconds = outcome.get("execution_time_ms")
        if milliseconds is not None:
            self._telemetry.duration.record(milliseconds / 1000, labels)


def _attributes(row: Mapping[str, Any]) -> dict[str, Any]:
    attributes = {
        "jobhistory.task": row["task_identifier"],
        "jobhistory.job.id": row["job_id"],
        "jobhistory.execution.id": str(row["id"]),
        "jobhistory.execution.attempt": row["attempt_number"],
        "jobhistory.correlation_id": row["correlation_id"],
    }
    if row["queue_time_ms"] is not None:
        attributes["jobhistory.queue_time"] = row["queue_time_ms"] / 1000
    return attributes


def _links(row: Mapping[str, Any]) -> list[Link]:
    """Return a link to the span that the row names, unless that is the parent."""
    if row.get("trace_id") is None:
        return []
    producer = SpanContext(
        int(row["trace_id"], 16),
        int(row["span_id"], 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    parent = trace.get_current_span().get_span_context()
    is_parent = (parent.trace_id, parent.span_id) == (producer.trace_id, producer.span_id)
    return [] if is_parent else [Link(producer)]


def _join_trace(row: dict[str, Any], own: SpanContext) -> None:
    if row.get("trace_id") is None and own.is_valid and own.trace_flags.sampled:
        row["trace_id"], row["span_id"] = f"{own.trace_id:032x}", f"{own.span_id:016x}"
