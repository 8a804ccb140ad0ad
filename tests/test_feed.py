"""Each execution enters the queue of the statistics when it ends, once, whoever ends it."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from contextlib import closing, suppress
from datetime import timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine, delete, func, select, text
from sqlalchemy.orm import Session, sessionmaker

from jobhistory import (
    AsyncRecorder,
    HistoryRecord,
    Job,
    JobHistoryError,
    Recorder,
    Status,
    create_async_store,
    create_store,
    migrate,
    new_execution_id,
)
from jobhistory.rollup_schema import ENDED
from jobhistory.schema import Base
from tests.conftest import EVERY_STORE, as_role, async_engine
from tests.recorders import Gate
from tests.test_branches import LAYOUTS
from tests.test_sampling import Queue, only

pytestmark = pytest.mark.statistics

JOB = Job("job-1", "ping")
IDS = ("job-1", "w", "c")
FIELDS = {
    "job_id": "job-1",
    "worker_id": "w",
    "correlation_id": "c",
    "task_identifier": "ping",
}
LOST = "jobhistory.WorkerLost"

in_databases = pytest.mark.parametrize(
    "make_store", [each for each in EVERY_STORE if "memory" not in str(each)], indirect=True
)


@pytest.fixture
def queue(request):
    """The queue in the database of the store under test."""
    kind = request.node.callspec.params.get("make_store")
    if kind is None:
        return Queue(request.getfixturevalue("database").engine)
    return Queue(request.getfixturevalue(f"shared_{kind.rpartition('-')[2]}").owner)


def entry(record, **others):
    """The row of the queue for an execution that has ended."""
    return {
        "task_identifier": record.task_identifier,
        "status": record.status.value,
        "will_retry": record.will_retry,
        "is_lost": record.error_type == LOST,
        "is_stored": True,
        "weight": 1,
        "started_at": record.started_at,
        "completed_at": record.completed_at,
        "queue_time_ms": record.queue_time_ms,
        "execution_time_ms": record.execution_time_ms,
    } | others


def taken_back(record):
    """The row of the queue that takes back a count. It has no times."""
    none = dict.fromkeys(("completed_at", "queue_time_ms", "execution_time_ms"))
    return entry(record, weight=-1, **none)


# Every way to end an execution.


def start(store, clock, **options):
    job = {"id": "job-1", "task_identifier": "ping", "run_at": clock() - timedelta(seconds=2)}
    record = store.record_start(job, "w", "c", **options)
    clock.advance(seconds=1)
    return record


def started(end):
    """A way that ends an execution which has been recorded at its start."""

    def way(store, clock):
        record = start(store, clock)
        return lambda: end(store, record)

    return way


def raise_in_track(store):
    tracked = store.track(JOB, "w")

    @tracked
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def ended_at_once(store, clock):
    id_ = new_execution_id(clock())
    return lambda: store.record_execution(FIELDS, status="completed", execution_id=id_)


def upsert(store, clock):
    id_ = start(store, clock, execution_id=new_execution_id(clock())).id
    return lambda: store.record_execution(
        FIELDS, status="failed", error="no", execution_time_ms=3, execution_id=id_
    )


def begin(store, clock):
    execution = store.begin(JOB, "w")
    clock.advance(seconds=1)
    return execution.end


def reap(store, clock):
    start(store, clock)
    clock.advance(hours=2)
    return lambda: store.reap_lost("1h")


REPEATABLE = {
    "completion": started(lambda store, _: store.record_completion(*IDS, 5)),
    "failure": started(lambda store, _: store.record_failure(*IDS, 5, "no")),
    "retried failure": started(lambda s, _: s.record_failure(*IDS, 5, "no", will_retry=True)),
    "partial success": started(
        lambda s, _: s.record_partial_success(*IDS, 5, {"failed_steps": ["pong"]})
    ),
    "cancellation": started(lambda store, _: store.record_cancellation(*IDS)),
    "by id": started(lambda s, r: s.record_completion(execution_id=r.id, execution_time_ms=5)),
    "by record": started(lambda store, record: store.record_failure(record, error="no")),
    "at once": ended_at_once,
    "upsert": upsert,
    "begin": begin,
    "reap": reap,
}
ONCE = {
    "many": lambda store: store.record_many([FIELDS | {"status": "completed"}]),
    "at once, without an id": lambda store: store.record_execution(FIELDS, error="no"),
}


@in_databases
@pytest.mark.parametrize("way", REPEATABLE)
def test_an_execution_enters_the_queue_once_when_it_ends(store, queue, clock, way):
    end = REPEATABLE[way](store, clock)
    assert queue.rows() == []
    end()
    expected = [entry(only(store.query()))]
    assert queue.rows() == expected
    end()  # the same outcome again
    assert queue.rows() == expected


@in_databases
@pytest.mark.parametrize("way", ONCE)
def test_an_execution_enters_the_queue_that_is_recorded_only_when_it_ends(store, queue, way):
    ONCE[way](store)
    assert queue.rows() == [entry(only(store.query()))]


@pytest.mark.parametrize("fails", [False, True])
def test_a_tracked_execution_enters_the_queue(database_store, queue, fails):
    if fails:
        raise_in_track(database_store)
    else:
        with database_store.track(JOB, "w") as execution:
            execution.progress(0.5)
            assert queue.rows() == []
    record = only(database_store.query())
    assert record.status == ("failed" if fails else "completed")
    assert queue.rows() == [entry(record)]


@in_databases
@pytest.mark.parametrize("count", [2, 49, 50, 51])
def test_many_executions_enter_the_queue_however_they_are_written(store, queue, count):
    """From 50 on, one trigger feeds all of them, if they are written by COPY."""
    statuses = ["completed", "failed", "cancelled"]
    store.record_many(
        FIELDS
        | {"job_id": str(number), "status": statuses[number % 3], "execution_time_ms": number}
        | ({"error": "no"} if number % 3 == 1 else {})
        for number in range(count)
    )

    def order(row):
        return row["execution_time_ms"]

    assert sorted(queue.rows(), key=order) == sorted(map(entry, store.query(limit=None)), key=order)


@in_databases
def test_what_does_not_end_an_execution_queues_nothing(store, queue):
    execution = store.begin(JOB, "w")
    execution.heartbeat()
    execution.progress(0.5)
    assert queue.rows() == []
    execution.end("no")
    expected = queue.rows()
    assert len(expected) == 1
    assert store.purge(task_identifier="ping") == 1
    assert queue.rows() == expected, "statistics outlive the rows"


def test_a_replay_mark_queues_nothing(database_store, queue):
    record = database_store.record_execution(FIELDS, error="no")
    expected = queue.rows()
    assert database_store._history.exchange_label(
        record.id, record.job_id, "replayed_at", None, "now"
    )
    assert queue.rows() == expected


# Corrections.


@in_databases
@pytest.mark.parametrize("way", ["outcome", "upsert"])
def test_a_real_outcome_takes_back_that_of_a_lost_worker(store, queue, clock, way):
    reap(store, clock)()
    lost = only(store.query())
    assert queue.rows() == [entry(lost, is_lost=True, execution_time_ms=None)]
    queue.empty()

    def complete():
        if way == "outcome":
            store.record_completion(execution_id=lost.id, execution_time_ms=5)
        else:
            store.record_execution(FIELDS, status="completed", execution_time_ms=5, id=lost.id)

    complete()
    completed = only(store.query())
    # The execution time is new, the queue time is already counted.
    assert queue.rows() == [taken_back(lost), entry(completed, queue_time_ms=None)]
    complete()
    assert len(queue.rows()) == 2


CHANGES = {
    "status": ("status = 'cancelled', error_type = NULL", {"status": "cancelled"}),
    "will_retry": ("will_retry = true", {"will_retry": True}),
    "error_type": (f"error_type = '{LOST}'", {"is_lost": True}),
    "task_identifier": ("task_identifier = 'pong'", {"task_identifier": "pong"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_apps_own_sql_corrects_what_it_changes(database, database_store, queue, change):
    database_store.record_start(JOB, "w", "c")
    failed = database_store.record_failure(*IDS, 5, "no", will_retry=False)
    queue.empty()
    assignments, changed = CHANGES[change]
    with database.engine.begin() as connection:
        connection.execute(text(f"UPDATE job_history SET {assignments}"))
    new = entry(failed, **changed, execution_time_ms=None, queue_time_ms=None)
    assert queue.rows() == [taken_back(failed), new]
    with database.engine.begin() as connection:
        connection.execute(text(f"UPDATE job_history SET {assignments}, error_message = 'maybe'"))
    assert len(queue.rows()) == 2, "the second statement changes nothing that is counted"


def test_an_outcome_that_is_taken_back_is_no_longer_counted(database, database_store, queue):
    ended = database_store.record_execution(FIELDS, status="completed", execution_time_ms=5)
    queue.empty()
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE job_history SET status = 'started'"))
    assert queue.rows() == [taken_back(ended)]
    queue.empty()
    database_store.record_failure(execution_id=ended.id, error="no", execution_time_ms=7)
    assert queue.rows() == [entry(only(database_store.query()))]


def test_the_apps_own_sql_may_insert_and_copy(database, database_store, queue):
    database_store.record_execution(FIELDS, error="no")
    queue.empty()
    columns = ", ".join(c.name for c in HistoryRecord.__table__.columns if c.name != "id")
    id_ = uuid.uuid4().hex
    with database.engine.begin() as connection:
        connection.execute(
            text(
                f"INSERT INTO job_history (id, {columns}) "
                f"SELECT '{id_}', {columns} FROM job_history"
            )
        )
        assert connection.execute(delete(HistoryRecord)).rowcount == 2
    assert len(queue.rows(weight=1)) == len(queue.rows()) == 1


# Transactions.


def test_the_queue_commits_and_rolls_back_with_the_callers_transaction(database, queue):
    store = create_store(database.engine)
    with Session(database.engine) as session:
        inside = store.in_session(session)
        inside.record_start(JOB, "w", "c")
        inside.record_completion(*IDS, 5)
        assert queue.rows() == []
        session.rollback()
        assert queue.rows() == []

        inside.record_execution(FIELDS, status="completed", task_identifier="kept")
        savepoint = session.begin_nested()
        inside.record_execution(FIELDS, status="completed", task_identifier="lost")
        inside.record_many([FIELDS | {"status": "completed"}] * 60)
        savepoint.rollback()
        inside.record_execution(FIELDS, status="completed", task_identifier="kept")
        session.commit()
    assert [row["task_identifier"] for row in queue.rows()] == ["kept", "kept"]


def test_executions_after_a_bulk_enter_the_queue_as_well(database, queue):
    """In the same transaction, and on the same connection in another one."""
    store = create_store(database.engine)
    with Session(database.engine) as session, session.begin():
        inside = store.in_session(session)
        inside.record_many([FIELDS | {"status": "completed"}] * 60)
        inside.record_execution(FIELDS, status="completed")
        inside.record_start(JOB, "w", "c")
        inside.record_completion(*IDS)
        inside.record_many([FIELDS | {"status": "completed"}] * 2)
    assert len(queue.rows()) == 64
    store.record_execution(FIELDS, status="completed")
    assert len(queue.rows()) == 65


def test_a_failed_job_enters_the_queue_after_the_rollback(database, queue):
    store = create_store(database.engine)
    sessions = sessionmaker(database.engine)
    with (
        pytest.raises(ZeroDivisionError),
        sessions.begin() as session,
        store.in_session(session).track(JOB, "w"),
    ):
        raise ZeroDivisionError
    assert queue.rows() == [entry(only(store.query()))]


# In the background.


def record_some(recorder, clock):
    recorder.record_execution(FIELDS, status="completed", execution_time_ms=1)
    recorder.record_start(JOB, "w", "c")
    recorder.record_completion(*IDS, 2)
    recorder.begin(JOB, "w").end("no")
    running = recorder.begin(JOB, "w")
    id_ = new_execution_id(clock())
    for _ in range(2):
        recorder.record_execution(FIELDS, error="no", execution_time_ms=3, execution_id=id_)
    return running


def assert_each_once(store, queue):
    ended = [record for record in store.query(limit=None) if record.status.is_outcome]
    assert len(ended) >= 4

    def order(row):
        return sorted((name, str(value)) for name, value in row.items())

    assert sorted(queue.rows(), key=order) == sorted(map(entry, ended), key=order)


def test_a_recorder_queues_each_execution_once(database_store, queue, clock):
    with Recorder(database_store, max_delay=3600) as recorder:
        running = record_some(recorder, clock)
        recorder.flush()
        running.end()
        for _ in range(60):
            recorder.record_execution(FIELDS, status="completed")
    assert_each_once(database_store, queue)
    assert recorder.counts.refused == 0


def test_a_recorder_for_asyncio_queues_each_execution_once(database, queue):
    async def main():
        closing = []
        with async_engine(database, closing.append) as engine:
            async with AsyncRecorder(create_async_store(engine)) as recorder:
                await recorder.record_execution(FIELDS, status="completed")
                async with recorder.track(JOB, "w"):
                    pass
        await closing[0]

    asyncio.run(main())
    assert len(queue.rows()) == 2


@pytest.mark.parametrize("is_written", [False, True])
def test_a_batch_that_is_tried_again_queues_each_execution_once(
    database_store, queue, clock, is_written
):
    """Also if the first try has committed, but the connection broke before it said so."""
    gate = Gate(database_store)
    write = gate._write
    tries = []

    def break_once(batch, **named):
        tries.append(batch)
        if len(tries) == 1:
            if is_written:
                write(batch, **named)
            raise ConnectionResetError
        return write(batch, **named)

    gate._write = break_once
    gate.open.set()
    with Recorder(database_store, max_delay=3600) as recorder:
        record_some(recorder, clock)
    assert len(tries) > 1
    assert_each_once(database_store, queue)


# Roles, schemas, and tables that somebody else made.


@pytest.fixture
def writer(postgres_database):
    """The engine of a role that may write history, but has no privilege on the queue."""
    role = f"jobhistory_writer_{uuid.uuid4().hex[:12]}"
    owner = postgres_database.engine
    with owner.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
        connection.execute(text(f"GRANT SELECT, INSERT, UPDATE ON job_history TO {role}"))
    engine = create_engine(as_role(postgres_database.url, role))
    yield engine
    engine.dispose()
    with owner.begin() as connection:
        connection.execute(text(f"DROP OWNED BY {role}"))
        connection.execute(text(f"DROP ROLE {role}"))


def test_recording_needs_no_privileges_on_the_queue(writer, postgres_database, clock):
    store, queue = create_store(writer, clock=clock), Queue(postgres_database.engine)
    maintained = create_store(postgres_database.engine, clock=clock)
    for name, way in REPEATABLE.items():  # to reap is not to record, and needs more
        way(maintained if name == "reap" else store, clock)()
    for way in ONCE.values():
        way(store)
    store.record_many([FIELDS | {"status": "completed"}] * 60)

    assert len(queue.rows()) == len(REPEATABLE) + len(ONCE) + 60
    lost = only(store.query(error_type=LOST))
    store.record_completion(execution_id=lost.id)
    assert sum(row["weight"] for row in queue.rows()) == len(REPEATABLE) + len(ONCE) + 60
    with writer.connect() as connection, pytest.raises(Exception, match="permission denied"):
        connection.execute(select(ENDED))


ODD_NAMES = ["""it's 100% "odd" :name""", "%(name)s", "SELECT", "$v$ $f$ \\"]


@pytest.fixture
def odd_schema(postgres_database, name):
    """A schema, from which the test must drop everything."""
    quoted = '"' + name.replace('"', '""') + '"'

    def execute(statement):
        with closing(postgres_database.engine.raw_connection()) as connection:
            connection.driver_connection.execute(statement.format(quoted))
            connection.commit()

    execute("CREATE SCHEMA {}")
    yield execute
    execute("DROP SCHEMA {}")


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("how", ["migrate", "create_all"])
def test_the_queue_may_be_in_a_schema_of_any_name(postgres_database, odd_schema, name, how):
    owner = postgres_database.engine
    engine = owner.execution_options(schema_translate_map={None: name})
    if how == "migrate":
        migrate.upgrade(owner, schema=name)
    else:
        Base.metadata.create_all(engine)
    store, queue = create_store(engine), Queue(engine)
    store.record_many([FIELDS | {"status": "completed"}] * 60)
    store.record_start(JOB, "w", "c")
    store.record_failure(*IDS, 5, "no")
    assert len(queue.rows()) == 61
    assert Queue(owner).rows() == []
    if how == "migrate":
        assert migrate.check(owner, schema=name) == ()
        migrate.downgrade(owner, "base", schema=name)
        odd_schema(f"DROP TABLE {{}}.{migrate.VERSION_TABLE}")
    else:
        Base.metadata.drop_all(engine)  # with the functions of the triggers


class Tree(NamedTuple):
    """A schema in which the app itself has made the history table anew, without triggers."""

    owner: Engine
    engine: Engine


@pytest.fixture
def tree(postgres_database, layout):
    owner = postgres_database.engine
    migrate.upgrade(owner, "jobhistory_0013", schema="tree")
    with owner.begin() as connection:
        connection.execute(text("DROP TABLE tree.job_history"))
        for statement in LAYOUTS[layout]:
            connection.execute(text(statement))
    yield Tree(owner, owner.execution_options(schema_translate_map={None: "tree"}))
    with owner.begin() as connection:
        connection.execute(text("DROP SCHEMA tree CASCADE"))


@pytest.mark.parametrize("layout", [each for each in LAYOUTS if each != "inheritance"])
def test_executions_enter_the_queue_however_their_table_is_partitioned(tree):
    """By hand: the migration creates the triggers on the tree, and queues what is in it."""
    store, queue = create_store(tree.engine), Queue(tree.engine)
    store.record_execution(FIELDS, error="no")
    migrate.upgrade(tree.owner, schema="tree")
    assert queue.rows() == [entry(only(store.query()))]
    store.record_many([FIELDS | {"status": "completed"}] * 60)
    store.record_many([FIELDS | {"status": "completed"}] * 2)
    store.record_start(JOB, "w", "c")
    store.record_completion(*IDS, 5)
    with tree.owner.begin() as connection:
        connection.execute(text("UPDATE tree.job_history SET status = 'cancelled'"))

    assert Counter((row["status"], row["weight"]) for row in queue.rows()) == {
        ("completed", 1): 63,
        ("completed", -1): 63,
        ("failed", 1): 1,
        ("failed", -1): 1,
        ("cancelled", 1): 64,
    }


# Whatever happens in whatever order.

NUMBERS = st.integers(0, 2)
OUTCOMES = st.sampled_from(sorted(status.value for status in Status if status.is_outcome))
CALLS = st.one_of(
    st.tuples(st.just("start"), NUMBERS),
    st.tuples(st.sampled_from(["end", "upsert"]), NUMBERS, OUTCOMES),
    st.tuples(st.just("sql"), NUMBERS, OUTCOMES | st.just("started")),
    st.tuples(st.just("rename"), NUMBERS, st.sampled_from(["ping", "pong"])),
    st.tuples(st.sampled_from(["many", "rolled back"]), st.sampled_from([1, 50]), OUTCOMES),
    st.tuples(st.just("reap")),
)


class Calls:
    """Calls about a few executions, which history may refuse."""

    def __init__(self, engine, clock):
        self.engine = engine
        self.clock = clock
        self.store = create_store(engine, clock=clock)
        self.ids = [new_execution_id(clock()) for _ in range(3)]

    def fields(self, outcome, number=0):
        fields = FIELDS | {"job_id": str(number), "status": outcome}
        if outcome == "failed":
            fields |= {"error": "no", "will_retry": bool(number)}
        return fields

    def start(self, number):
        job = Job(str(number), "ping")
        self.store.record_start(job, "w", "c", execution_id=self.ids[number])

    def end(self, number, outcome):
        record = self.store.get(self.ids[number])
        if record is None:
            return
        match outcome:
            case "completed":
                self.store.record_completion(record)
            case "failed":
                self.store.record_failure(record, error="no", will_retry=number == 1)
            case "partial_success":
                self.store.record_partial_success(record, partial_results={})
            case "cancelled":
                self.store.record_cancellation(record)

    def upsert(self, number, outcome):
        id_ = self.ids[number]
        self.store.record_execution(self.fields(outcome, number), execution_id=id_)

    def sql(self, number, status):
        self._update(number, status=status, error_type="E" if status == "failed" else None)

    def rename(self, number, task):
        self._update(number, task_identifier=task)

    def _update(self, number, **values):
        with self.engine.begin() as connection:
            table = HistoryRecord.__table__
            connection.execute(table.update().filter_by(id=self.ids[number]).values(**values))

    def many(self, count, outcome):
        self.store.record_many([self.fields(outcome)] * count)

    def rolled_back(self, count, outcome):
        with Session(self.engine) as session:
            self.store.in_session(session).record_many([self.fields(outcome)] * count)

    def reap(self):
        self.store.reap_lost(started_before=self.clock() + timedelta(seconds=1))


IS_LOST = func.coalesce(HistoryRecord.error_type == LOST, False)


def counts(engine, columns, weight, *where):
    with engine.connect() as connection:
        grouped = select(*columns, weight).where(*where).group_by(*columns)
        return {tuple(row[:-1]): row[-1] for row in connection.execute(grouped) if row[-1]}


@given(calls=st.lists(CALLS, max_size=20))
def test_the_queue_counts_the_rows_that_have_ended(database, clock, calls):
    with database.engine.begin() as connection:
        for table in (HistoryRecord.__table__, ENDED):
            connection.execute(table.delete())
    made = Calls(database.engine, clock)
    for name, *arguments in calls:
        with suppress(JobHistoryError):
            getattr(made, name.replace(" ", "_"))(*arguments)

    record, queued = HistoryRecord, ENDED.c
    assert counts(
        database.engine,
        (queued.task_identifier, queued.status, queued.will_retry, queued.is_lost),
        func.sum(queued.weight),
    ) == counts(
        database.engine,
        (record.task_identifier, record.status, record.will_retry, IS_LOST),
        func.count(),
        record.status != "started",
    )
