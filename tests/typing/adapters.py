"""Never run: type checkers read it, as they read apps that use the adapters."""

# pyright: reportUnnecessaryTypeIgnoreComment=true
from __future__ import annotations

from typing import Any, assert_type

import rq
from arq.connections import RedisSettings
from dramatiq.brokers.stub import StubBroker
from procrastinate import App
from procrastinate.testing import InMemoryConnector
from taskiq import InMemoryBroker

from jobhistory import AsyncRecorder, Recorder, create_async_store, create_store
from jobhistory.contrib import apscheduler as for_apscheduler
from jobhistory.contrib import arq as for_arq
from jobhistory.contrib import celery as for_celery
from jobhistory.contrib import dramatiq as for_dramatiq
from jobhistory.contrib import huey as for_huey
from jobhistory.contrib import procrastinate as for_procrastinate
from jobhistory.contrib import rq as for_rq
from jobhistory.contrib import taskiq as for_taskiq
from jobhistory.contrib.adapter import Options, Schedule

store, async_store = create_store(), create_async_store()
untyped: Any = object()  # these frameworks come without types

options: Options = {"only": ["resize"], "history_retention": "90 days", "result": True}
recorded = for_celery.record_tasks(untyped, store, eager=False, **options)
assert_type(recorded, for_celery.RecordedTasks)
assert_type(for_celery.schedules(untyped), list[Schedule])
for_celery.record_tasks(untyped, lambda: Recorder(store))
for_celery.record_tasks(untyped, async_store)  # type: ignore[arg-type]
for_celery.record_tasks(untyped, store, ony=["resize"])  # type: ignore[call-arg]
for_celery.record_tasks(untyped, store, skipped="drop")  # type: ignore[arg-type]

for_huey.record_tasks(untyped, store, correlation_id=lambda task: task.id).close()
for_apscheduler.record_jobs(untyped, store, log_tail="16 KiB").close()


class Worker(for_rq.RecordsJobs, rq.Worker):
    history = store
    history_options = {"skip": {"ping"}}  # noqa: RUF012 - users write it without an annotation


class Queue(for_rq.CarriesHistory, rq.Queue):
    replayable = ["shop.tasks.*", print]  # noqa: RUF012


StubBroker().add_middleware(for_dramatiq.JobHistory(store, payload=False))
InMemoryBroker().with_middlewares(for_taskiq.JobHistory(async_store, heartbeat="10s"))
App(
    connector=InMemoryConnector(),
    worker_defaults={"worker_middleware": [for_procrastinate.record_jobs(async_store)]},
)


@for_arq.record_jobs(lambda: AsyncRecorder(async_store), worker_id="worker-1")
class WorkerSettings:
    redis_settings = RedisSettings()


assert_type(WorkerSettings.redis_settings, RedisSettings)
