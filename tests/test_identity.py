"""Executions that have an id chosen in advance, whatever arrives first and however often."""

from __future__ import annotations

import itertools
import os
import threading
import uuid
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from jobhistory import (
    ExecutionAlreadyFinished,
    ExecutionNotFound,
    HistoryQuery,
    HistoryRecord,
    InvalidInput,
    Job,
    create_store,
    new_execution_id,
)
from jobhistory.schema import values_of

JOB = Job("job-1", "resize", {"path": "a.png"})
IDS = ("job-1", "worker-1", "request-1")
WHOLE = {
    "job_id": "job-1",
    "worker_id": "worker-1",
    "correlation_id": "request-1",
    "task_identifier": "resize",
    "status": "completed",
}

# -- ids -------------------------------------------------------------------------------------------


@given(st.lists(st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)), min_size=2))
def test_ids_sort_as_the_moments_they_are_made_from(moments):
    moments = [moment.replace(tzinfo=UTC) for moment in moments]
    ids = [new_execution_id(moment) for moment in moments]

    assert sorted(ids) == [id_ for _, id_ in sorted(zip(moments, ids, strict=True))]
    assert {(id_.version, id_.variant) for id_ in ids} == {(7, uuid.RFC_4122)}
    for moment, id_ in zip(moments, ids, strict=True):
        assert id_.int >> 80 == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
            milliseconds=1
        )


def test_ids_of_one_moment_sort_as_they_were_made_and_never_repeat(clock):
    made = []
    threads = [
        threading.Thread(
            target=lambda: made.append([new_execution_id(clock()) for _ in range(500)])
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(ids == sorted(ids) for ids in made)
    assert len(set(itertools.chain(*made))) == 2000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_makes_other_ids_for_the_same_moment(clock):
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(target, new_execution_id(clock()).bytes)
        os._exit(0)
    os.waitpid(child, 0)

    assert uuid.UUID(bytes=os.read(source, 16)) != new_execution_id(clock())
    os.close(source)
    os.close(target)


def test_moments_before_1970_count_as_1970(store):
    early = datetime(1, 1, 2, tzinfo=UTC)  # the first day lacks hours in zones west of UTC
    record = store.record_execution(
        WHOLE, started_at=early, execution_id=new_execution_id(early), completed_at=early
    )
    assert record.started_at == early


def test_a_naive_moment_makes_no_id():
    with pytest.raises(InvalidInput, match=r"started_at .* has no time zone"):
        new_execution_id(datetime(2015, 1, 1))


def test_the_store_makes_its_ids_from_the_start(store, clock):
    started = store.record_start(JOB, *IDS[1:])
    ended = store.record_execution(WHOLE, started_at=datetime(2001, 1, 1, tzinfo=UTC))

    for record in (started, ended):
        assert new_execution_id(record.started_at).int >> 64 == record.id.int >> 64


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda now: uuid.UUID(int=7), "is not a UUID of version 7; create one with new_exec"),
        (lambda now: uuid.uuid4(), "is not a UUID of version 7"),
        (lambda now: str(new_execution_id(now)), "is not a"),
        (
            lambda now: new_execution_id(now - timedelta(days=1, seconds=1)),
            "has a time more than one day away",
        ),
        (
            lambda now: new_execution_id(now + timedelta(days=1, seconds=1)),
            "has a time more than one day away",
        ),
    ],
)
def test_an_id_is_of_version_7_and_of_the_day_of_the_start(plain_store, clock, made, says):
    id_ = made(clock.now)
    with pytest.raises(InvalidInput, match=says):
        plain_store.record_start(JOB, *IDS[1:], execution_id=id_)
    with pytest.raises(InvalidInput, match=says):
        plain_store.record_execution(WHOLE, execution_id=id_)
    assert plain_store.query() == []


def test_clocks_may_be_a_day_apart(store, clock):
    for apart in (-1, 1):
        id_ = new_execution_id(clock.now + apart * timedelta(hours=23))
        assert store.record_start(JOB, *IDS[1:], execution_id=id_).id == id_


# -- starts and outcomes in any order, any number of times ----------------------------------------


def test_a_repeated_start_is_the_same_execution(store, clock):
    id_ = new_execution_id(clock())
    first = store.record_start(JOB, *IDS[1:], execution_id=id_)
    clock.advance(seconds=5)
    second = store.record_start(JOB, *IDS[1:], execution_id=id_)

    assert values_of(first) == values_of(second)
    assert [record.id for record in store.query()] == [id_]


@given(
    calls=st.lists(
        st.sampled_from(["start", "whole", "completion"]), min_size=1, max_size=6
    ).filter(lambda calls: {"start", "whole"} & {*calls})
)
def test_whatever_arrives_first_and_however_often_there_is_one_row(make_store, clock, calls):
    store = make_store(buffer_size=10_000)
    id_, job_id = new_execution_id(clock()), f"job-{uuid.uuid4()}"
    whole = {**WHOLE, "job_id": job_id}
    ended = []
    for call in calls:
        if call == "start":
            store.record_start(Job(job_id, "resize"), *IDS[1:], execution_id=id_)
        elif call == "whole":
            ended.append(store.record_execution(whole, execution_id=id_))
        else:
            try:
                ended.append(store.record_completion(execution_id=id_))
            except ExecutionNotFound as error:
                assert not ended
                assert str(id_) in str(error)

    (record,) = store.get_by_job_id(job_id)
    assert record.id == id_
    assert record.status == ("completed" if ended else "started")
    assert [r.id for r in store.recent() if r.job_id == job_id] == [id_] * bool(ended)
    assert all(values_of(each) == values_of(record) for each in ended)


def test_an_outcome_that_comes_whole_ends_the_start_and_keeps_what_that_said(store, clock):
    started = store.record_start(JOB, *IDS[1:], history_retention="1 day")
    clock.advance(seconds=3)
    record = store.record_execution(
        WHOLE, status="failed", error="no such file", execution_id=started.id
    )

    assert (record.status, record.error_message) == ("failed", "no such file")
    assert record.payload == {"path": "a.png"}
    assert (record.started_at, record.expires_at) == (started.started_at, started.expires_at)
    assert record.completed_at == clock.now


def test_another_outcome_is_refused_there_too(store, clock):
    id_ = new_execution_id(clock())
    store.record_execution(WHOLE, execution_id=id_)
    with pytest.raises(ExecutionAlreadyFinished) as caught:
        store.record_execution(WHOLE, status="failed", error="x", execution_id=id_)
    assert caught.value.record.id == id_
    assert len(store.recent()) == 1


def test_a_whole_outcome_replaces_that_of_the_reaper(store, clock):
    started = store.record_start(JOB, *IDS[1:])
    clock.advance(hours=3)
    store.reap_lost("2h")
    record = store.record_execution(WHOLE, execution_id=started.id, started_at=started.started_at)

    assert (record.status, record.error_type, record.error_message) == ("completed", None, None)
    assert [r.status for r in store.get_by_job_id("job-1")] == ["completed"]


@pytest.mark.parametrize("ended", [False, True])
def test_the_id_of_another_job_or_task_is_an_error(store, clock, ended):
    id_ = new_execution_id(clock())
    store.record_start(JOB, *IDS[1:], execution_id=id_)
    if ended:
        store.record_completion(execution_id=id_)
    before = [values_of(record) for record in store.query()]

    for job in (Job("job-2", "resize"), Job("job-1", "crop")):
        says = r"execution_id .* belongs to an execution of job 'job-1' and task 'resize'"
        with pytest.raises(InvalidInput, match=says):
            store.record_start(job, *IDS[1:], execution_id=id_)
        with pytest.raises(InvalidInput, match=says):
            store.record_execution(
                WHOLE, job_id=job.id, task_identifier=job.task_identifier, execution_id=id_
            )
    assert [values_of(record) for record in store.query()] == before


@pytest.mark.parametrize("how", ["record", "execution_id"])
def test_an_outcome_ends_exactly_the_execution_that_is_named(store, how):
    first, second = (store.record_start(JOB, *IDS[1:]) for _ in range(2))
    named = {"record": ((first,), {}), "execution_id": ((), {"execution_id": first.id})}[how]

    ended = store.record_failure(*named[0], **named[1], error="no such file", execution_time_ms=3)

    assert (ended.id, ended.status, ended.execution_time_ms) == (first.id, "failed", 3)
    assert [r.id for r in store.query(status="started")] == [second.id]
    again = store.record_failure(*named[0], **named[1], error="another", execution_time_ms=4)
    assert again.error_message == "no such file"
    with pytest.raises(ExecutionAlreadyFinished):
        store.record_completion(*named[0], **named[1])
    assert store.record_partial_success(second, partial_results={}).id == second.id


def test_naming_an_execution_in_two_ways_is_an_error(store):
    record = store.record_start(JOB, *IDS[1:])
    for arguments, named, says in [
        ((record, "worker-1"), {}, "worker_id 'worker-1' cannot be combined with a record"),
        (
            (record,),
            {"execution_id": record.id},
            "execution_id .* cannot be combined with a record",
        ),
        (("job-1",), {"execution_id": record.id}, "job_id 'job-1' cannot be combined with an exec"),
        ((), {}, "job_id None is not an id"),
        ((HistoryRecord(),), {}, "record.id None is not a uuid.UUID"),
        ((), {"execution_id": "7"}, "execution_id '7' is not a uuid.UUID"),
    ]:
        with pytest.raises(InvalidInput, match=says):
            store.record_completion(*arguments, **named)
    with pytest.raises(ExecutionNotFound, match="there is no execution 0"):
        store.record_completion(execution_id=new_execution_id())


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ids", "record", "execution_id"])
def test_without_a_duration_it_is_the_time_since_the_start(store, clock, how):
    started = store.record_start(JOB, *IDS[1:])
    clock.advance(hours=30, milliseconds=1234)
    named = {
        "ids": (IDS, {}),
        "record": ((started,), {}),
        "execution_id": ((), {"execution_id": started.id}),
    }[how]
    record = store.record_completion(*named[0], **named[1])

    assert record.execution_time_ms == 30 * 3_600_000 + 1234
    assert store.query()[0].execution_time_ms == record.execution_time_ms


@pytest.mark.parametrize("how", ["ids", "execution_id"])
def test_a_clock_that_goes_back_gives_no_negative_times(store, clock, how):
    started = store.record_start(JOB, *IDS[1:])
    clock.advance(seconds=-7)
    named = {"ids": (IDS, {}), "execution_id": ((), {"execution_id": started.id})}[how]
    record = store.record_completion(*named[0], **named[1])

    assert record.execution_time_ms == 0
    assert record.completed_at == started.started_at


@pytest.mark.parametrize(
    ("given_time", "stored"),
    [(-0.0007, 0), (-0.9, 0), (timedelta(seconds=1.5), 1500), (timedelta(0), 0), (0.6, 1)],
)
def test_durations_are_numbers_or_timedeltas_and_a_little_less_than_nothing_is_nothing(
    plain_store, given_time, stored
):
    plain_store.record_start(JOB, *IDS[1:])
    assert plain_store.record_completion(*IDS, given_time).execution_time_ms == stored
    whole = plain_store.record_execution(WHOLE, execution_time_ms=given_time)
    assert whole.execution_time_ms == stored


DAY = datetime(2015, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    "given_times",
    [
        {"started_at": DAY, "completed_at": DAY + SECOND},
        {"started_at": DAY, "execution_time_ms": 1000},
        {"completed_at": DAY + SECOND, "execution_time_ms": 1000},
        {"completed_at": DAY + SECOND, "execution_time_ms": SECOND},
    ],
)
def test_two_of_start_end_and_duration_determine_the_third(store, given_times):
    store.record_many([WHOLE | given_times])
    record = store.record_execution(WHOLE, **given_times)

    for each in (record, *store.get_by_job_id("job-1")):
        assert (each.started_at, each.completed_at) == (DAY, DAY + SECOND)
        assert each.execution_time_ms == 1000


def test_a_backfilled_failure_is_seen_when_it_happened(database):
    store = create_store(database.engine)
    store.record_execution(
        WHOLE, status=None, error="x", started_at=DAY, execution_time_ms=50, job_id="backfilled"
    )

    (group,), (stats,) = store.failure_groups(), store.stats()
    assert group.last_seen == stats.last_failure == DAY + timedelta(milliseconds=50)


def test_an_end_before_the_start_is_an_error(store):
    says = "completed_at '2015-01-01T00:00:00.* is before started_at '2015-01-01T00:00:01"
    with pytest.raises(InvalidInput, match=says):
        store.record_execution(WHOLE, started_at=DAY + SECOND, completed_at=DAY)
    with pytest.raises(InvalidInput, match=r"executions\[0\]\.completed_at"):
        store.record_many([WHOLE | {"started_at": DAY + SECOND, "completed_at": DAY}])


def test_a_duration_beyond_the_calendar_still_records_the_execution(store):
    for moment in ("started_at", "completed_at"):
        record = store.record_execution(WHOLE, **{moment: DAY}, execution_time_ms=2**62)
        assert record.started_at == record.completed_at == DAY


# -- jobs ------------------------------------------------------------------------------------------


def test_unknown_keys_of_a_job_are_an_error(store):
    for key in ("attempt", "payloads", "tenant_id"):
        says = f"job '{key}' is not a valid key; the valid keys are id, task_identifier, payload"
        with pytest.raises(InvalidInput, match=says):
            store.record_start({"id": "1", "task_identifier": "t", key: 1}, *IDS[1:])
    assert store.query() == []


class Broken:
    """As an ORM object is that has expired and has no session any more."""

    task_identifier = "t"
    payload = property(lambda self: 1 / 0)

    def __init__(self, id_is_broken=False):
        self.id_is_broken = id_is_broken

    @property
    def id(self):
        return 1 / 0 if self.id_is_broken else "job-1"

    def __repr__(self):
        return "password=hunter2"


def test_an_attribute_that_raises_is_told_by_name_and_a_payload_is_no_reason(store):
    record = store.record_start(Broken(), *IDS[1:])
    assert record.payload == "<payload that raised ZeroDivisionError>"

    with pytest.raises(InvalidInput, match=r"job.id <class .*Broken'> raised ZeroDivisionError"):
        store.record_start(Broken(id_is_broken=True), *IDS[1:])


def test_no_message_shows_what_an_execution_carries(store):
    secret = ["hunter2"]
    store.record_start(JOB, *IDS[1:])
    for call in (
        lambda: store.record_partial_success(*IDS, 1, secret),
        lambda: store.record_execution(secret),
        lambda: store.record_many([secret]),
        lambda: store.record_failure(*IDS, 1, secret),
        lambda: store.observe(secret),
    ):
        with pytest.raises(InvalidInput) as caught:
            call()
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("running", HistoryQuery(status="failed")),
        ("running", HistoryQuery(order="oldest")),
        ("failure_groups", HistoryQuery(status="completed")),
        ("count", HistoryQuery(limit=2)),
        ("stats", HistoryQuery(order="oldest")),
    ],
)
def test_a_query_with_what_a_call_cannot_use_is_refused_as_keywords_are(plain_store, method, query):
    with pytest.raises(InvalidInput, match=r"criteria '.*' has no effect here; leave it out"):
        getattr(plain_store, method)(query)


def test_a_job_object_may_have_other_attributes(store):
    job = SimpleNamespace(id="1", task_identifier="t", tenant="acme")
    assert store.record_start(job, *IDS[1:]).job_id == "1"


# -- races -----------------------------------------------------------------------------------------


def test_starts_and_whole_outcomes_race_for_one_row(database, clock):
    engine = create_engine(database.url)
    store = create_store(engine, clock=clock)
    for number in range(10):
        id_, barrier, errors = new_execution_id(clock()), threading.Barrier(4), []

        def race(call, id_=id_, barrier=barrier, errors=errors):
            barrier.wait()
            try:
                call(id_)
            except Exception as error:
                errors.append(error)

        job = Job(f"job-{number}", "resize")
        whole = {**WHOLE, "job_id": job.id}
        calls = [
            lambda id_, job=job: store.record_start(job, *IDS[1:], execution_id=id_),
            lambda id_, whole=whole: store.record_execution(whole, execution_id=id_),
        ] * 2
        threads = [threading.Thread(target=race, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert [r.status for r in store.get_by_job_id(job.id)] == ["completed"]
        assert [r.id for r in store.recent() if r.job_id == job.id] == [id_]
    engine.dispose()
