"""Replay: which jobs are enqueued again, with what, and which are refused."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import uuid
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.orm import Session

from jobhistory import (
    ExecutionNotFound,
    HistoryStore,
    InvalidInput,
    Job,
    Limits,
    NotReplayable,
    Recorder,
    create_async_store,
    create_store,
    new_execution_id,
)
from jobhistory.contrib.jobs import NOT_REPLAYABLE
from jobhistory.contrib.replay import (
    Replayed,
    replay,
    replay_all,
    replay_all_async,
    replay_async,
)
from jobhistory.schema import TABLE
from tests.facades import Synchronous

KINDS = [
    *("memory", "sqlite", "postgresql", "url-postgresql"),
    *("postgresql_by_psycopg2", "postgresql_as_app"),
    *("async-memory", "async-sqlite", "async-postgresql", "async-postgresql_by_asyncpg"),
]
on_every_store = pytest.mark.parametrize("make_store", KINDS, indirect=True)
on_some_stores = pytest.mark.parametrize("make_store", ["sqlite", "async-memory"], indirect=True)

ARGUMENTS = {"args": [1, "two", None], "kwargs": {"deep": {"list": [1.5, True]}}}


class Queue:
    """A queue of another framework: its function is the app."""

    def __init__(self):
        self.jobs = []
        self.before = lambda job: None

    def enqueue(self, job):
        self.before(job)
        self.jobs.append(job)
        return f"new-{len(self.jobs)}"

    async def enqueue_async(self, job):
        await asyncio.sleep(0)
        return self.enqueue(job)


@pytest.fixture
def queue():
    return Queue()


@pytest.fixture
def history(make_store, event_loop_thread):
    """A store of each kind, and the functions that replay its executions."""

    def make(**options):
        store = make_store(**options)
        if isinstance(store, Synchronous):
            run, own = event_loop_thread.run, store._store
            return SimpleNamespace(
                store=store,
                replay=lambda *args, **named: run(replay_async(own, *args, **named)),
                replay_all=lambda *args, **named: run(replay_all_async(own, *args, **named)),
            )
        return SimpleNamespace(
            store=store,
            replay=functools.partial(replay, store),
            replay_all=functools.partial(replay_all, store),
        )

    history = make()
    history.make = make
    return history


def attempt(store, job_id="1", error="boom", payload=ARGUMENTS, *, task="resize", **named):
    """Record one attempt at a job; return its id."""
    labels = named.pop("labels", {"queue": "fast"})
    number = named.pop("number", 1)
    job = Job(job_id, task, payload, attempts=number, labels=labels)
    execution = store.begin(job, "w", "request-1")
    execution.end(error, **named)
    return execution.id


def refused(history, app, id_, **named):
    with pytest.raises(NotReplayable) as caught:
        history.replay(app, id_, **named)
    assert caught.value.record.id == id_
    assert caught.value.reason in str(caught.value)
    return caught.value.reason


def labels(history, id_):
    return history.store.get(id_).labels or {}


@on_every_store
def test_a_replay_enqueues_the_same_arguments_with_the_same_correlation_id(history, queue, clock):
    id_ = attempt(history.store)

    replayed = history.replay(queue.enqueue, id_)

    (job,) = queue.jobs
    assert (job.task_identifier, job.args, job.kwargs) == (
        "resize",
        [1, "two", None],
        {"deep": {"list": [1.5, True]}},
    )
    assert (job.correlation_id, job.queue) == ("request-1", "fast")
    assert (job.carried.correlation_id, job.carried.replay_of) == ("request-1", id_)
    assert job.carried.enqueued_at is not None
    assert job.carried.parent_id is None
    assert replayed.job_id == "new-1"
    assert replayed.record.id == id_
    assert replayed.record.labels == history.store.get(id_).labels
    assert labels(history, id_) == {"queue": "fast", "replayed_at": clock.now.isoformat()}


@on_every_store
@pytest.mark.parametrize("labels_before", [None, {"a": "b"}, {f"l{n}": "x" for n in range(16)}])
def test_only_the_label_of_an_execution_changes(history, queue, labels_before):
    id_ = attempt(history.store, labels=labels_before)
    before = history.store.get(id_).to_dict()

    history.replay(queue.enqueue, id_)

    after = history.store.get(id_).to_dict()
    assert after["labels"].pop("replayed_at")
    assert after | {"labels": after["labels"] or None} == before


@on_every_store
def test_an_execution_is_replayed_once_unless_forced(history, queue, clock):
    id_ = attempt(history.store)
    history.replay(queue.enqueue, id_)
    first = clock.now.isoformat()
    clock.advance(hours=1)

    assert f"replayed at {first}" in refused(history, queue.enqueue, id_)
    assert len(queue.jobs) == 1

    history.replay(queue.enqueue, id_, force=True)
    assert len(queue.jobs) == 2
    assert labels(history, id_)["replayed_at"] == clock.now.isoformat()


@on_every_store
def test_the_label_is_written_before_the_job_and_removed_if_there_is_none(history, queue):
    id_ = attempt(history.store, labels=None)

    def fail(job):
        seen.append(replay_is_refused())
        raise ConnectionError("no broker")

    def replay_is_refused():
        # Not by this thread, which may be that of the event loop.
        result = []
        thread = threading.Thread(target=lambda: result.append(labels(history, id_)))
        thread.start()
        thread.join(20)
        return "replayed_at" in result[0]

    seen = []
    queue.before = fail
    with pytest.raises(ConnectionError, match="no broker"):
        history.replay(queue.enqueue, id_)
    assert seen == [True]
    assert history.store.get(id_).labels is None

    queue.before = lambda job: None
    assert history.replay(queue.enqueue, id_).job_id == "new-1"


@on_every_store
def test_a_forced_replay_that_fails_leaves_the_label_of_the_earlier_one(history, queue, clock):
    id_ = attempt(history.store)
    history.replay(queue.enqueue, id_)
    before = labels(history, id_)
    clock.advance(hours=1)

    def fail(job):
        raise ConnectionError("no broker")

    queue.before = fail
    with pytest.raises(ConnectionError):
        history.replay(queue.enqueue, id_, force=True)
    assert labels(history, id_) == before


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_a_replay_that_is_interrupted_counts_as_one(plain_store, queue, interrupt):
    """Nobody knows whether the job was enqueued, and twice would be worse than never."""
    id_ = attempt(plain_store)

    def die(job):
        raise interrupt

    queue.before = die
    with pytest.raises(interrupt):
        replay(plain_store, queue.enqueue, id_)
    queue.before = lambda job: None

    with pytest.raises(NotReplayable, match="replayed at"):
        replay(plain_store, queue.enqueue, id_)
    assert replay(plain_store, queue.enqueue, id_, force=True).job_id == "new-1"


def test_the_label_is_in_no_index():
    """So the update that adds it is heap-only."""
    indexed = {column.name for index in TABLE.indexes for column in index.columns}
    assert "labels" not in indexed


@on_every_store
def test_a_dry_run_checks_and_changes_nothing(history, queue):
    id_ = attempt(history.store)

    assert history.replay(queue.enqueue, id_, dry_run=True).job_id is None
    assert queue.jobs == []
    assert "replayed_at" not in labels(history, id_)

    history.replay(queue.enqueue, id_)
    assert "replayed at" in refused(history, queue.enqueue, id_, dry_run=True)


@on_every_store
def test_an_execution_that_runs_is_refused_even_if_forced(history, queue):
    execution = history.store.begin(Job("1", "resize", ARGUMENTS), "w")

    assert "still running" in refused(history, queue.enqueue, execution.id, force=True)
    assert queue.jobs == []
    assert history.store.get(execution.id).labels is None
    execution.end()
    assert history.replay(queue.enqueue, execution.id).job_id == "new-1"


def test_an_execution_whose_adapter_says_so_is_refused_even_if_forced(plain_store, queue):
    job = Job("1", "resize", ARGUMENTS, labels={NOT_REPLAYABLE: "it is part of a chord"})
    execution = plain_store.begin(job, "w")
    execution.end(ValueError("boom"))

    with pytest.raises(NotReplayable, match="it is part of a chord"):
        replay(plain_store, queue.enqueue, execution.id, force=True)
    assert queue.jobs == []


@on_some_stores
@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (None, "were not recorded"),
        ({"args": ["x"], "kwargs": {"password": "hunter2"}}, "redacted"),
        ({"args": ["password=hunter2"], "kwargs": {}}, "redacted"),
        ({"args": ["x" * 5000], "kwargs": {}}, "too large"),
        ({"args": [["x"] * 5000], "kwargs": {}}, "too large"),
        ({"args": [(1, 2)], "kwargs": {}}, "JSON cannot hold"),
        ({"args": [1e16], "kwargs": {}}, "JSON cannot hold"),
        ({"n": 1}, "not of the form"),
        ({"args": {}, "kwargs": {}}, "not of the form"),
        ({"args": [], "kwargs": []}, "not of the form"),
        ({"args": [], "kwargs": {}, "queue": "fast"}, "not of the form"),
        (["--all"], "not of the form"),
    ],
)
def test_arguments_that_are_not_known_exactly_are_refused_even_if_forced(
    history, queue, payload, why
):
    history = history.make(limits=Limits(payload=1024))
    id_ = attempt(history.store, payload=payload)

    assert why in refused(history, queue.enqueue, id_)
    assert why in refused(history, queue.enqueue, id_, force=True)
    assert queue.jobs == []


def test_arguments_of_which_nobody_knows_whether_they_are_exact_are_refused(plain_store, queue):
    record = plain_store.get(attempt(plain_store))
    record = plain_store.record_execution(
        record, id=new_execution_id(record.started_at), job_id="2", payload_is_exact=None
    )

    with pytest.raises(NotReplayable, match="unknown"):
        replay(plain_store, queue.enqueue, record.id, force=True)


@on_every_store
def test_an_attempt_that_the_queue_repeats_is_refused_unless_forced(history, queue):
    id_ = attempt(history.store, will_retry=True)

    assert "will try it again" in refused(history, queue.enqueue, id_)
    assert history.replay(queue.enqueue, id_, force=True).job_id == "new-1"


@on_every_store
def test_an_attempt_that_is_not_the_newest_is_refused_unless_forced(history, queue, clock):
    lost = attempt(history.store)
    clock.advance(seconds=1)
    later = attempt(history.store, error=None)
    attempt(history.store, task="a job of another framework with the same id")

    why = refused(history, queue.enqueue, lost)
    assert str(later) in why
    assert "completed" in why
    assert history.replay(queue.enqueue, lost, force=True).job_id == "new-1"
    assert history.replay(queue.enqueue, later).job_id == "new-2"


@on_every_store
def test_an_unknown_execution_is_an_error(history, queue):
    with pytest.raises(ExecutionNotFound, match="expired"):
        history.replay(queue.enqueue, uuid.uuid4())
    with pytest.raises(InvalidInput, match="execution_id"):
        history.replay(queue.enqueue, "1")


@on_every_store
def test_a_replayed_execution_gets_a_real_outcome_in_place_of_a_lost_worker(history, queue, clock):
    execution = history.store.begin(Job("1", "resize", ARGUMENTS), "w")
    clock.advance(hours=3)
    history.store.reap_lost("2h")
    history.replay(queue.enqueue, execution.id)

    execution.end()

    record = history.store.get(execution.id)
    assert record.status == "completed"
    assert "replayed_at" in record.labels


@on_every_store
def test_a_replayed_record_can_be_copied_to_another_history(history, queue):
    id_ = attempt(history.store, labels={f"l{n}": "x" for n in range(16)})
    record = history.replay(queue.enqueue, id_).record

    other = create_store()
    other.record_many([record])
    assert other.get(id_).labels == record.labels
    with pytest.raises(InvalidInput, match="more than 16"):
        attempt(other, labels={f"l{n}": "x" for n in range(17)})


@on_some_stores
def test_an_app_may_change_the_arguments_of_the_job(history, queue):
    def change(job):
        job.args.append("more")
        job.kwargs["_carried"] = "x"

    queue.before = change
    replayed = history.replay(queue.enqueue, attempt(history.store))

    assert replayed.record.payload == ARGUMENTS


# -- by criteria


@on_every_store
def test_all_replays_failed_jobs_oldest_first(history, queue, clock):
    ids = []
    for number in range(5):
        ids.append(attempt(history.store, str(number)))
        clock.advance(seconds=1)
    attempt(history.store, "fine", error=None)
    attempt(history.store, "another", task="other")

    replays = history.replay_all(queue.enqueue, status="failed", task_identifier="resize")

    assert [each.record.id for each in replays.replayed] == ids
    assert [each.job_id for each in replays.replayed] == [f"new-{n}" for n in range(1, 6)]
    assert [job.carried.replay_of for job in queue.jobs] == ids
    assert replays.refused == []


@on_every_store
def test_a_dry_run_of_all_returns_the_same_and_changes_nothing(history, queue, clock):
    attempt(history.store, "1")
    attempt(history.store, "2", payload=None)

    dry = history.replay_all(queue.enqueue, status="failed", dry_run=True)

    assert queue.jobs == []
    assert all("replayed_at" not in (each.labels or {}) for each in history.store.query())
    done = history.replay_all(queue.enqueue, status="failed")
    assert [each.record.id for each in dry.replayed] == [each.record.id for each in done.replayed]
    assert [each.reason for each in dry.refused] == [each.reason for each in done.refused]
    assert [each.job_id for each in dry.replayed] == [None]


@on_every_store
def test_one_refusal_does_not_stop_the_others(history, queue, clock):
    for number in range(4):
        attempt(history.store, str(number), payload=None if number == 1 else ARGUMENTS)
        clock.advance(seconds=1)

    def fail(job):
        if job.carried.replay_of == third.id:
            raise InvalidInput("task_identifier", job.task_identifier, "is unknown to this app")

    third = next(record for record in history.store.query() if record.job_id == "2")
    queue.before = fail
    replays = history.replay_all(queue.enqueue, status="failed")

    assert [each.record.job_id for each in replays.replayed] == ["0", "3"]
    assert [each.record.job_id for each in replays.refused] == ["1", "2"]
    assert "were not recorded" in replays.refused[0].reason
    assert "cannot be enqueued: task_identifier 'resize' is unknown" in replays.refused[1].reason
    assert "replayed_at" not in labels(history, third.id)


@on_some_stores
def test_the_reason_of_a_refusal_contains_no_password(history, queue):
    def fail(job):
        raise ConnectionError("amqp://guest:hunter2@broker/ refused the connection")

    attempt(history.store)
    queue.before = fail
    (refused,) = history.replay_all(queue.enqueue, status="failed").refused

    assert "amqp://guest:[redacted]@broker/ refused the connection" in refused.reason
    assert "hunter2" not in str(refused)


@on_every_store
def test_each_job_is_taken_once_by_its_newest_attempt(history, queue, clock):
    attempt(history.store, "fails for good", number=1, will_retry=True)
    attempt(history.store, "succeeds at last", number=1, will_retry=True)
    attempt(history.store, "was lost and redelivered")
    attempt(history.store, "still has a try", number=1, will_retry=True)
    clock.advance(seconds=1)
    last = attempt(history.store, "fails for good", number=2)
    attempt(history.store, "succeeds at last", number=2, error=None)
    attempt(history.store, "was lost and redelivered", error=None)

    replays = history.replay_all(queue.enqueue, status="failed", force=True)

    assert [each.record.id for each in replays.replayed] == [last]
    assert replays.refused == []


@on_every_store
def test_all_ends_although_the_new_jobs_fail_at_once(history, queue, clock):
    attempt(history.store, "first")

    def run(job):
        # As a worker would, in another thread.
        clock.advance(seconds=1)
        thread = threading.Thread(
            target=attempt, args=(history.store, f"new-{len(queue.jobs) + 1}")
        )
        thread.start()
        thread.join(20)

    queue.before = run
    replays = history.replay_all(queue.enqueue, status="failed", limit=None)

    assert [each.record.job_id for each in replays.replayed] == ["first"]


@on_every_store
def test_the_limit_counts_jobs_that_are_enqueued(history, queue, clock):
    for number in range(6):
        attempt(history.store, str(number))
        clock.advance(seconds=1)

    first = history.replay_all(queue.enqueue, status="failed", limit=2)
    second = history.replay_all(queue.enqueue, status="failed", limit=2)

    assert [each.record.job_id for each in first.replayed] == ["0", "1"]
    assert [each.record.job_id for each in second.replayed] == ["2", "3"]
    assert [each.record.job_id for each in second.refused] == ["0", "1"]


@on_every_store
def test_criteria_choose_executions_as_in_a_query(history, queue, clock):
    attempt(history.store, "too early")
    clock.advance(hours=1)
    wanted = attempt(history.store, "1", labels={"tenant": "acme"})
    attempt(history.store, "2", labels={"tenant": "other"})

    replays = history.replay_all(
        queue.enqueue,
        {"status": "failed", "from": clock.now},
        labels={"tenant": "acme"},
        correlation_id="request-1",
    )
    assert [each.record.id for each in replays.replayed] == [wanted]


@on_some_stores
@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({}, "status None would also repeat the jobs that succeeded"),
        ({"task_identifier": "resize"}, "status"),
        ({"status": "failed", "order": "newest"}, "order"),
        ({"status": "failed", "nope": 1}, "nope"),
        ({"status": "failed", "limit": 0}, "limit"),
    ],
)
def test_criteria_that_cannot_be_used_are_refused(history, queue, named, message):
    attempt(history.store)
    with pytest.raises(InvalidInput, match=message):
        history.replay_all(queue.enqueue, **named)
    assert queue.jobs == []


@on_some_stores
def test_an_error_of_history_tells_what_was_done_before(history, queue, monkeypatch, clock):
    for number in range(3):
        attempt(history.store, str(number))
        clock.advance(seconds=1)

    def lose_the_database(job):
        if queue.jobs:
            monkeypatch.setattr(history.store.internals.history, "find", lambda *_: 1 / 0)

    queue.before = lose_the_database
    with pytest.raises(ZeroDivisionError) as caught:
        history.replay_all(queue.enqueue, status="failed")
    assert caught.value.__notes__ == ["2 jobs were replayed before this error"]


# -- races


def concurrently(*functions):
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def check_that_one_enqueues(stores):
    ids = [attempt(stores[0], str(number)) for number in range(5)]
    barrier, refusals, enqueued = threading.Barrier(len(stores), timeout=30), [], []

    def run(store):
        barrier.wait()
        for id_ in ids:
            try:
                replay(store, lambda job: enqueued.append(job.carried.replay_of), id_)
            except NotReplayable as error:
                refusals.append(error)

    concurrently(*(functools.partial(run, store) for store in stores))
    assert sorted(enqueued) == sorted(ids)
    assert len(refusals) == len(ids) * (len(stores) - 1)


def test_of_concurrent_replays_one_enqueues_the_job(database):
    check_that_one_enqueues([create_store(database.engine) for _ in range(6)])


def test_of_concurrent_replays_one_enqueues_the_job_in_memory():
    check_that_one_enqueues([create_store()] * 6)


def test_concurrent_runs_by_criteria_enqueue_each_job_once(database, queue):
    store = create_store(database.engine)
    ids = [attempt(store, str(number)) for number in range(20)]
    enqueued, replayed = [], []

    def run():
        own = create_store(database.engine)
        replays = replay_all(
            own, lambda job: enqueued.append(job.carried.replay_of) or "new", status="failed"
        )
        replayed.extend(each.record.id for each in replays.replayed)

    concurrently(*[run] * 4)
    assert sorted(enqueued) == sorted(replayed) == sorted(ids)


def test_an_execution_whose_row_may_not_be_updated_is_refused(postgres_database, queue):
    """Such as under row-level security with a policy for UPDATE that leaves it out."""
    database = postgres_database
    id_, role = attempt(create_store(database.engine)), f"reader_{uuid.uuid4().hex[:8]}"
    engine = create_engine(database.url)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(f"SET ROLE {role}"))
    with database.engine.begin() as connection:
        for statement in (
            f"CREATE ROLE {role}",
            f"GRANT SELECT, UPDATE ON job_history TO {role}",
            "ALTER TABLE job_history ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY all_may_read ON job_history FOR SELECT USING (true)",
            "CREATE POLICY none_may_update ON job_history FOR UPDATE USING (false)",
        ):
            connection.execute(text(statement))
    try:
        with pytest.raises(NotReplayable, match="replayed_at cannot be written"):
            replay(create_store(engine), queue.enqueue, id_, force=True)
    finally:
        engine.dispose()
        with database.engine.begin() as connection:
            for statement in (
                "ALTER TABLE job_history DISABLE ROW LEVEL SECURITY",
                "DROP POLICY all_may_read ON job_history",
                "DROP POLICY none_may_update ON job_history",
                f"DROP OWNED BY {role}",
                f"DROP ROLE {role}",
            ):
                connection.execute(text(statement))
    assert queue.jobs == []


def test_an_outcome_that_is_not_committed_is_refused(queue):
    """A store in memory shows it before the commit of the caller's transaction."""
    store, engine = create_store(), create_engine("sqlite://")
    with Session(engine) as session:
        session.execute(text("SELECT 1"))
        execution = store.in_session(session).begin(Job("1", "resize", ARGUMENTS), "w")
        execution.end("boom")
        with pytest.raises(NotReplayable, match="its outcome is committed"):
            replay(store, queue.enqueue, execution.id)
        session.commit()
    engine.dispose()

    assert replay(store, queue.enqueue, execution.id).job_id == "new-1"


# -- apps


def test_a_replay_inside_of_an_execution_is_its_child(plain_store, queue):
    id_ = attempt(plain_store)
    with plain_store.track(Job("repair", "repair"), "w") as execution:
        replay(plain_store, queue.enqueue, id_)

    (job,) = queue.jobs
    assert job.carried.parent_id == execution.id
    assert job.carried.correlation_id == "request-1"


class CallableTask:
    """Like the tasks of most frameworks, it would run if it was called."""

    def __call__(self, replay):
        raise AssertionError


@pytest.mark.parametrize("app", [object(), None, "app", 5, Queue, CallableTask(), [], {}])
def test_an_app_that_no_adapter_is_for_is_refused_with_a_list_of_those(plain_store, app):
    id_ = attempt(plain_store)
    with pytest.raises(InvalidInput, match=r"Celery.* RQ.* Dramatiq.* Taskiq.* Huey.* Django"):
        replay(plain_store, app, id_)
    with pytest.raises(InvalidInput, match="app"):
        asyncio.run(replay_async(plain_store, app, id_))
    assert plain_store.get(id_).labels == {"queue": "fast"}


def test_a_generator_function_is_refused_because_it_enqueues_nothing(plain_store):
    def enqueue(job):
        yield "new"

    async def enqueue_async(job):
        yield "new"

    id_ = attempt(plain_store)
    for app in (enqueue, enqueue_async):
        with pytest.raises(InvalidInput, match="generator"):
            replay(plain_store, app, id_)
    assert plain_store.get(id_).labels == {"queue": "fast"}


def test_a_coroutine_function_can_enqueue_in_one_event_loop_for_all(plain_store):
    loops = set()

    async def enqueue(job):
        loops.add(asyncio.get_running_loop())
        return 7

    for number in range(3):
        attempt(plain_store, str(number))
    replays = replay_all(plain_store, enqueue, status="failed")

    assert [each.job_id for each in replays.replayed] == ["7"] * 3
    assert len(loops) == 1


@pytest.mark.parametrize("is_declared", [True, False])
def test_in_an_event_loop_coroutines_need_the_functions_for_asyncio(
    plain_store, queue, is_declared
):
    id_ = attempt(plain_store)
    app = queue.enqueue_async if is_declared else lambda job: queue.enqueue_async(job)

    async def main():
        with pytest.raises(InvalidInput, match="replay_async or replay_all_async"):
            replay(plain_store, app, id_)
        return await replay_async(plain_store, app, id_)

    assert asyncio.run(main()).job_id == "new-1"


@on_every_store
@pytest.mark.parametrize("is_async", [True, False])
def test_both_kinds_of_functions_work_with_each_store(history, queue, is_async):
    ids = [attempt(history.store, str(number)) for number in range(3)]
    app = queue.enqueue_async if is_async else queue.enqueue

    assert history.replay(app, ids[0]).job_id == "new-1"
    replays = history.replay_all(app, status="failed")
    assert {each.job_id for each in replays.replayed} == {"new-2", "new-3"}
    assert [each.record.id for each in replays.refused] == [ids[0]]


def test_the_functions_for_asyncio_take_plain_stores_and_do_not_block(plain_store, queue):
    ids = [attempt(plain_store, str(number)) for number in range(3)]
    loop_thread = threading.get_ident()
    queue.before = lambda job: threads.add(threading.get_ident())
    threads = set()

    async def main():
        await replay_async(plain_store, queue.enqueue, ids[0])
        return await replay_all_async(plain_store, queue.enqueue, status="failed")

    replays = asyncio.run(main())
    assert len(replays.replayed) == 2
    assert len(replays.refused) == 1
    assert loop_thread not in threads


def test_a_cancelled_task_finishes_the_replay_that_it_has_begun(plain_store, queue):
    id_ = attempt(plain_store)
    begun, go_on = threading.Event(), threading.Event()

    def wait(job):
        begun.set()
        assert go_on.wait(20)

    queue.before = wait

    async def main():
        task = asyncio.create_task(replay_async(plain_store, queue.enqueue, id_))
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        await asyncio.sleep(0.01)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert len(queue.jobs) == 1
    assert "replayed_at" in plain_store.get(id_).labels


def test_stores_that_cannot_be_used_are_refused(queue):
    store, id_ = create_store(), uuid.uuid4()
    with pytest.raises(InvalidInput, match="await replay_async"):
        replay(create_async_store(), queue.enqueue, id_)
    with Recorder(store) as recorder, pytest.raises(InvalidInput, match="create_store"):
        replay(recorder, queue.enqueue, id_)
    with pytest.raises(InvalidInput, match="neither a HistoryStore nor an AsyncHistoryStore"):
        asyncio.run(replay_async(5, queue.enqueue, id_))
    assert isinstance(store, HistoryStore)


def test_a_label_that_cannot_be_removed_is_logged(plain_store, queue, caplog, monkeypatch):
    id_ = attempt(plain_store)
    history = plain_store.internals.history

    def fail(job):
        monkeypatch.setattr(history, "exchange_label", lambda *_: 1 / 0)
        raise ConnectionError("no broker")

    queue.before = fail
    with caplog.at_level(logging.ERROR), pytest.raises(ConnectionError):
        replay(plain_store, queue.enqueue, id_)
    assert "label replayed_at could not be removed" in caplog.text


def test_the_results_name_what_was_done(plain_store, queue):
    attempt(plain_store)
    (replayed,) = replay_all(plain_store, queue.enqueue, status="failed").replayed
    assert isinstance(replayed, Replayed)
    assert replayed.record.job_id == "1"
