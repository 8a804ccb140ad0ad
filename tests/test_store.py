"""What every store does, whatever holds its history."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import make_transient

from jobhistory import (
    ExecutionAlreadyFinished,
    ExecutionNotFound,
    HistoryQuery,
    HistoryRecord,
    HistoryStore,
    InvalidInput,
    Job,
    PartialResults,
    Status,
    create_store,
)
from jobhistory.memory import history as memory
from jobhistory.schema import values_of

IDS = ("job-1", "worker-1", "request-1")


def start(store: HistoryStore, job_id="job-1", task="send_email", **job):
    return store.record_start(Job(job_id, task, **job), *IDS[1:])


def test_a_started_execution_is_in_history_and_not_in_the_ring_buffer(store, clock):
    record = start(store, payload={"to": "a@example.org"}, attempts=3)

    assert store.get_by_job_id("job-1")[0].id == record.id
    assert store.recent() == []
    assert (record.job_id, record.worker_id, record.correlation_id) == IDS
    assert record.task_identifier == "send_email"
    assert record.status is Status.STARTED
    assert record.status == "started"
    assert record.attempt_number == 3
    assert record.payload == {"to": "a@example.org"}
    assert record.started_at == clock.now
    assert record.expires_at == clock.now + timedelta(days=30)
    assert record.completed_at is record.execution_time_ms is record.error_type is None
    assert record.id.version == 7


def test_a_completed_execution_is_updated_and_buffered(store, clock):
    started = start(store)
    clock.advance(seconds=2)

    record = store.record_completion(*IDS, 1999.6)

    assert record.id == started.id
    assert record.status is Status.COMPLETED
    assert record.completed_at == clock.now
    assert record.execution_time_ms == 2000
    assert [r.id for r in store.recent()] == [record.id]
    assert store.get_by_job_id("job-1")[0].status is Status.COMPLETED


def test_a_failure_keeps_type_message_and_traceback_with_causes(store):
    start(store)
    try:
        try:
            {}["missing"]
        except KeyError as cause:
            raise ValueError("no such customer") from cause
    except ValueError as error:
        store.record_failure(*IDS, 5, error)

    (record,) = store.query(status="failed")
    assert record.error_type == "ValueError"
    assert record.error_message == "no such customer"
    assert "KeyError: 'missing'" in record.error_stack
    assert "direct cause" in record.error_stack
    assert record.error_stack.rstrip().endswith("ValueError: no such customer")


def test_the_error_type_of_a_class_of_ones_own_names_its_module(store):
    class OutOfStock(Exception):
        pass

    start(store)
    record = store.record_failure(*IDS, 5, OutOfStock())

    assert record.error_type == f"{__name__}.{OutOfStock.__qualname__}"
    assert record.error_message == ""


def test_a_failure_given_as_text_has_the_type_error_and_no_stack(store):
    start(store)
    record = store.record_failure(*IDS, 5, "the printer is on fire")

    assert (record.error_type, record.error_message) == ("Error", "the printer is on fire")
    assert record.error_stack is None


@pytest.mark.parametrize("as_mapping", [True, False])
def test_a_partial_success_keeps_all_four_fields(store, as_mapping):
    fields = {
        "completed_steps": ["download", "parse"],
        "failed_steps": ["upload"],
        "retry_from_step": "upload",
        "results": {"rows": 3, "nested": [None, 1.5, "x"]},
    }
    start(store)
    store.record_partial_success(*IDS, 7, fields if as_mapping else PartialResults(**fields))

    (record,) = store.query(status="partial_success")
    assert record.completed_steps == ["download", "parse"]
    assert record.failed_steps == ["upload"]
    assert record.retry_from_step == "upload"
    assert record.partial_results == {"rows": 3, "nested": [None, 1.5, "x"]}


def test_a_partial_success_may_leave_everything_out_and_is_still_found(store):
    start(store)
    store.record_partial_success(*IDS, 7, {})

    (record,) = store.query(status="partial_success")
    assert record.completed_steps == record.failed_steps == []
    assert record.retry_from_step is record.partial_results is None


@pytest.mark.parametrize(
    "job",
    [
        {"id": "job-1", "task_identifier": "send_email"},
        SimpleNamespace(id="job-1", task_identifier="send_email", priority=5),
        Job("job-1", "send_email"),
    ],
    ids=["mapping", "object", "Job"],
)
def test_a_job_is_a_mapping_or_any_object_with_its_attributes(store, job):
    record = store.record_start(job, *IDS[1:])

    assert (record.job_id, record.task_identifier) == ("job-1", "send_email")
    assert record.attempt_number == 1
    assert record.payload is record.queue_time_ms is None


def test_queue_time_is_measured_from_run_at_and_never_negative(store, clock):
    tokyo = timezone(timedelta(hours=9))
    due = start(store, "late", run_at=(clock.now - timedelta(seconds=90)).astimezone(tokyo))
    early = start(store, "early", run_at=clock.now + timedelta(seconds=90))

    assert due.queue_time_ms == 90_000
    assert early.queue_time_ms == 0


@pytest.mark.parametrize("value", [uuid.UUID(int=7), 42, "naïve"])
def test_ids_are_stored_and_found_as_their_text(store, value):
    store.record_start(Job(value, "t"), value, value)
    store.record_completion(value, value, value, 1)

    (record,) = store.get_by_job_id(value)
    assert record.job_id == record.worker_id == record.correlation_id == str(value)
    assert store.get_by_correlation_id(str(value))[0].id == record.id
    assert store.query(worker_id=value)[0].id == record.id


def test_an_outcome_ends_the_newest_started_execution(store, clock):
    first = start(store)
    clock.advance(seconds=1)
    second = start(store)

    assert store.record_completion(*IDS, 1).id == second.id
    assert store.record_failure(*IDS, 1, "x").id == first.id
    assert [r.status for r in store.get_by_job_id("job-1")] == ["completed", "failed"]


def test_attempts_with_the_same_start_are_told_apart(store):
    ids = {start(store).id for _ in range(3)}

    assert {store.record_completion(*IDS, 1).id for _ in range(3)} == ids


def test_an_outcome_without_a_start_is_not_found(store):
    start(store)
    with pytest.raises(ExecutionNotFound) as caught:
        store.record_completion("job-1", "worker-1", "another", 1)

    assert isinstance(caught.value, LookupError)
    assert caught.value.correlation_id == "another"
    assert store.recent() == []


def test_the_same_outcome_again_returns_the_record_and_leaves_the_ring_buffer_alone(store, clock):
    start(store)
    first = store.record_failure(*IDS, 5, "first")
    clock.advance(seconds=1)
    again = store.record_failure(*IDS, 9, "second")

    assert again.id == first.id
    assert (again.error_message, again.execution_time_ms) == ("first", 5)
    assert len(store.recent()) == 1


def test_another_outcome_is_refused_and_carries_the_record(store):
    start(store)
    store.record_completion(*IDS, 5)
    with pytest.raises(ExecutionAlreadyFinished) as caught:
        store.record_failure(*IDS, 9, ValueError("late"))

    assert isinstance(caught.value, RuntimeError)
    assert caught.value.record.status is Status.COMPLETED
    assert store.get_by_job_id("job-1")[0].error_type is None
    assert [r.status for r in store.recent()] == ["completed"]


def test_of_racing_outcomes_exactly_one_wins_and_nothing_is_mixed(store):
    for round_ in range(10):
        job_id = f"race-{round_}"
        start(store, job_id)
        barrier, results = threading.Barrier(4), []

        def finish(how, job_id=job_id, barrier=barrier, results=results):
            barrier.wait()
            try:
                if how % 2:
                    record = store.record_completion(job_id, *IDS[1:], how)
                else:
                    record = store.record_failure(job_id, *IDS[1:], how, f"by {how}")
                results.append(record)
            except ExecutionAlreadyFinished as lost:
                results.append(lost.record)

        threads = [threading.Thread(target=finish, args=(how,)) for how in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        (final,) = store.get_by_job_id(job_id)
        assert len(results) == 4
        assert {(r.status, r.execution_time_ms) for r in results} == {
            (final.status, final.execution_time_ms)
        }
        assert (final.error_message == f"by {final.execution_time_ms}") == (
            final.status is Status.FAILED
        )
    assert len(store.recent()) == 10


def test_racing_outcomes_of_equal_executions_each_end_one(store, clock):
    for round_ in range(5):
        job_id = f"twins-{round_}"
        for _ in range(4):
            start(store, job_id)
            clock.advance(seconds=1)
        barrier, ended = threading.Barrier(4), []

        def finish(job_id=job_id, barrier=barrier, ended=ended):
            barrier.wait()
            ended.append(store.record_completion(job_id, *IDS[1:], 1).id)

        threads = [threading.Thread(target=finish) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(set(ended)) == 4
        assert all(r.status is Status.COMPLETED for r in store.get_by_job_id(job_id))


# Before 2.1.4, SQLAlchemy complains when a record that was made transient is collected.
@pytest.mark.filterwarnings(
    "ignore:.*InstanceState._cleanup:pytest.PytestUnraisableExceptionWarning"
)
def test_records_are_detached_loaded_and_nobody_elses(store):
    payload = {"list": [1]}
    started = start(store, payload=payload)
    payload["list"].append("changed by the caller")
    ended = store.record_completion(*IDS, 1)
    found = store.query()[0]
    buffered = store.recent()[0]

    for record in (started, ended, found, buffered):
        assert inspect(record).detached
        assert not inspect(record).unloaded
        assert record.payload == {"list": [1]}
        record.payload["list"].append("changed in a record")
        record.status = Status.FAILED
        make_transient(record)
    assert store.recent()[0].payload == {"list": [1]}
    assert store.recent()[0].status is Status.COMPLETED
    assert store.query()[0].payload == {"list": [1]}


def test_the_ring_buffer_keeps_the_last_in_order_of_insertion(make_store):
    store = make_store(buffer_size=3)
    for number in range(5):
        start(store, f"job-{number}")
    for number in (4, 0, 3, 1, 2):
        store.record_completion(f"job-{number}", *IDS[1:], 1)

    assert [r.job_id for r in store.recent()] == ["job-3", "job-1", "job-2"]
    assert [r.job_id for r in store.recent(2)] == ["job-1", "job-2"]
    assert len(store.recent(99)) == 3
    assert store.recent(0) == []


OBSERVED = {
    "job_id": 5,
    "worker_id": "w",
    "correlation_id": "c",
    "task_identifier": "resize",
    "status": "failed",
}


def test_observe_buffers_what_others_recorded_and_completes_it(store, clock):
    store.observe(OBSERVED | {"execution_time_ms": 1500, "payload": {"token": "t", "n": 1}})

    (record,) = store.recent()
    assert (record.job_id, record.status, record.error_type) == ("5", Status.FAILED, "Error")
    assert record.payload == {"token": "[redacted]", "n": 1}
    assert record.completed_at == clock.now
    assert record.started_at == clock.now - timedelta(milliseconds=1500)
    assert record.attempt_number == 1
    assert record.id.version == 7


def test_observe_needs_no_more_than_events_have(store, clock):
    store.observe({"job_id": 7, "task_identifier": "t", "status": "completed"})
    store.observe({"job_id": 8, "task_identifier": "t", "error": "why"})
    store.observe(store.recent(1)[0])

    completed, failed, again = store.recent()
    assert (completed.job_id, completed.status) == ("7", "completed")
    assert (failed.status, failed.error_message) == ("failed", "why")
    assert (completed.worker_id, completed.correlation_id) == ("", "")
    assert completed.started_at == completed.completed_at == clock.now
    assert (again.id, again.worker_id) == (failed.id, "")


def test_observe_takes_a_record_and_keeps_a_copy(make_store):
    recorder, watcher = make_store(), make_store()
    start(recorder, payload=[1], attempts=0)
    record = recorder.record_completion(*IDS, 1)
    watcher.observe(record)
    record.payload.append(2)

    (observed,) = watcher.recent()
    assert observed.id == record.id
    assert observed.payload == [1]
    assert observed.attempt_number == 0
    assert observed.expires_at == record.expires_at


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"status": "started"}, "status"),
        ({"status": None}, "status"),
        ({"job_id": None}, "job_id"),
        ({"colour": "red"}, "colour"),
        ({"started_at": datetime(2026, 1, 1)}, "started_at"),
        ({"execution_time_ms": -1}, "execution_time_ms"),
        ({"id": "not-a-uuid"}, "id"),
        ({"failed_steps": "upload"}, "failed_steps"),
    ],
)
def test_observe_refuses_what_is_no_ended_execution(plain_store, change, names):
    with pytest.raises(InvalidInput, match=names):
        plain_store.observe(OBSERVED | change)
    with pytest.raises(InvalidInput, match="record"):
        plain_store.observe("a text")
    assert plain_store.recent() == []


@pytest.fixture
def mixed_history(store, clock):
    """Ten executions a minute apart: two tasks, two workers, every status."""
    for number in range(10):
        ids = (f"job-{number}", f"worker-{number % 2}", "batch")
        store.record_start(Job(ids[0], ["resize", "send_email"][number % 2]), *ids[1:])
        if number in (3, 6):
            store.record_failure(*ids, number, ValueError("x") if number == 3 else "text")
        elif number == 5:
            store.record_partial_success(*ids, number, {})
        elif number != 9:
            store.record_completion(*ids, number)
        clock.advance(minutes=1)
    return store


def jobs(records):
    return [int(record.job_id.removeprefix("job-")) for record in records]


def test_query_builds_its_criteria_from_what_is_given(mixed_history):
    for criteria, expected in CRITERIA:
        assert jobs(mixed_history.query(**criteria)) == expected, criteria
        assert jobs(mixed_history.query(criteria)) == expected, criteria
        assert jobs(mixed_history.query(HistoryQuery(**criteria))) == expected, criteria


CRITERIA = [
    ({}, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
    ({"limit": 3}, [9, 8, 7]),
    ({"limit": None}, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
    ({"task_identifier": "resize"}, [8, 6, 4, 2, 0]),
    ({"task_identifier": ["resize", "send_email"], "limit": 2}, [9, 8]),
    ({"task_identifier": "unknown"}, []),
    ({"task_identifier": []}, []),
    ({"task_identifier": None}, [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
    ({"status": "failed"}, [6, 3]),
    ({"status": Status.FAILED, "task_identifier": "resize"}, [6]),
    ({"status": {"failed", Status.PARTIAL_SUCCESS}}, [6, 5, 3]),
    ({"status": "partial_success"}, [5]),
    ({"status": "started"}, [9]),
    ({"status": ()}, []),
    ({"worker_id": "worker-1"}, [9, 7, 5, 3, 1]),
    ({"worker_id": "worker-1", "status": "failed"}, [3]),
    ({"error_type": "ValueError"}, [3]),
    ({"error_type": "Error"}, [6]),
]


def test_query_takes_a_window_with_both_ends_in_it(mixed_history, clock):
    first = datetime(2015, 11, 1, 12, 2, tzinfo=UTC)
    last = datetime(2015, 11, 1, 21, 4, tzinfo=timezone(timedelta(hours=9)))

    assert jobs(mixed_history.query(from_=first, to=last)) == [4, 3, 2]
    assert jobs(mixed_history.query({"from": first, "to": last})) == [4, 3, 2]
    assert jobs(mixed_history.query(from_=first, to=first)) == [2]


def test_named_criteria_take_the_place_of_those_of_the_same_name(mixed_history):
    query = HistoryQuery(status="failed", limit=1)

    assert jobs(mixed_history.query(query, limit=2)) == [6, 3]
    assert jobs(mixed_history.query({"status": "failed"}, status="started")) == [9]


def test_executions_that_started_together_come_in_the_reverse_order_of_their_start(store):
    started = [start(store, f"job-{number}").id for number in range(20)]

    assert [r.id for r in store.query()] == started[::-1]


def test_get_by_ids_returns_all_newest_first(mixed_history):
    assert jobs(mixed_history.get_by_correlation_id("batch")) == list(range(9, -1, -1))
    assert jobs(mixed_history.get_by_job_id("job-4")) == [4]
    assert mixed_history.get_by_job_id("job-44") == []


def test_times_come_back_aware_in_utc_to_the_microsecond(store, clock):
    clock.now = datetime(2026, 3, 29, 2, 30, 0, 123457, tzinfo=timezone(timedelta(hours=-5)))
    start(store)

    (record,) = store.get_by_job_id("job-1")
    assert record.started_at == clock.now
    assert record.started_at.tzinfo is UTC
    assert record.started_at.microsecond == 123457


def test_a_row_lives_as_long_as_its_retention_says(make_store, clock):
    store = make_store(history_retention="2 days")

    assert start(store).expires_at == clock.now + timedelta(days=2)
    for given, expires in [("12h", timedelta(hours=12)), (timedelta(weeks=1), timedelta(weeks=1))]:
        record = store.record_start(Job("j", "t"), "w", "c", history_retention=given)
        assert record.expires_at == clock.now + expires
    forever = store.record_start(Job("j", "t"), "w", "c", history_retention="never")
    assert forever.expires_at is None
    assert start(make_store(history_retention=None)).expires_at is None


def test_expire_deletes_what_has_expired_and_nothing_else(make_store, clock):
    store = make_store(history_retention="1 day")
    start(store, "ended")
    store.record_completion("ended", *IDS[1:], 1)
    start(store, "left-started")
    store.record_start(Job("kept", "t"), "w", "c", history_retention="never")
    clock.advance(hours=12)
    start(store, "young")

    assert store.expire() == 0
    clock.advance(hours=12)
    assert store.expire(dry_run=True) == 2
    assert store.expire() == 2
    assert store.expire() == 0
    assert {r.job_id for r in store.query()} == {"kept", "young"}


def test_memory_forgets_the_oldest_start_when_too_many_are_under_way(monkeypatch, caplog, clock):
    monkeypatch.setattr(memory, "STARTED_LIMIT", 3)
    store = create_store(clock=clock)
    for number in range(4):
        start(store, f"job-{number}")

    assert "evicted the started execution of job 'job-0'" in caplog.text
    assert {r.job_id for r in store.query()} == {"job-1", "job-2", "job-3"}
    with pytest.raises(ExecutionNotFound):
        store.record_completion("job-0", *IDS[1:], 1)


def test_a_record_shows_what_it_is_even_when_it_is_empty(store):
    assert repr(start(store)).startswith("<HistoryRecord send_email job_id='job-1' status=started")
    assert repr(HistoryRecord()) == ("<HistoryRecord None job_id=None status=None started_at=None>")


ENDED = {
    "job_id": "job-1",
    "worker_id": "worker-1",
    "correlation_id": "request-1",
    "task_identifier": "resize",
    "status": "completed",
}


def test_an_execution_is_recorded_at_its_end_in_one_go(store, clock):
    record = store.record_execution(
        ENDED, execution_time_ms=1500, payload={"path": "a.png", "token": "t"}, attempt_number=2
    )

    (found,) = store.get_by_job_id("job-1")
    assert found.id == record.id == store.recent()[0].id
    assert found.status is Status.COMPLETED
    assert found.completed_at == clock.now
    assert found.started_at == clock.now - timedelta(milliseconds=1500)
    assert found.expires_at == found.started_at + timedelta(days=30)
    assert found.payload == {"path": "a.png", "token": "[redacted]"}
    assert found.attempt_number == 2


def test_an_execution_with_an_error_has_failed_for_its_reasons(store):
    try:
        raise ValueError("no such customer")
    except ValueError as error:
        named = {key: value for key, value in ENDED.items() if key != "status"}
        store.record_execution(**named, error=error)

    (record,) = store.query(status="failed")
    assert (record.error_type, record.error_message) == ("ValueError", "no such customer")
    assert record.error_stack.startswith("Traceback")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"status": "started"}, "status 'started'"),
        ({"job_id": ""}, "job_id ''"),
        ({"colour": "red"}, "execution 'colour'"),
        ({"error": "x"}, "status 'completed' cannot be combined with an error"),
        ({"error": 42, "status": None}, "error <class 'int'> is not an error"),
        ({"error_type": "ValueError"}, "status 'completed' cannot be combined with an error"),
        ({"error_message": "late"}, "status 'completed' cannot be combined with an error"),
        ({"started_at": datetime(2026, 1, 1)}, "started_at"),
    ],
)
def test_what_is_no_ended_execution_is_not_recorded(plain_store, change, names):
    with pytest.raises(InvalidInput, match=names):
        plain_store.record_execution(ENDED | change)
    with pytest.raises(InvalidInput, match="execution"):
        plain_store.record_execution("a text")
    with pytest.raises(InvalidInput, match="execution"):
        plain_store.record_execution()
    assert plain_store.query() == plain_store.recent() == []


def test_many_executions_are_recorded_at_once_and_buffered_in_order(make_store):
    store = make_store(buffer_size=5)
    nasty = 'tab\t newline\n return\r backslash\\ \\N quote" NUL\0 lone \ud800 é 🙂'
    count = store.record_many(
        ENDED | {"job_id": number, "payload": nasty, "correlation_id": nasty}
        for number in range(1200)
    )
    store.record_execution(ENDED | {"job_id": "one", "payload": nasty, "correlation_id": nasty})

    assert count == 1200
    *four, one = store.recent()
    assert [r.job_id for r in four] == ["1196", "1197", "1198", "1199"]
    records = store.query(limit=None)
    assert len(records) == (5 if is_in_memory(store) else 1201)
    assert {r.payload for r in records} == {one.payload}
    assert {r.correlation_id for r in records} == {one.correlation_id}


def is_in_memory(store):
    """Whether history is no more than the ring buffer."""
    return len(store.query(limit=None)) == len(store.recent())


def test_many_executions_of_every_kind_come_back_as_they_were(store, clock):
    full = {
        "started_at": clock.now - timedelta(seconds=5),
        "completed_at": clock.now,
        "queue_time_ms": 2**40,
        "execution_time_ms": 2**40,
        "error_type": "shop.OutOfStock",
        "error_message": "none left",
        "error_stack": "Traceback ...",
        "completed_steps": ["a", "b"],
        "failed_steps": ["c"],
        "retry_from_step": "c",
        "partial_results": [1, None, {"x": 1.5}],
        "expires_at": None,
        "payload": None,
    }
    store.record_many([ENDED | {"job_id": "full", "status": "failed"} | full, ENDED])
    store.record_execution(ENDED | {"job_id": "single", "status": "failed"} | full)

    (many,), (single,) = store.get_by_job_id("full"), store.get_by_job_id("single")
    for name, value in full.items():
        assert getattr(many, name) == getattr(single, name) == value
    assert [r.job_id for r in store.query(status="failed", task_identifier="resize")] == [
        "single",
        "full",
    ]


def test_many_executions_are_all_recorded_or_none(store):
    with pytest.raises(InvalidInput, match=r"executions\[1\]\.job_id ''"):
        store.record_many([ENDED, ENDED | {"job_id": ""}])
    with pytest.raises(InvalidInput, match=r"executions\[0\] <class 'str'> is neither"):
        store.record_many(["text"])
    assert store.record_many([]) == 0
    assert store.query() == store.recent() == []


def test_a_record_of_another_store_can_be_recorded_as_it_is(make_store):
    start(make_store(), payload=[1])
    copied = make_store().record_execution(create_and_end(create_store()))

    assert (copied.status, copied.payload) == (Status.COMPLETED, [1])


def create_and_end(store):
    start(store, payload=[1])
    return store.record_completion(*IDS, 5)


def test_reaping_ends_what_started_long_ago_and_has_not_ended(store, clock):
    start(store, "ended")
    store.record_completion("ended", *IDS[1:], 1)
    lost = start(store, "lost")
    clock.advance(hours=1)
    start(store, "young")
    clock.advance(hours=1)

    assert store.reap_lost(timedelta(hours=2)) == 1
    assert store.reap_lost("2h") == 0
    (record,) = store.get_by_job_id("lost")
    assert record.id == lost.id
    assert (record.status, record.error_type) == ("failed", "jobhistory.WorkerLost")
    assert record.error_message == (
        "no outcome since it started at 2015-11-01T12:00:00Z; its worker is presumed lost"
    )
    assert record.completed_at == clock.now
    assert record.execution_time_ms is record.error_stack is None
    assert [r.status for r in store.query(status="failed")] == ["failed"]
    assert store.get_by_job_id("young")[0].status is Status.STARTED
    assert [(r.job_id, r.error_type) for r in store.recent()] == [
        ("ended", None),
        ("lost", "jobhistory.WorkerLost"),
    ]


def test_reaping_takes_filters_and_small_batches(store, clock):
    for number in range(7):
        store.record_start(Job(number, ["resize", "send"][number % 2]), f"worker-{number % 3}", "c")
        clock.advance(seconds=1)
    clock.advance(hours=1)
    done = []

    assert store.reap_lost("1h", task_identifier="send", worker_id="worker-0") == 1
    assert store.reap_lost("1h", task_identifier=["send"], batch_size=1, progress=done.append) == 2
    assert done == [1, 2, 2]
    assert store.reap_lost("1h", task_identifier=[]) == 0
    assert {r.job_id for r in store.query(status="started")} == {"0", "2", "4", "6"}
    assert store.reap_lost("1h", batch_size=3) == 4


def test_reaping_goes_by_heartbeats(store, clock):
    start(store, "none")
    silent, alive = (store.begin(Job(job_id, "t"), "w") for job_id in ("silent", "alive"))
    silent.heartbeat()
    clock.advance(seconds=25)
    alive.heartbeat()
    clock.advance(seconds=5)

    assert store.reap_lost(heartbeat_older_than="10s") == 1
    (record,) = store.query(status="failed")
    assert (record.job_id, record.error_type) == ("silent", "jobhistory.WorkerLost")
    assert record.error_message == (
        "no heartbeat since 2015-11-01T12:00:00Z; its worker is presumed lost"
    )
    assert {r.job_id for r in store.running()} == {"alive", "none"}
    assert store.reap_lost("1 min", heartbeat_older_than="1s") == 0, "both must hold"
    assert store.reap_lost("30s", heartbeat_older_than="5s") == 1


def test_a_worker_that_starts_ends_what_it_left_behind(store, clock):
    start(store, "left")
    store.record_start(Job("other", "t"), "worker-2", "c")
    clock.advance(seconds=1)
    now = clock.now
    start(store, "new")

    assert store.reap_lost(worker_id=IDS[1], started_before=now) == 1
    assert {r.job_id for r in store.running()} == {"other", "new"}


def test_reaping_needs_a_time(plain_store):
    with pytest.raises(InvalidInput, match="older_than is missing"):
        plain_store.reap_lost(worker_id="w")
    with pytest.raises(InvalidInput, match="started_before"):
        plain_store.reap_lost(started_before=datetime(2026, 1, 1))
    with pytest.raises(InvalidInput, match="heartbeat_older_than"):
        plain_store.reap_lost(heartbeat_older_than="soon")


@pytest.mark.parametrize("by", ["ids", "execution_id"])
@pytest.mark.parametrize("late", ["completion", "failure"])
def test_a_real_outcome_replaces_that_of_the_reaper_once(store, clock, late, by):
    started = start(store)
    clock.advance(hours=3)
    store.reap_lost("2h")

    which = {"ids": (IDS, {}), "execution_id": ((), {"execution_id": started.id})}[by]
    values = {
        "completion": {"execution_time_ms": 7},
        "failure": {"execution_time_ms": 7, "error": "the real reason"},
    }[late]
    record = getattr(store, f"record_{late}")(*which[0], **which[1], **values)

    assert record.id == started.id
    assert (record.status, record.execution_time_ms) == (
        {"completion": "completed", "failure": "failed"}[late],
        7,
    )
    error = {"completion": (None, None), "failure": ("Error", "the real reason")}[late]
    assert (record.error_type, record.error_message) == error
    assert values_of(store.get_by_job_id("job-1")[0]) == values_of(record)
    assert store.recent()[-1].id == record.id
    with pytest.raises(ExecutionAlreadyFinished):
        store.record_partial_success(*IDS, 1, {})
    assert store.reap_lost("2h") == 0


def test_whoever_wins_the_race_of_reaper_and_outcome_the_outcome_stays(store, clock):
    for round_ in range(10):
        job_id = f"race-{round_}"
        start(store, job_id)
        clock.advance(hours=3)
        barrier, heard = threading.Barrier(3), []

        def finish(job_id=job_id, barrier=barrier, heard=heard):
            barrier.wait()
            heard.append(store.record_completion(job_id, *IDS[1:], 1).status)

        def reap(barrier=barrier):
            barrier.wait()
            store.reap_lost("2h")

        threads = [threading.Thread(target=work) for work in (finish, reap, reap)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (final,) = store.get_by_job_id(job_id)
        assert (final.status, final.error_type) == ("completed", None)
        assert heard == ["completed"]


@pytest.mark.parametrize("older_than", ["soon", 5, timedelta(0)])
def test_reaping_refuses_what_is_no_duration(plain_store, older_than):
    with pytest.raises(InvalidInput, match="older_than"):
        plain_store.reap_lost(older_than)
