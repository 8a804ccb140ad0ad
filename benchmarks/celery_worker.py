"""A Celery worker of the benchmarks, and what is compared: results in Django's database, and spans.

`JOBHISTORY_BENCHMARK` tells the worker which way to record, and where: it is a JSON object.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from celery import Celery
from kombu import Queue
from sqlalchemy import make_url

from benchmarks.peers import configure_django

_QUEUE_SECONDS = 600
_SECONDS = 120.0

RESULTS, OTEL = "django-celery-results", "OpenTelemetry"
VARIABLE = "JOBHISTORY_BENCHMARK"


def with_django_results(app: Celery, url: str) -> None:
    """Let an app keep its results in the database by django-celery-results."""
    configure_django(make_url(url))
    app.conf.update(result_backend="django-db", result_extended=True, task_track_started=True)


@contextmanager
def instrumented() -> Iterator[None]:
    """Make a span of each task, in batches that are exported to nowhere."""
    from opentelemetry.instrumentation.celery import CeleryInstrumentor
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    CeleryInstrumentor().instrument(tracer_provider=provider)
    try:
        yield
        provider.force_flush()
    finally:
        CeleryInstrumentor().uninstrument()
        provider.shutdown()


def new_app(broker: str, queue: str) -> Celery:
    """Return an app with an empty task, and two that tell when a turn begins and ends."""
    app = Celery("benchmark", broker=broker, set_as_current=False)
    app.conf.update(
        task_queues=[Queue(queue, routing_key=queue, expires=_QUEUE_SECONDS)],
        task_default_queue=queue,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
    )

    @app.task(name="nothing")
    def nothing() -> None:
        """Do nothing."""

    @app.task(name="wait")
    def wait(path: str) -> None:
        wait_for(path)

    @app.task(name="signal")
    def signal(path: str) -> None:
        Path(path).touch()

    return app


def wait_for(path: str) -> None:
    """Wait until a file exists."""
    end = monotonic() + _SECONDS
    while not os.path.exists(path):
        if monotonic() > end:
            raise TimeoutError(f"nobody has made {path}")
        sleep(0.0005)


def _worker_app(way: str, url: str, sqlite: str, broker: str, queue: str) -> Celery:
    """Return the app of a worker that records in one way."""
    from jobhistory import Recorder, create_store

    app = new_app(broker, queue)
    if way == RESULTS:
        with_django_results(app, url)
    elif way == OTEL:
        from celery.signals import worker_process_init

        context = instrumented()
        worker_process_init.connect(lambda **_: context.__enter__(), weak=False)
    elif way != "alone":
        from jobhistory.contrib.celery import record_tasks

        place = sqlite if way.endswith("SQLite") else url
        if way.endswith("Recorder"):
            record_tasks(app, lambda: Recorder(create_store(place)))
        else:
            record_tasks(app, create_store(place))
    return app


if VARIABLE in os.environ:
    app = _worker_app(**json.loads(os.environ[VARIABLE]))
