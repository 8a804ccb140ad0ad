"""`to_dict` of records and reports: what JSON encoders accept without help."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from flask import Flask, jsonify

from jobhistory import FailureGroup, Percentiles, Status, TaskStats
from jobhistory.schema import COLUMN_NAMES
from tests.test_fields import ALL, COMPLETED, ENDED


def by_json(value):
    return json.loads(json.dumps(value, allow_nan=False))


def by_flask(value):
    with Flask("app").app_context():
        return jsonify(value).json


def by_fastapi(value):
    app = FastAPI()
    app.get("/")(lambda: value)
    return TestClient(app).get("/").json()


ENCODERS = [by_json, by_flask, by_fastapi]


@pytest.mark.parametrize("encode", ENCODERS)
def test_a_record_is_encoded_as_it_is(store, encode):
    store.record_many(ALL)

    for record in store.query():
        told = encode(record.to_dict())
        assert told == record.to_dict()
        assert list(told) == list(COLUMN_NAMES) or encode is by_flask, "Flask sorts"
        assert UUID(told["id"]) == record.id
        assert datetime.fromisoformat(told["started_at"]) == record.started_at
        assert told["status"] == record.status


def test_ids_times_and_statuses_are_texts_and_json_values_are_as_they_are(store):
    told = store.record_execution(COMPLETED).to_dict()

    assert type(told["status"]) is str
    assert told["parent_id"] == str(COMPLETED["parent_id"])
    assert told["started_at"] == "2026-01-01T12:00:00+00:00"
    assert told["heartbeat_at"] == "2026-01-01T12:00:00.500001+00:00"
    for name in ("labels", "payload", "result", "progress", "payload_is_exact", "queue_time_ms"):
        assert told[name] == COMPLETED[name]
        assert type(told[name]) is type(COMPLETED[name])
    assert told["error_type"] is None


def test_a_dict_shares_nothing_with_its_record(store):
    record = store.record_execution(COMPLETED)
    record.to_dict()["payload"]["a"].append(2)
    record.to_dict()["labels"].clear()

    assert record.payload == COMPLETED["payload"]
    assert record.labels == COMPLETED["labels"]


@pytest.mark.parametrize("encode", ENCODERS)
def test_reports_are_encoded_with_their_rates(store, encode):
    store.record_many(
        [
            ENDED,
            *({**ENDED, "status": "failed", "will_retry": retry} for retry in (True, False)),
            ENDED | {"status": "cancelled"},
        ]
    )

    (stats,) = store.stats(bucket="1h")
    told = encode(stats.to_dict())
    fields = set(vars(stats)) | {"failure_rate", "attempt_failure_rate"}
    assert told.keys() == fields
    assert (told["failure_rate"], told["attempt_failure_rate"]) == (0.5, 2 / 3)
    assert told["execution_time_ms"] == vars(stats.execution_time_ms)
    assert datetime.fromisoformat(told["bucket"]) == stats.bucket
    (group,) = store.failure_groups()
    told = encode(group.to_dict())
    assert told.keys() == vars(group).keys()
    assert (told["count"], told["example"]["id"]) == (2, str(group.example.id))
    assert datetime.fromisoformat(told["first_seen"]) == group.first_seen
    (worker,) = store.workers()
    told = encode(worker.to_dict())
    assert told.keys() == vars(worker).keys()
    assert datetime.fromisoformat(told["last_seen"]) == worker.last_seen
    assert encode(store.count(cap=3).to_dict()) == {"value": 3, "is_capped": True}
    page = store.page(limit=3)
    told = encode(page.to_dict())
    assert told == {
        "records": [record.to_dict() for record in page.records],
        "next_cursor": page.next_cursor,
    }


def test_rates_of_nothing_are_none():
    stats = TaskStats(
        task_identifier="t",
        bucket=None,
        executions=2,
        started=1,
        completed=0,
        failed=0,
        partial_success=0,
        cancelled=1,
        final_failures=0,
        lost=0,
        execution_time_ms=Percentiles(*[None] * 5),
        queue_time_ms=Percentiles(*[None] * 5),
        last_start=datetime(2026, 1, 1, tzinfo=UTC),
        last_success=None,
        last_failure=None,
        is_exact=True,
    )
    told = by_json(stats.to_dict())

    assert told["failure_rate"] is told["attempt_failure_rate"] is told["bucket"] is None
    assert told["last_start"] == "2026-01-01T00:00:00+00:00"


def test_a_partial_success_counts_as_no_failure(store):
    store.record_execution(ENDED, status=Status.PARTIAL_SUCCESS)
    (stats,) = store.stats()

    assert (stats.failure_rate, stats.attempt_failure_rate) == (0, 0)


def test_the_times_of_a_group_are_those_of_its_failures(store, clock):
    begun = clock.now
    for minutes in (0, 5):
        clock.now = begun + timedelta(minutes=minutes)
        store.record_execution(ENDED, status="failed")
    (group,) = store.failure_groups()

    assert isinstance(group, FailureGroup)
    assert group.to_dict()["first_seen"] == begun.isoformat()
