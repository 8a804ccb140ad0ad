"""Wrong input gets an error that says what is wrong; hostile input gets recorded."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from jobhistory import HistoryStore, InvalidInput, Job, Limits, Status, create_store

IDS = ("job-1", "worker-1", "request-1")


@pytest.fixture
def store(plain_store):
    return plain_store


def bad_starts():
    yield Job("", "t"), {}, "job.id '' is empty; write it like 'order-42'"
    yield Job("x" * 300, "t"), {}, "job.id 'xxx"
    yield Job("x" * 300, "t"), {}, "is longer than 255 characters"
    yield Job(None, "t"), {}, "job.id None is not an id"
    yield Job(True, "t"), {}, "job.id True is not an id"
    yield Job(10**5000, "t"), {}, "job.id <int that has no repr> is longer than 255 characters"
    yield Job("1", ""), {}, "job.task_identifier '' is not a name"
    yield Job("1", None), {}, "job.task_identifier None is not a name"
    yield Job("1", "t", attempts=-1), {}, "job.attempts -1 is not a whole number from 0 up"
    yield Job("1", "t", attempts="2"), {}, "job.attempts '2' is not a whole number"
    yield Job("1", "t", run_at=datetime(2026, 1, 1)), {}, r"job.run_at .* has no time zone"
    yield Job("1", "t", run_at="now"), {}, "job.run_at 'now' is not a datetime"
    yield Job("1", "t"), {"worker_id": ""}, "worker_id '' is empty"
    yield Job("1", "t"), {"correlation_id": 1.5}, "correlation_id 1.5 is not an id"
    yield Job("1", "t"), {"history_retention": "soon"}, "history_retention 'soon' is not a duration"


@pytest.mark.parametrize(("job", "arguments", "message"), list(bad_starts()))
def test_record_start_refuses(store, job, arguments, message):
    given = {"worker_id": "w", "correlation_id": "c"} | arguments
    with pytest.raises(InvalidInput, match=message) as caught:
        store.record_start(job, **given)

    assert isinstance(caught.value, ValueError)
    assert store.query() == []


@pytest.mark.parametrize(
    "milliseconds",
    [-1, timedelta(seconds=-1), float("nan"), float("inf"), "5", True, 2**63, 1e300],
)
def test_an_execution_time_is_from_0_up_to_what_64_bits_hold(store, milliseconds):
    store.record_start(Job("job-1", "t"), *IDS[1:])
    with pytest.raises(InvalidInput, match=r"execution_time_ms .* write it like 1500"):
        store.record_completion(*IDS, milliseconds)

    assert store.get_by_job_id("job-1")[0].status is Status.STARTED
    assert store.record_completion(*IDS, 2**63 - 1).execution_time_ms == 2**63 - 1


@pytest.mark.parametrize("error", [None, 42, ValueError])
def test_an_error_is_an_exception_or_a_text(store, error):
    store.record_start(Job("job-1", "t"), *IDS[1:])
    with pytest.raises(InvalidInput, match=r"error .* pass an exception, a text or a Failure"):
        store.record_failure(*IDS, 1, error)


@pytest.mark.parametrize(
    ("partial", "message"),
    [
        (
            {"steps": []},
            "'steps' is not a valid key; the valid keys are completed_steps, failed_steps",
        ),
        ({"failed_steps": "upload"}, "failed_steps 'upload' is not a list of texts"),
        ({"completed_steps": 3}, "completed_steps 3 is not a list of texts"),
        ("everything", "partial_results <class 'str'> is neither a mapping nor"),
    ],
)
def test_partial_results_have_four_known_fields(store, partial, message):
    store.record_start(Job("job-1", "t"), *IDS[1:])
    with pytest.raises(InvalidInput, match=message):
        store.record_partial_success(*IDS, 1, partial)


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ({"limit": 0}, "limit 0 is not a whole number from 1 up; write it like 100"),
        ({"limit": -5}, "limit -5 is not"),
        ({"limit": "10"}, "limit '10' is not"),
        ({"status": "done"}, "status 'done' is not a status; use one of 'started', 'completed'"),
        ({"status": ["failed", 3]}, "status 3 is not a status"),
        ({"state": "failed"}, "criteria 'state' is not a criterion; valid criteria: from_, to"),
        ({"from_": datetime(2026, 1, 1)}, "from_ .* has no time zone; write it like datetime"),
        ({"to": "2026-01-01"}, "to '2026-01-01' is not a datetime"),
        ({"task_identifier": 5}, "task_identifier 5 is not a name"),
        ({"worker_id": [1.5]}, "worker_id 1.5 is not an id"),
        ({"error_type": ""}, "error_type '' is not a name"),
        (
            {"from_": datetime(2026, 2, 1, tzinfo=UTC), "to": datetime(2026, 1, 1, tzinfo=UTC)},
            "from_ '2026-02-01 .*' is after '2026-01-01 ",
        ),
    ],
)
def test_query_refuses(store, criteria, message):
    with pytest.raises(InvalidInput, match=message):
        store.query(**criteria)
    with pytest.raises(InvalidInput, match=message):
        store.query(criteria)


def test_query_refuses_what_is_no_criteria(store):
    with pytest.raises(InvalidInput, match=r"criteria \[1\] is not a mapping"):
        store.query([1])
    with pytest.raises(InvalidInput, match="n -1 is not a whole number"):
        store.recent(-1)
    with pytest.raises(InvalidInput, match="n True is not a whole number"):
        store.recent(True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"buffer_size": 0}, "buffer_size 0 is not a whole number from 1 up; write it like 1000"),
        ({"buffer_size": 1.5}, "buffer_size 1.5 is not"),
        ({"history_retention": "soon"}, "history_retention 'soon' is not a duration; write it"),
        ({"history_retention": 30}, "history_retention 30 has no unit"),
        ({"history_retention": "30"}, "history_retention '30' is not a duration"),
        ({"history_retention": "-1 day"}, "history_retention '-1 day' is not positive"),
        ({"history_retention": timedelta(0)}, "history_retention .* is not positive"),
        ({"history_retention": "3000000 days"}, "ends after the year 9999"),
        ({"clock": datetime.now}, r"clock\(\) .* has no time zone"),
    ],
)
def test_a_store_refuses_what_it_cannot_work_with(options, message):
    with pytest.raises(InvalidInput, match=message):
        create_store(**options).record_start(Job("1", "t"), "w", "c")


@pytest.mark.parametrize("name", ["payload", "results", "message", "stack"])
def test_a_limit_leaves_room_for_saying_what_was_cut(name):
    with pytest.raises(InvalidInput, match=rf"limits.{name} 100 .* from 1024 up"):
        Limits(**{name: 100})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size 0 is not a whole number from 1 up; write it like 1000"),
        ({"time_limit": 5}, "time_limit 5 has no unit; write it like '30 days' or '12h'"),
    ],
)
def test_expire_refuses(store, arguments, message):
    with pytest.raises(InvalidInput, match=message):
        store.expire(**arguments)


@pytest.mark.parametrize(
    "bind",
    [42, object(), Session(), "not a url", "nosuchdb://host/x"],
    ids=["number", "object", "session", "text", "dialect"],
)
def test_create_store_refuses_a_bind_that_is_none(bind):
    with pytest.raises(InvalidInput, match="bind"):
        create_store(bind)


def test_a_history_store_takes_only_what_makes_sessions():
    with pytest.raises(InvalidInput, match=r"session_factory .* sessionmaker\(engine\)"):
        HistoryStore(create_engine("sqlite://"))


@pytest.mark.parametrize(
    ("make", "argument"), [(create_store, "bind"), (HistoryStore, "session_factory")]
)
def test_a_scoped_session_is_refused_as_it_is_the_apps_own_session(make, argument):
    with pytest.raises(InvalidInput, match="pass its session_factory") as caught:
        make(scoped_session(sessionmaker()))
    assert caught.value.argument == argument


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_that_dies_with_its_connection_is_refused(url):
    with pytest.raises(InvalidInput, match="pass None for a store in memory"):
        create_store(url)


@pytest.mark.parametrize("driver", ["postgresql+psycopg_async", "postgresql+asyncpg"])
def test_an_asyncio_driver_is_refused_by_name(driver):
    with pytest.raises(InvalidInput, match="names an asyncio driver") as caught:
        create_store(f"{driver}://app:hunter2@host/db")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:hunter2@host:port/db",
        "postgresql://app:p@hunter2/word@host/db",
        "postgresql://app:p@hunter2@host/db",
        "postgresql://app:p@ss?hunter2@host/db",
        "mystery://app:hunter2@host/db",
        "app:hunter2@host/db",
        "host=db user=app password=hunter2",
    ],
)
def test_a_refused_url_does_not_show_its_password(url):
    with pytest.raises(InvalidInput) as caught:
        create_store(url)

    assert "hunter2" not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("no")


class Liar(dict):
    def items(self):
        raise RuntimeError("no")


class Colour(Enum):
    RED = object()


def hostile_payloads():
    circle = [1]
    circle.append(circle)
    deep = []
    for _ in range(10_000):
        deep = [deep]
    yield "nul", {"a\x00b": "c\x00d"}, {"a\ufffdb": "c\ufffdd"}
    yield "surrogate", ["\ud800", {"\udfff": 1}], ["\ufffd", {"\ufffd": 1}]
    yield "nan", [float("nan"), float("inf"), -float("inf")], ["NaN", "Infinity", "-Infinity"]
    yield "bytes", [b"abc\xff", bytearray(b"x"), memoryview(b"\0")], ["abc\\xff", "x", "\ufffd"]
    yield "circle", circle, [1, "[circular]"]
    yield "unprintable", [Unprintable()], ["<Unprintable that raised RuntimeError>"]
    yield "liar", [Liar(a=1)], ["<Liar that raised RuntimeError>"]
    yield "keys", {1: "a", "1": "b", None: "c"}, {"1": "a", "1 [1]": "b", "null": "c"}
    yield "set", {3, "x", 1}, ["x", 1, 3]
    yield "decimal", [Decimal("1.10"), Decimal("NaN")], ["1.10", "NaN"]
    yield (
        "times",
        [datetime(2026, 1, 1), timedelta(days=1)],
        ["2026-01-01T00:00:00", "1 day, 0:00:00"],
    )
    yield "digits", 10**5000, hex(10**5000)
    yield "huge float", [1e308, 5e-324], None
    yield "enum", Colour.RED, None
    yield "lock", {"lock": threading.Lock()}, None
    yield "deep", deep, None
    yield "100 MB of text", {"id": 7, "text": "\u20ac" * 34_000_000}, None
    yield "100 MB of bytes", b"\x00" * 100_000_000, None
    yield "many items", list(range(3_000_000)), None
    yield "generator", (n for n in [1]), None
    yield "class", Unprintable, None


@pytest.mark.parametrize(
    ("payload", "stored"),
    [pytest.param(payload, stored, id=name) for name, payload, stored in hostile_payloads()],
)
def test_a_hostile_payload_is_recorded(store, payload, stored):
    store.record_start(Job("job-1", "t", payload), *IDS[1:])
    store.record_partial_success(*IDS, 1, {"results": payload})

    (record,) = store.get_by_job_id("job-1")
    assert record.payload is not None
    assert record.payload == record.partial_results
    if stored is not None:
        assert record.payload == stored


@pytest.mark.parametrize("text", ["\x00", "\ud800", "a\x00b\udfffc", "\x00" * 255])
def test_nul_and_lone_surrogates_are_recorded_and_found_in_every_text(store, text):
    store.record_start(Job(text, text, text), text, text)
    store.record_failure(text, text, text, 1, text)
    store.record_start(Job(text, text), text, text)
    store.record_failure(text, text, text, 1, ValueError(text))
    store.record_start(Job(text, text), text, text)
    store.record_partial_success(
        text,
        text,
        text,
        1,
        {
            "completed_steps": [text],
            "failed_steps": [text],
            "retry_from_step": text,
            "results": text,
        },
    )

    assert len(store.get_by_job_id(text)) == len(store.get_by_correlation_id(text)) == 3
    partial, failed, _ = store.query(task_identifier=text, worker_id=text)
    clean = "".join("\ufffd" if char in "\x00\ud800\udfff" else char for char in text)
    assert failed.job_id == failed.error_message == clean
    assert partial.failed_steps == [clean]
    assert partial.retry_from_step == partial.partial_results == clean


def recursion():
    def down(n):
        return down(n + 1)

    try:
        down(0)
    except RecursionError as error:
        return error


def group():
    try:
        try:
            raise OSError("disk")
        except OSError as cause:
            inner = ExceptionGroup("inner", [UnprintableError(), KeyError("k")])
            raise ExceptionGroup("outer", [inner, ValueError("\x00")]) from cause
    except ExceptionGroup as error:
        return error


def chain():
    error = None
    for number in range(3000):
        following = ValueError(number)
        following.__cause__, error = error, following
    return error


def circular_causes():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    return one


@pytest.mark.parametrize(
    ("make", "kind", "told"),
    [
        (recursion, "RecursionError", "repeated"),
        (group, "ExceptionGroup", "KeyError: 'k'"),
        (group, "ExceptionGroup", "OSError: disk"),
        (UnprintableError, f"{__name__}.UnprintableError", "UnprintableError"),
        (chain, "ValueError", "bytes in all"),
        (circular_causes, "ValueError", "ValueError: one"),
        (lambda: ValueError("x" * 100_000_000), "ValueError", "bytes in all"),
        (lambda: type("N" * 1000, (Exception,), {})(), None, "NNN"),
        (lambda: SystemExit(3), "SystemExit", "SystemExit: 3"),
        (lambda: KeyboardInterrupt(), "KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_a_hostile_error_is_recorded(store, make, kind, told):
    store.record_start(Job("job-1", "t"), *IDS[1:])
    store.record_failure(*IDS, 1, make())

    (record,) = store.query(status="failed")
    assert told in record.error_stack
    assert len(record.error_stack.encode()) <= 65536
    assert len(record.error_message.encode()) <= 65536
    assert len(record.error_type) <= 255
    if kind is not None:
        assert record.error_type == kind


def test_a_record_is_written_near_the_recursion_limit(store):
    """A handler may stand deep in the stack of the failure that it reports."""
    store.record_start(Job("job-1", "t"), *IDS[1:])  # imports and caches are warm from here on
    depth, frame = 0, sys._getframe()
    while frame:
        depth, frame = depth + 1, frame.f_back

    def down(n):
        return store.record_failure(*IDS, 1, "deep") if n == 0 else down(n - 1)

    assert down(sys.getrecursionlimit() - depth - 200).error_message == "deep"


def test_names_that_are_too_long_are_cut_and_found_again(store):
    name = "task" * 100
    store.record_start(Job("job-1", name), *IDS[1:])

    (record,) = store.query(task_identifier=name)
    assert len(record.task_identifier) == 255
    assert record.task_identifier.endswith("... [cut, 400 bytes]")
