"""Labels of executions: from the job, and from the store."""

from __future__ import annotations

import re

import pytest

from jobhistory import (
    InvalidInput,
    Job,
    Recorder,
    create_async_store,
    create_store,
    new_execution_id,
)

IDS = ("worker-1", "request-1")
ENDED = {
    "job_id": "job-1",
    "worker_id": "w",
    "correlation_id": "c",
    "task_identifier": "t",
    "status": "completed",
}
TENANT = {"tenant": "acme"}
RELEASE = {"release": "1.4"}


class Queued:
    """A job of another library that has labels."""

    id = "job-1"
    task_identifier = "resize"
    labels = TENANT


def only(records):
    (record,) = records
    return record


@pytest.mark.parametrize(
    "job",
    [
        Job("job-1", "resize", labels=TENANT),
        {"id": "job-1", "task_identifier": "resize", "labels": TENANT},
        Queued(),
    ],
    ids=["Job", "mapping", "object"],
)
def test_a_job_may_have_labels(store, job):
    assert store.record_start(job, *IDS).labels == TENANT
    store.record_completion("job-1", *IDS, 5)

    assert only(store.query()).labels == only(store.recent()).labels == TENANT


def test_a_job_without_labels_has_none(store):
    assert store.record_start(Job("job-1", "t"), *IDS).labels is None
    assert store.record_start(Job("job-1", "t", labels={}), *IDS).labels is None
    assert {record.labels for record in store.query()} == {None}


def test_the_labels_of_the_store_are_on_every_execution_that_it_records(make_store):
    store = make_store(labels=RELEASE)
    store.record_start(Job("started", "t"), *IDS)
    store.record_execution(ENDED, job_id="whole")
    store.record_many([ENDED | {"job_id": "many"}])
    store.begin(Job("begun", "t"), "w").end()
    store.observe(ENDED | {"job_id": "observed"})

    assert {record.job_id for record in store.query()} >= {"started", "whole", "many", "begun"}
    for record in [*store.query(), *store.recent()]:
        assert record.labels == RELEASE


def test_the_labels_of_the_job_take_precedence(make_store):
    store = make_store(labels=RELEASE | {"tenant": "nobody"})
    store.record_start(Job("started", "t", labels=TENANT), *IDS)
    store.record_execution(ENDED, labels=TENANT)

    for record in store.query():
        assert record.labels == RELEASE | TENANT


def test_a_tracked_execution_and_a_recorder_have_labels(database):
    store = create_store(database.engine, labels=RELEASE)
    with store.track(Job("tracked", "t", labels=TENANT), "w"):
        pass
    with Recorder(store) as recorder:
        recorder.record_start(Job("recorded", "t", labels=TENANT), *IDS)
        recorder.record_completion("recorded", *IDS, 5)
        recorder.record_execution(ENDED)

    found = {record.job_id: record.labels for record in store.query()}
    assert found == {
        "tracked": RELEASE | TENANT,
        "recorded": RELEASE | TENANT,
        "job-1": RELEASE,
    }


def test_executions_do_not_share_the_labels_of_their_store(make_store):
    labels = dict(RELEASE)
    store = make_store(labels=labels)
    first = store.record_start(Job("1", "t"), *IDS)
    first.labels["release"] = labels["release"] = "changed"
    second = store.record_execution(ENDED)
    second.labels.clear()

    assert store.record_start(Job("2", "t"), *IDS).labels == RELEASE
    assert [record.labels for record in store.query()] == [RELEASE] * 3


def test_the_most_labels_are_counted_together(make_store):
    store = make_store(labels={f"s{n}": "x" for n in range(8)})
    eight = {f"j{n}": "x" for n in range(8)}
    assert len(store.record_start(Job("1", "t", labels=eight), *IDS).labels) == 16
    with pytest.raises(InvalidInput, match="9 labels' has more than 16 together with the labels"):
        store.record_start(Job("1", "t", labels=eight | {"j8": "x"}), *IDS)
    assert len(store.record_start(Job("1", "t", labels={**eight, "s0": "y"}), *IDS).labels) == 16


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("tenant", "labels 'tenant' is not a mapping; write it like {'tenant': 'acme'}"),
        ([], "labels [] is not a mapping"),
        ({"Tenant": "a"}, "labels 'Tenant' is not the name of a label"),
        ({"tenant": 5}, "labels['tenant'] 5 is not a text of at most 255 characters"),
        ({"tenant": "a" * 256}, "labels['tenant'] "),
        ({f"l{n}": "" for n in range(17)}, "has more than 16; pass fewer"),
    ],
)
def test_labels_that_cannot_be_used_are_named(plain_store, labels, message):
    with pytest.raises(InvalidInput, match=re.escape(message)):
        create_store(labels=labels)
    with pytest.raises(InvalidInput, match=re.escape(message)):
        create_async_store(labels=labels)
    with pytest.raises(InvalidInput, match=re.escape(message)) as caught:
        plain_store.record_start(Job("1", "t", labels=labels), *IDS)
    assert caught.value.argument.startswith("job.labels")
    with pytest.raises(InvalidInput, match=re.escape(message)):
        plain_store.track(Job("1", "t", labels=labels), "w")(print)
    assert plain_store.query() == []


def test_labels_of_the_store_are_redacted_once_and_for_all():
    store = create_store(labels={"broker": "amqp://app:hunter2@host/", "token": "secret"})
    record = store.record_start(Job("1", "t", labels={"password": "hunter2"}), *IDS)

    assert "hunter2" not in str(record.labels)
    assert "secret" not in str(record.labels)
    assert record.labels["token"] == record.labels["password"] == "[redacted]"


def test_a_label_that_redaction_makes_longer_is_cut():
    store = create_store()
    record = store.record_start(Job("1", "t", labels={"note": "token=1 " * 31}), *IDS)
    assert len(record.labels["note"]) <= 255
    ended = store.record_completion(record)
    store.record_execution(ended, execution_id=new_execution_id())  # and can be recorded again
