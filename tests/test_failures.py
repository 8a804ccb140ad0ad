"""Failures: how they are reported, whether they are final, and what stands for a lost worker."""

from __future__ import annotations

import pickle

import pytest

from jobhistory import (
    Cancelled,
    ExecutionAlreadyFinished,
    Failure,
    InvalidInput,
    Job,
    Recorder,
    TimedOut,
    WorkerLost,
    create_store,
    current_execution,
)
from jobhistory.execution.outcome import WORKER_LOST

IDS = ("job-1", "worker-1", "request-1")
JOB = Job("job-1", "resize")
ENDED = dict(zip(("job_id", "worker_id", "correlation_id"), IDS, strict=True)) | {
    "task_identifier": "resize"
}
FAILURE = Failure("shop.OutOfStock", "none left", "Traceback (most recent call last): ...")


def only(records):
    (record,) = records
    return record


def columns(record):
    return record.status, record.error_type, record.error_message, record.error_stack


# -- without an exception object -----------------------------------------------------------------


def test_a_failure_needs_no_exception_object(store):
    store.record_start(Job("recorded", "t"), "w", "c")
    store.record_failure("recorded", "w", "c", 5, FAILURE)
    store.record_execution(ENDED, job_id="whole", error=FAILURE)
    store.begin(Job("begun", "t"), "w").end(FAILURE)

    for record in store.query():
        assert columns(record) == ("failed", FAILURE.type, FAILURE.message, FAILURE.stack)


def test_a_recorder_takes_a_failure(database_store):
    with Recorder(database_store) as recorder:
        recorder.record_start(JOB, *IDS[1:])
        recorder.record_failure(*IDS, 5, FAILURE)
        recorder.record_execution(ENDED, error=FAILURE)

    for record in database_store.query():
        assert columns(record) == ("failed", FAILURE.type, FAILURE.message, FAILURE.stack)


def test_the_stack_of_a_failure_is_optional(store):
    record = store.record_execution(ENDED, error=Failure("Error", ""))

    assert columns(record) == ("failed", "Error", "", None)


def test_a_failure_is_redacted_and_limited_like_an_exception(plain_store):
    failure = Failure("E" * 300, "token=hunter2 " + "x" * 70_000, "password='hunter2' " * 70_000)
    record = plain_store.record_execution(ENDED, error=failure)

    assert "hunter2" not in record.error_message + record.error_stack
    assert len(record.error_type) <= 255
    assert max(len(record.error_message), len(record.error_stack)) <= 64 * 1024


@pytest.mark.parametrize("kind", ["", None, ValueError])
def test_the_type_of_a_failure_is_a_text(plain_store, kind):
    with pytest.raises(InvalidInput, match="is not a name; write it like"):
        plain_store.record_execution(ENDED, error=Failure(kind, "message"))


# -- types that callers raise --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [(WorkerLost("killed"), "jobhistory.WorkerLost"), (TimedOut("60 s"), "jobhistory.TimedOut")],
)
def test_the_stored_type_is_the_public_name(store, error, kind):
    with pytest.raises(type(error)):
        raise error
    record = store.record_execution(ENDED, error=error)

    assert (record.status, record.error_type, record.error_message) == ("failed", kind, str(error))
    assert only(store.query(error_type=kind)).id == record.id


def test_the_type_of_a_lost_worker_is_that_of_the_reaper(store, clock):
    store.record_start(JOB, *IDS[1:])
    clock.advance(hours=2)
    store.reap_lost("1 hour")
    told = store.record_execution(ENDED, job_id="told", error=WorkerLost())

    assert told.error_type == WORKER_LOST
    assert {record.error_type for record in store.query()} == {WORKER_LOST}


@pytest.mark.parametrize("kind", [WorkerLost, TimedOut, Cancelled])
def test_the_types_survive_pickling(kind):
    """Pools of processes send exceptions to their parent."""
    error = pickle.loads(pickle.dumps(kind("a reason")))

    assert (type(error), error.args) == (kind, ("a reason",))
    assert isinstance(TimedOut(), TimeoutError)


@pytest.mark.parametrize("way", ["record_failure", "record_execution"])
def test_a_real_outcome_replaces_a_loss_that_a_caller_presumed_once(store, way):
    record = store.record_start(JOB, *IDS[1:])
    if way == "record_failure":
        store.record_failure(*IDS, 5, WorkerLost("killed by signal 9"))
    else:
        store.record_execution(ENDED, execution_id=record.id, error=WorkerLost("killed"))
    store.record_completion(*IDS, 7)

    found = only(store.query())
    assert columns(found) == ("completed", None, None, None)
    with pytest.raises(ExecutionAlreadyFinished):
        store.record_failure(*IDS, 5, WorkerLost())


def test_a_presumption_does_not_replace_another_one(store, clock):
    record = store.record_start(JOB, *IDS[1:])
    store.record_failure(*IDS, 5, WorkerLost("first"))
    clock.advance(seconds=1)
    again = store.record_failure(*IDS, 6, WorkerLost("second"))
    whole = store.record_execution(ENDED, execution_id=record.id, error=WorkerLost("third"))

    assert again.error_message == whole.error_message == only(store.query()).error_message
    assert only(store.query()).error_message == "first"
    assert len(store.recent()) == 1


# -- retries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("will_retry", [True, False, None])
def test_a_failure_says_whether_the_job_is_tried_again(store, will_retry):
    store.record_start(Job("recorded", "t"), "w", "c")
    store.record_failure("recorded", "w", "c", 5, "no", will_retry=will_retry)
    store.record_execution(ENDED, job_id="whole", error="no", will_retry=will_retry)
    store.begin(Job("begun", "t"), "w").end("no", will_retry=will_retry)

    assert [record.will_retry for record in store.query()] == [will_retry] * 3
    assert [record.will_retry for record in store.recent()] == [will_retry] * 3


def test_a_recorder_takes_will_retry_and_a_result(database_store):
    with Recorder(database_store) as recorder:
        recorder.record_start(JOB, *IDS[1:])
        recorder.record_failure(*IDS, 5, "no", will_retry=True)
        recorder.record_start(JOB, *IDS[1:])
        recorder.record_completion(*IDS, 5, result={"width": 7})

    completed, failed = database_store.query()
    assert (failed.will_retry, completed.result) == (True, {"width": 7})


@pytest.mark.parametrize("will_retry", [True, False])
def test_a_tracked_execution_says_whether_its_job_is_tried_again(plain_store, will_retry):
    @plain_store.track(lambda number: Job(number, "t"), "w")
    def work(number):
        current_execution().set_will_retry(will_retry)
        if number == 1:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        work(1)
    work(2)
    with pytest.raises(InvalidInput, match="will_retry 'soon'"), plain_store.track(JOB, "w") as e:
        e.set_will_retry("soon")

    found = {record.job_id: record.will_retry for record in plain_store.query()}
    assert found == {"1": will_retry, "2": None, "job-1": None}


def test_only_failures_are_tried_again(plain_store):
    execution = plain_store.begin(JOB, "w")
    for refused in (
        lambda: plain_store.record_failure(*IDS, 5, "no", will_retry="soon"),
        lambda: plain_store.record_execution(ENDED, status="completed", will_retry=True),
        lambda: execution.end(will_retry=True),
        lambda: execution.end(Cancelled(), will_retry="soon"),
    ):
        with pytest.raises(InvalidInput, match="will_retry"):
            refused()


def test_the_outcome_that_replaces_a_lost_worker_says_it_anew(store, clock):
    record = store.record_start(JOB, *IDS[1:])
    store.record_failure(*IDS, 5, WorkerLost(), will_retry=True)
    store.record_completion(record)

    assert only(store.query()).will_retry is None


# -- results -------------------------------------------------------------------------------------


def test_a_completion_may_have_a_result(store):
    store.record_start(Job("recorded", "t"), "w", "c")
    store.record_completion("recorded", "w", "c", 5, result={"width": 7, "token": "hunter2"})
    store.record_execution(
        ENDED, job_id="whole", status="completed", result={"width": 7, "token": "hunter2"}
    )
    store.begin(Job("begun", "t"), "w").end(result={"width": 7, "token": "hunter2"})

    for record in [*store.query(), *store.recent()]:
        assert record.result == {"width": 7, "token": "[redacted]"}


def test_a_result_is_any_value_within_the_limits(plain_store):
    for n, result in enumerate([0, False, "", [], object(), {1: {2}}, "x" * 100_000, None]):
        plain_store.record_start(Job(n, "t"), "w", "c")
        plain_store.record_completion(n, "w", "c", 5, result=result)

    nothing, large, *others = (record.result for record in plain_store.query())
    assert nothing is None
    assert large.startswith("xxx")
    assert len(large) <= 64 * 1024
    assert others[0] == {"1": [2]}
    assert others[2:] == [[], "", False, 0]


def test_a_tracked_execution_has_the_result_that_was_set_last(plain_store):
    with plain_store.track(JOB, "w") as execution:
        execution.set_result(1)
        execution.set_result({"width": 7})
    with plain_store.track(JOB, "w") as execution:
        execution.set_result(1)
        execution.partial_success({"failed_steps": ["upload"]})
    execution = plain_store.track(JOB, "w")
    execution.__enter__().set_result(1)
    execution.__exit__(ValueError, ValueError("no"), None)

    failed, partial, completed = plain_store.query()
    assert (failed.result, partial.result, completed.result) == (None, None, {"width": 7})


def test_a_result_belongs_to_a_completion(plain_store):
    for arguments in (
        {"error": "no", "result": 1},
        {"partial_results": {}, "result": 1},
        {"error": "no", "partial_results": {}},
    ):
        execution = plain_store.begin(JOB, "w")
        with pytest.raises(InvalidInput, match="cannot be combined with"):
            execution.end(**arguments)
        execution.end()


def test_an_execution_in_memory_keeps_its_own_result():
    store = create_store()
    result = {"sizes": [1]}
    record = store.record_start(JOB, *IDS[1:])
    store.record_completion(record, result=result)
    result["sizes"].append(2)

    assert only(store.query()).result == {"sizes": [1]}


@pytest.mark.parametrize("kind", ["", None, ValueError])
def test_the_type_of_a_failure_is_a_name_of_an_error(plain_store, kind):
    for refused in (
        lambda: plain_store.begin(JOB, "w").end(Failure(kind, "no")),
        lambda: plain_store.query(error_type=kind or ""),
    ):
        with pytest.raises(InvalidInput, match="not a name; write it like 'ValueError'"):
            refused()
