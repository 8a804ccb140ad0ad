"""Never run: type checkers read it, as they read an app that uses the library."""

# pyright: reportUnnecessaryTypeIgnoreComment=true
from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, Unpack, assert_type

from sqlalchemy import URL, create_engine, select
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)

import jobhistory
from jobhistory import (
    AsyncBaseStore,
    AsyncExecution,
    AsyncHistoryStore,
    AsyncRecorder,
    AsyncTrackedExecution,
    BaseStore,
    Count,
    Execution,
    ExecutionAlreadyFinished,
    Failure,
    FailureGroup,
    HistoryQuery,
    HistoryRecord,
    HistoryStore,
    Job,
    Limits,
    LogContext,
    NotReplayable,
    Page,
    PartialResults,
    Percentiles,
    Recorder,
    RecorderCounts,
    Status,
    TaskStats,
    TimedOut,
    TrackedExecution,
    WorkerActivity,
    create_async_store,
    create_store,
    current_execution,
    log_context,
)
from jobhistory.contrib.replay import (
    Replayed,
    Replays,
    replay,
    replay_all,
    replay_all_async,
    replay_async,
)
from jobhistory.typing import Criteria

engine = create_engine("sqlite:///app.db")
assert_type(create_store(), HistoryStore)
create_store("sqlite:///app.db", buffer_size=10, history_retention="12h", prepare=False)
create_store(URL.create("postgresql"), history_retention=None, redact=None)
create_store(engine, history_retention=timedelta(days=1), limits=Limits(payload=2048))
create_store(engine, labels={"release": "1.4"})
create_store(engine, labels={"release": 1.4})  # type: ignore[dict-item]
store = create_store(sessionmaker(engine), clock=lambda: datetime.now(UTC), schema="audit")
HistoryStore(lambda: Session(engine))
create_store(42)  # type: ignore[arg-type]
create_store(partial(Session, engine))
create_store(lambda: Session(engine))
create_store(Session)
create_store(lambda: 42)  # type: ignore[arg-type, return-value]


def mask(key: str, value: Any) -> Any:
    return None if key == "iban" else value


create_store(redact=mask)

record = store.record_start(Job(1, "send_email"), "worker", uuid.uuid4(), history_retention="1 day")
assert_type(record, HistoryRecord)
assert_type(record.id, uuid.UUID)
assert_type(record.status, Status)
assert_type(record.started_at, datetime)
assert_type(record.completed_at, datetime | None)
assert_type(record.execution_time_ms, int | None)
assert_type(record.completed_steps, list[str] | None)
store.record_start({"id": "1", "task_identifier": "t"}, 7, 8)
store.record_start(Job(1, "t", labels={"tenant": "acme"}), "w", "c", parent_id=record.id)
store.record_start(Job(1, "t"), "w", "c", traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
store.record_start(Job(1, "t"), "w", "c", parent_id="job-1")  # type: ignore[arg-type]


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    task_identifier: Mapped[str]


@dataclass(frozen=True)
class QueuedJob:
    id: uuid.UUID
    task_identifier: str


class Message(NamedTuple):
    id: str
    task_identifier: str


store.record_start(Order(id=1, task_identifier="t"), 7, 8)
store.begin(QueuedJob(uuid.uuid4(), "t"), 7)
for share in (0, 1, 0.01):
    store.begin(Job(1, "t"), 7, record=share)
store.track(Job(1, "t"), 7, record="failures")
store.begin(Job(1, "t"), 7, record="some")  # type: ignore[arg-type]
store.record_execution(job_id=1, error="no answer", record="failures")
create_store(random=lambda: 0.5)
create_store(random=lambda: "0.5")  # type: ignore[arg-type, return-value]
store.track(Message("1", "t"), 7)
store.record_start(17, 7, 8)  # type: ignore[arg-type]
store.begin("nightly", 7)  # type: ignore[arg-type]
store.track(Base(), 7)  # type: ignore[arg-type]
store.track(lambda number: 17, 7)  # type: ignore[arg-type, return-value]

assert_type(store.record_completion("1", "w", "c", 12.5), HistoryRecord)
assert_type(store.record_completion(record), HistoryRecord)
assert_type(store.record_completion(record, execution_time_ms=5, result=[1]), HistoryRecord)
assert_type(store.record_completion(execution_id=record.id), HistoryRecord)
store.record_completion(record, "w", "c")  # type: ignore[call-overload]
store.record_completion("1", execution_id=record.id)  # type: ignore[call-overload]
store.record_completion("1", "w")  # type: ignore[call-overload]
store.record_completion()  # type: ignore[call-overload]
store.record_failure("1", "w", "c", error="text")
store.record_failure(record, error=ValueError(), execution_time_ms=timedelta(seconds=1))
store.record_failure(execution_id=record.id, error="text", will_retry=True)
store.record_failure(record)  # type: ignore[call-overload]
store.record_failure("1", "w", "c", 12)  # type: ignore[call-overload]
store.record_partial_success(record, partial_results={"failed_steps": ["upload"]})
store.record_cancellation(record, reason="revoked")
store.record_cancellation(execution_id=record.id)
assert_type(store.record_failure("1", "w", "c", 12, ValueError()), HistoryRecord)
store.record_failure("1", "w", "c", 12, "text")
store.record_failure("1", "w", "c", 12, 42)  # type: ignore[call-overload]
store.record_failure("1", "w", "c", 12, Failure("ValueError", "no", None), will_retry=True)
store.record_failure("1", "w", "c", 12, TimedOut(), will_retry="yes")  # type: ignore[call-overload]
assert_type(store.record_cancellation("1", "w", "c", 12, reason="revoked"), HistoryRecord)
store.record_cancellation("1", "w", "c", reason=ValueError())  # type: ignore[call-overload]
store.record_completion("1", "w", "c", 12, result={"width": 7})
store.record_partial_success("1", "w", "c", 12, {"failed_steps": ["upload"]})
store.record_partial_success("1", "w", "c", 12, PartialResults(completed_steps=["download"]))

store.observe(record)
store.observe({"job_id": "1"})
assert_type(store.recent(3), list[HistoryRecord])
assert_type(store.get(record.id), HistoryRecord | None)
store.get("1")  # type: ignore[arg-type]
assert_type(store.get_by_job_id(1), list[HistoryRecord])
store.get_by_correlation_id("c", limit=5)
assert_type(store.get_by_correlation_id("c"), list[HistoryRecord])
assert_type(store.query(HistoryQuery(status="failed"), limit=3), list[HistoryRecord])
page = store.page({"status": "failed"}, after=None, limit=3)
assert_type(page, Page)
assert_type(page.records, list[HistoryRecord])
assert_type(list(page), list[HistoryRecord])
assert_type(len(page), int)
store.query(order=None)
assert_type(page.next_cursor, str | None)
assert_type(store.iterate(order="oldest", batch_size=10), Iterator[HistoryRecord])
assert_type(store.count(cap=5), Count)
assert_type(store.count().value, int)
assert_type(int(store.count()), int)
store.count() + 1  # type: ignore[operator]
assert_type(store.stats(bucket=timedelta(hours=1)), list[TaskStats])
assert_type(store.stats(exact=True)[0].is_exact, bool)
assert_type(store.stats()[0].lost, int)
assert_type(store.count(expired=True, status="failed"), Count)
assert_type(store.stats()[0].failure_rate, float | None)
assert_type(store.stats()[0].attempt_failure_rate, float | None)
assert_type(store.stats()[0].to_dict(), dict[str, Any])
assert_type(record.to_dict(), dict[str, Any])
assert_type(store.count().to_dict(), dict[str, Any])
assert_type(page.to_dict(), dict[str, Any])
assert_type(store.stats()[0].execution_time_ms, Percentiles)
assert_type(store.failure_groups(from_=datetime.now(UTC)), list[FailureGroup])
assert_type(store.failure_groups()[0].example, HistoryRecord)
assert_type(store.failure_groups(known_for="7 days")[0].is_new, bool | None)
assert_type(store.running(), list[HistoryRecord])
assert_type(store.workers(from_=datetime.now(UTC), limit=5), list[WorkerActivity])
assert_type(store.workers()[0].last_seen, datetime)
HistoryQuery(order="oldest", error_contains="x", min_execution_time_ms=5, job_id=uuid.uuid4())
HistoryQuery(order="sideways")  # type: ignore[arg-type]
store.query({"from": datetime.now(UTC)})
store.query(worker_id=["w", 5], worker_id_starts_with="host-1:", min_attempt=2)
store.query(
    labels={"tenant": "acme"}, parent_id=record.id, trace_id="4bf92f3577b34da6a3ce929d0e0e4736"
)
store.query(labels={"tenant": 5})  # type: ignore[dict-item]
store.query(statsu="failed")  # type: ignore[call-arg]
store.query(limit="5")  # type: ignore[arg-type]
store.page(worker=5)  # type: ignore[call-arg]
store.iterate(limit=5)  # type: ignore[call-arg]
with store.follow(status="failed", last=10, interval="1s") as changes:
    assert_type(next(changes), HistoryRecord)
store.follow(limit=5)  # type: ignore[call-arg]
store.count(order="oldest")  # type: ignore[call-arg]
store.stats(limit=5)  # type: ignore[call-arg]
store.failure_groups(status="failed")  # type: ignore[call-arg]
store.running(order="newest")  # type: ignore[call-arg]
store.workers(status="failed")  # type: ignore[call-arg]


def failed(**criteria: Unpack[Criteria]) -> list[HistoryRecord]:
    return store.query({"status": "failed"}, **criteria)


failed(task_identifier=["a"], status=Status.FAILED, limit=None)
HistoryQuery(status=[Status.FAILED, "started"], task_identifier={"a", "b"}, worker_id=5)
HistoryQuery(state="failed")  # type: ignore[call-arg]
assert_type(store.expire(batch_size=10, time_limit="1 minute", progress=print), int)

with store as same:
    assert_type(same, HistoryStore)

try:
    store.query()
except ExecutionAlreadyFinished as finished:
    assert_type(finished.record, HistoryRecord)

assert_type(jobhistory.migrate.current(engine), str | None)
with engine.begin() as connection:
    jobhistory.migrate.upgrade(connection, schema="audit")
with Session(engine) as session:
    assert_type(session.scalars(select(HistoryRecord)).one(), HistoryRecord)

assert_type(store.record_execution(record, status="completed"), HistoryRecord)
assert_type(store.record_execution(job_id=1, error=ValueError()), HistoryRecord)
store.record_execution(jobb_id=3)  # type: ignore[call-arg]
assert_type(store.record_many([record, {"job_id": 1}]), int)
assert_type(store.purge(task_identifier="a", labels={"tenant": "acme"}, dry_run=True), int)
assert_type(store.purge({"job_id": "1"}, batch_size=10, progress=print), int)
assert_type(store.reap_lost("2h", task_identifier=["a"], worker_id=5), int)

with Session(engine) as session:
    assert_type(store.in_session(session), BaseStore)
    assert_type(store.in_session(session).record_completion("1", "w", "c", 1), HistoryRecord)


def count_with_either_kind_of_store(history: BaseStore) -> Count:
    return history.count()


count_with_either_kind_of_store(store)
count_with_either_kind_of_store(store.in_session(session))
store.in_session(scoped_session(sessionmaker(engine)))


class AppSession(Session):
    """A subclass, as Flask-SQLAlchemy has one."""


app_session: scoped_session[AppSession] = scoped_session(sessionmaker(engine, class_=AppSession))
store.in_session(app_session)
store.in_session(app_session())
store.in_session(engine)  # type: ignore[arg-type]

begun = store.begin(Job(1, "t"), "worker", execution_id=uuid.uuid4())
assert_type(begun, Execution)
assert_type(begun.record, HistoryRecord)
begun.end(ValueError(), execution_time_ms=timedelta(seconds=1))
begun.end(partial_results={"failed_steps": ["upload"]})
begun.end(result=[1])
begun.end(Failure("ValueError", "no"), will_retry=True)
begun.end(42)  # type: ignore[arg-type]

with store.track(Job(1, "t"), "worker") as execution:
    assert_type(execution, TrackedExecution)
    execution.partial_success(PartialResults(failed_steps=["upload"]))
    execution.set_result({"width": 7})
    execution.set_will_retry(True)
    assert_type(execution.id, uuid.UUID)
store.track(Job(1, "t"), "worker", on_history_error="ignore")  # type: ignore[arg-type]
assert_type(current_execution(), TrackedExecution | None)


@store.track(lambda number: Job(number, "t"), "worker", "request-1")
def double(number: int) -> int:
    return number * 2


@store.track(Job(1, "t"), "worker", on_history_error="raise", history_retention="1 day")
async def triple(number: int) -> int:
    return number * 3


assert_type(double(2), int)
double("2")  # type: ignore[arg-type]


async def use_asyncio() -> None:
    async_engine = create_async_engine("sqlite+aiosqlite:///app.db")
    sessions = async_sessionmaker(async_engine)
    create_async_store(engine)  # type: ignore[arg-type]
    create_async_store(partial(AsyncSession, create_async_engine("sqlite+aiosqlite://")))
    create_async_store(lambda: Session(engine))  # type: ignore[arg-type, return-value]
    AsyncHistoryStore(lambda: AsyncSession(async_engine))
    create_async_store()
    create_async_store("sqlite:///app.db", buffer_size=5)
    async with create_async_store(sessions, history_retention="12h") as history:
        assert_type(history.iterate(status="failed"), AsyncIterator[HistoryRecord])
        assert_type((await history.page(limit=2)).records, list[HistoryRecord])
        assert_type(await history.count(cap=5), Count)
        assert_type(history, AsyncHistoryStore)
        assert_type(await history.record_start(Job(1, "t"), "w", "c"), HistoryRecord)
        assert_type(await history.record_cancellation("1", "w", "c"), HistoryRecord)
        assert_type(await history.query(status="failed"), list[HistoryRecord])
        await history.query(statsu="failed")  # type: ignore[call-arg]
        await history.record_execution(jobb_id=3)  # type: ignore[call-arg]
        history.iterate(limit=5)  # type: ignore[call-arg]
        async with history.follow(task_identifier="a") as changes:
            async for change in changes:
                assert_type(change, HistoryRecord)
        assert_type(await history.expire(), int)
        assert_type(await history.purge(job_id=1), int)
        begun = await history.begin(Job(1, "t"), "w", on_history_error="raise")
        with log_context(begun):
            logging.getLogger().addFilter(LogContext(missing=None))
        assert_type(begun, AsyncExecution)
        await begun.end("no file")
        async with history.track(Job(1, "t"), "w") as execution:
            assert_type(execution, AsyncTrackedExecution)
            await execution.progress(0.5)
        async with sessions() as session:
            assert_type(history.in_session(session), AsyncBaseStore)
            assert_type(await history.in_session(session).record_completion(record), HistoryRecord)
        history.in_session(async_scoped_session(sessions, asyncio.current_task))
        await history.record_completion(record, "w", "c")  # type: ignore[call-overload]
        assert_type(history.recent(3), list[HistoryRecord])
        history.observe({"job_id": "1"})
        async with AsyncRecorder(history, when_full="raise") as recorder:
            assert_type(await history.metrics(recorder=recorder, max_tasks=10), str)
            await recorder.record_start(Job(1, "t"), "w", "c", execution_id=uuid.uuid4())
            assert_type(await recorder.begin(Job(1, "t"), "w"), AsyncExecution)
        AsyncRecorder(store)
        AsyncRecorder(engine)  # type: ignore[arg-type]
    assert_type(await triple(2), int)


with Recorder(store, when_full="raise", spool="spool.db", max_delay=0.1) as recorder:
    assert_type(store.metrics(recorder=recorder), str)
    recorder.record_start(Job(1, "t"), "w", "c", history_retention="1 day")
    recorder.record_failure(1, "w", "c", 12.5, ValueError(), will_retry=False)
    recorder.record_cancellation(1, "w", "c", 12.5, reason="revoked")
    assert_type(recorder.begin(Job(1, "t"), "w"), Execution)
    recorder.record_completion(record)
    recorder.record_execution({"job_id": 1}, status="completed")
    recorder.flush(timeout=5)
    assert_type(recorder.counts, RecorderCounts)
    assert_type(recorder.counts.waiting, int)
Recorder(store, when_full="drop")  # type: ignore[arg-type]

app: Any = object()
assert_type(replay(store, app, record.id), Replayed)
assert_type(replay(store, lambda job: job.task_identifier, record.id).job_id, str | None)
replays = replay_all(store, app, status="failed", from_=datetime.now(UTC), limit=5, dry_run=True)
assert_type(replays.refused, list[NotReplayable])
replay_all(store, app, {"status": "failed"}, force=True)
replay_all(store, app, state="failed")  # type: ignore[call-arg]
replay_all(store, app, status="failed", order="newest")  # type: ignore[call-arg]
replay(store, app, "1")  # type: ignore[arg-type]
replay(create_async_store(), app, record.id)  # type: ignore[arg-type]


async def again(history: AsyncHistoryStore) -> None:
    assert_type(await replay_async(history, app, record.id), Replayed)
    assert_type(await replay_all_async(store, app, status="failed"), Replays)
