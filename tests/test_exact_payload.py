"""`payload_is_exact`: whether the payload in history equals what the job was given."""

from __future__ import annotations

import enum
import math
import uuid
from collections import OrderedDict, namedtuple
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from jobhistory import Job, Recorder, Status, create_store
from jobhistory.sanitize.exactness import is_exact

IDS = ("worker-1", "request-1")
ENDED = {
    "job_id": "job-1",
    "worker_id": "w",
    "correlation_id": "c",
    "task_identifier": "t",
    "status": "completed",
}
Point = namedtuple("Point", "x y")


class Text(str):
    pass


def is_same(value, other):
    """Whether two values are equal, in all parts, types and signs. No code of the library."""
    if type(value) is not type(other):
        return False
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(is_same(value[k], other[k]) for k in value)
    if isinstance(value, list | tuple):
        return len(value) == len(other) and all(map(is_same, value, other))
    if isinstance(value, float):
        return value == other and math.copysign(1, value) == math.copysign(1, other)
    return bool(value == other)


texts = st.text() | st.sampled_from(
    ["password=hunter2", "Bearer abc.def", '{"token": "x"}', "[1, 2.0]", "-p", "a\0b", "x" * 3000]
)
odd = st.one_of(
    st.binary(max_size=5),
    st.datetimes(timezones=st.just(UTC)),
    st.decimals(),
    st.fractions(),
    st.uuids(),
    st.sampled_from(Status),
    st.builds(Text, texts),
    st.builds(Point, texts, texts),
    st.complex_numbers(),
    st.just(object()),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([1e15, 9999999999999998.0, 1e16, -1e16, 1.5e300, -0.0, 0.0, 1e-5, 5e-324]),
    texts,
)
keys = texts | st.sampled_from(["password", "n", "value", "name", "1"]) | st.integers() | st.none()
payloads = st.recursive(
    scalars | odd,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner, max_size=5),
        st.dictionaries(keys, inner, max_size=3).map(OrderedDict),
        st.sets(texts, max_size=3),
    ),
    max_leaves=12,
)


@given(payloads)
@example([1e16])
@example([-0.0])
@example({"a": (1,)})
@example({1: "a", "1": "b"})
@example([[True, 1, 1.0]])
@example({"command": ["mysql", "-p", "hunter2"]})
@example({"value": "hunter2", "name": "password"})
def test_an_exact_payload_comes_back_with_the_same_types(database, payload):
    store = create_store(database.engine)
    record = store.record_start(Job("1", "t", payload), *IDS)
    many = {**ENDED, "job_id": str(record.id), "payload": payload}
    store.record_many([many])
    (found,) = store.query(correlation_id=IDS[1], limit=1)
    (ended,) = store.get_by_job_id(record.id)

    assert found.id == record.id
    for each in (found, ended):
        assert each.payload_is_exact is record.payload_is_exact
        if record.payload_is_exact:
            assert is_same(each.payload, payload)
    assert not record.payload_is_exact or is_same(record.payload, payload)


# What jobs are usually given: it must not count as inexact.
ordinary = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(-1e15, 1e15).filter(lambda number: math.copysign(1, number) > 0 or number != 0)
    | st.text("abc äß漢 .,/_", max_size=50),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("abcdn_"), inner),
    max_leaves=20,
)


@given(ordinary)
def test_an_ordinary_payload_is_exact(plain_store, payload):
    record = plain_store.record_start(Job("1", "t", payload), *IDS)

    assert record.payload_is_exact is True
    assert is_same(record.payload, payload)


EXACT = [
    None,
    {},
    [],
    "",
    0,
    False,
    {"order": 7, "items": [{"sku": "a-1", "price": 9.99}], "note": "größer, 漢字"},
    2**70,
    -(2**64),
    1e15,
    0.0,
    1e-7,
    [[[[[[1]]]]]],
    {"b": 1, "a": 2},
]
INEXACT = [
    1e16,
    -0.0,
    float("nan"),
    float("inf"),
    2**3000,
    (1, 2),
    {"args": (1, 2)},
    {1: "a"},
    {1: "a", "1": "b"},
    {None: 1},
    {1, 2},
    b"bytes",
    datetime(2026, 1, 1, tzinfo=UTC),
    Decimal("1.5"),
    Fraction(1, 3),
    uuid.UUID(int=7),
    enum.Enum("Colour", "RED").RED,
    Status.FAILED,
    Text("a"),
    Point(1, 2),
    OrderedDict(a=1),
    object(),
    "a\0b",
    "\ud800",
    {"password": "hunter2"},
    {"name": "password", "value": "hunter2"},
    ["mysql", "--password", "hunter2"],
    "postgresql://app:hunter2@host/db",
    {"note": '{"token": "hunter2"}'},
    "x" * 70_000,
    {"x" * 300: 1},
    list(range(50_000)),
]


def test_a_payload_is_exact_if_nothing_about_it_changes(store):
    payloads = [*EXACT, *INEXACT]
    for number, payload in enumerate(payloads):
        store.record_start(Job(number, "t", payload), *IDS)
        store.record_execution(ENDED, job_id=number, payload=payload)

    records = store.query(limit=None)
    assert len(records) == 2 * len(payloads)
    for record in records:
        number = int(record.job_id)
        assert record.payload_is_exact is (number < len(EXACT)), payloads[number]
        if record.payload_is_exact:
            assert is_same(record.payload, payloads[number])


def test_a_payload_that_contains_itself_is_not_exact(plain_store):
    payload = [1]
    payload.append(payload)

    assert plain_store.record_start(Job("1", "t", payload), *IDS).payload_is_exact is False


def test_a_payload_is_exact_unless_the_apps_own_redaction_changes_it(make_store):
    store = make_store(redact=lambda name, value: None if name == "iban" else value)
    kept = store.record_start(Job("1", "t", {"password": "hunter2", "n": [1, 2.5]}), *IDS)
    changed = store.record_start(Job("1", "t", {"iban": "DE02"}), *IDS)

    assert (kept.payload_is_exact, changed.payload_is_exact) == (True, False)
    assert kept.payload == {"password": "hunter2", "n": [1, 2.5]}


def test_without_redaction_secrets_are_exact(make_store):
    store = make_store(redact=None)
    assert store.record_start(Job("1", "t", {"password": "x"}), *IDS).payload_is_exact is True


def test_a_copy_of_a_record_is_no_more_exact_than_the_record(plain_store):
    """Its payload does not change again, but it is not that of the job."""
    inexact = plain_store.record_execution(ENDED, payload={"password": "hunter2"})
    exact = plain_store.record_execution(ENDED, payload={"n": 1})
    unknown = plain_store.record_execution(ENDED)
    copies = create_store()

    assert [
        copies.record_execution(record).payload_is_exact for record in (inexact, exact, unknown)
    ] == [False, True, None]
    stated = ENDED | {"payload": {"password": "x"}, "payload_is_exact": True}
    assert copies.record_execution(stated).payload_is_exact is False, "it is redacted now"


def test_an_execution_without_a_payload_leaves_it_open(store):
    """Events of other systems may not include it. A job without a payload has none, exactly."""
    assert store.record_execution(ENDED).payload_is_exact is None
    assert store.record_execution(ENDED, payload=None).payload_is_exact is True
    assert store.record_start(Job("1", "t"), *IDS).payload_is_exact is True


def test_an_outcome_keeps_what_the_start_said(store):
    store.record_start(Job("job-1", "t", (1, 2)), *IDS)
    assert store.record_completion("job-1", *IDS, 5).payload_is_exact is False
    assert store.query()[0].payload_is_exact is False


def test_a_recorder_and_track_say_it_as_well(database_store, tmp_path):
    with Recorder(database_store, spool=tmp_path / "spool") as recorder:
        recorder.record_start(Job("inexact", "t", (1, 2)), *IDS)
        recorder.record_execution(ENDED, job_id="exact", payload=[1, 2])
    with database_store.track(Job("tracked", "t", {"token": "x"}), "w"):
        pass

    found = {record.job_id: record.payload_is_exact for record in database_store.query()}
    assert found == {"inexact": False, "exact": True, "tracked": False}


def test_a_value_that_another_thread_changes_meanwhile_is_not_exact():
    class Changing(list):
        def __iter__(self):
            raise RuntimeError("changed size during iteration")

    value = {"a": Changing()}
    assert is_exact(value, value) is False
