"""Every field of an ended execution is stored as it was given, and invalid ones are named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobhistory import InvalidInput, Recorder, Status, create_store, new_execution_id
from jobhistory.schema import COLUMN_NAMES
from tests.recorders import Gate

ENDED = {
    "job_id": "job-1",
    "worker_id": "w",
    "correlation_id": "c",
    "task_identifier": "resize",
    "status": "completed",
}
STARTED_AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
COMPLETED = ENDED | {
    "id": new_execution_id(STARTED_AT),
    "parent_id": new_execution_id(STARTED_AT),
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "span_id": "00f067aa0ba902b7",
    "attempt_number": 2,
    "labels": {"tenant": "größe", "empty": "", "x" * 63: "y" * 255},
    "payload": {"a": [1, None]},
    "payload_is_exact": False,
    "started_at": STARTED_AT,
    "completed_at": STARTED_AT + timedelta(seconds=1),
    "queue_time_ms": 2**40,
    "execution_time_ms": 2**40,
    "heartbeat_at": STARTED_AT + timedelta(microseconds=500_001),
    "progress": 0.1,
    "expires_at": STARTED_AT + timedelta(days=1),
    "result": [{"b": "ü"}, 1.5],
    "log_tail": "first\nlast",
}
FAILED = ENDED | {
    "id": new_execution_id(STARTED_AT),
    "status": "failed",
    "will_retry": True,
    "error_type": "ValueError",
    "error_message": "no",
    "error_stack": "Traceback",
}
PARTIAL = ENDED | {
    "id": new_execution_id(STARTED_AT),
    "status": "partial_success",
    "completed_steps": ["a"],
    "failed_steps": ["b"],
    "retry_from_step": "b",
    "partial_results": {"a": 1},
}
CANCELLED = ENDED | {
    "id": new_execution_id(STARTED_AT),
    "status": "cancelled",
    "error_message": "the worker shut down",
}
ALL = [
    execution | {"job_id": number, "started_at": STARTED_AT}
    for number, execution in enumerate([COMPLETED, FAILED, PARTIAL, CANCELLED])
]


def test_these_executions_have_every_field():
    assert set().union(*ALL) == set(COLUMN_NAMES)


@pytest.mark.parametrize("way", ["one by one", "many"])
def test_every_field_comes_back_from_history_and_from_the_ring_buffer(store, way):
    if way == "many":
        store.record_many(ALL)
    else:
        for execution in ALL:
            store.record_execution(execution)

    check(store.recent())
    check(store.query(order="oldest"))


def test_every_field_can_be_observed(store):
    for execution in ALL:
        store.observe(execution)

    check(store.recent())


def test_every_field_survives_the_spool(database_store, tmp_path):
    path = tmp_path / "spool"
    waits = create_store()
    gate = Gate(waits)
    gate.error = ConnectionError("no database")
    with Recorder(waits, spool=path) as recorder:
        for execution in ALL:
            recorder.record_execution(execution)
        gate.open.set()
    assert waits.query() == []
    with Recorder(database_store, spool=path) as recorder:
        recorder.flush(30)

    check(database_store.query(order="oldest"))


def test_every_field_comes_with_the_outcome_of_an_execution_that_started(store, clock):
    clock.now = STARTED_AT
    for execution in ALL:
        job = {"id": execution["job_id"], "task_identifier": execution["task_identifier"]}
        store.record_start(job, "w", "c", execution_id=execution["id"])
        store.record_execution(execution)

    set_by_outcome = {
        *("status", "result", "log_tail", "will_retry", "execution_time_ms", "completed_at"),
        *("error_type", "error_message", "error_stack"),
        *("completed_steps", "failed_steps", "retry_from_step", "partial_results"),
    }
    for execution, record in zip(ALL, store.query(order="oldest"), strict=True):
        for name in set_by_outcome & execution.keys():
            assert getattr(record, name) == execution[name], name


def check(records):
    assert len(records) == len(ALL)
    for execution, record in zip(ALL, records, strict=True):
        for name, value in execution.items():
            value = str(value) if name == "job_id" else value
            assert getattr(record, name) == value, name
            assert type(getattr(record, name)) is type(value) or name == "status", name
        assert record.status is Status(execution["status"])
        assert (record.error_type is None) == (execution["status"] != "failed")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parent_id": "job-7"}, "parent_id 'job-7' is not a uuid.UUID"),
        ({"trace_id": "4BF92F3577B34DA6A3CE929D0E0E4736"}, "is not a trace id: 32 lower-case"),
        ({"trace_id": "0" * 32}, "is not a trace id"),
        ({"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736\n"}, "is not a trace id"),
        ({"span_id": "7"}, "span_id '7' is not a span id: 16"),
        ({"span_id": "0" * 16}, "is not a span id"),
        ({"labels": ["tenant"]}, r"labels \['tenant'\] is not a mapping; write it like {'tenant'"),
        ({"labels": {"Tenant": "acme"}}, "labels 'Tenant' is not the name of a label"),
        ({"labels": {"t" * 64: "acme"}}, "is not the name of a label"),
        ({"labels": {"tenant\n": "acme"}}, "is not the name of a label"),
        ({"labels": {1: "acme"}}, "labels 1 is not the name of a label"),
        ({"labels": {"tenant": 7}}, r"labels\['tenant'\] 7 is not a text of at most 255"),
        ({"labels": {"tenant": "a" * 256}}, r"labels\['tenant'\] 'aaa.*' is not a text of at most"),
        ({"labels": {f"l{n}": "x" for n in range(17)}}, "17 labels.* has more than 16"),
        ({"payload_is_exact": 1}, "payload_is_exact 1 is neither True nor False"),
        ({"will_retry": "yes"}, "will_retry 'yes' is neither True nor False"),
        ({"will_retry": True}, "will_retry True does not apply to 'completed'"),
        ({"progress": 1.01}, "progress 1.01 is not a number from 0 to 1; write it like 0.4"),
        ({"progress": float("nan")}, "progress nan is not a number"),
        ({"progress": True}, "progress True is not a number"),
        ({"heartbeat_at": datetime(2026, 1, 1)}, "heartbeat_at"),
        ({"status": "failed", "result": 1}, "status 'failed' cannot be combined with a result"),
        ({"status": "cancelled", "error": "x"}, "status 'cancelled' cannot be combined with an er"),
        ({"status": "cancelled", "error_type": "E"}, "'cancelled' cannot be combined with an err"),
    ],
)
def test_an_invalid_field_is_named(plain_store, change, message):
    for call in (
        lambda: plain_store.record_execution(ENDED | change),
        lambda: plain_store.record_many([ENDED | change]),
        lambda: plain_store.observe(ENDED | change),
    ):
        with pytest.raises(InvalidInput, match=message):
            call()
    assert plain_store.query() == plain_store.recent() == []


def test_labels_are_storable_and_redacted_like_any_text(store):
    labels = {"database": "postgresql://app:hunter2@host/db", "nul": "a\0b", "api_key": "secret"}
    record = store.record_execution(ENDED | {"labels": labels})

    (found,) = store.query()
    assert found.labels == record.labels
    assert found.labels["nul"] == "a�b"
    assert "hunter2" not in str(found.labels)
    assert "secret" not in str(found.labels)


def test_no_labels_are_none(store):
    assert store.record_execution(ENDED | {"labels": {}}).labels is None


def test_the_records_of_one_store_do_not_share_labels(store):
    record = store.record_execution(ENDED | {"labels": {"tenant": "acme"}})
    record.labels["tenant"] = "other"

    assert store.recent()[0].labels == {"tenant": "acme"}
    assert store.query()[0].labels == {"tenant": "acme"}
