"""What is asked of many executions: pages, counts, statistics, kinds of failures, what runs."""

from __future__ import annotations

import itertools
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.orm import Session

from jobhistory import (
    Count,
    FailureGroup,
    HistoryQuery,
    InvalidInput,
    Job,
    Page,
    Percentiles,
    Status,
    TaskStats,
    WorkerActivity,
    WorkerLost,
    create_store,
)
from jobhistory.execution.ids import new_execution_id
from jobhistory.sanitize.truncate import ascii_lower

NOON = datetime(2015, 11, 1, 12, tzinfo=UTC)
ENDED = {"worker_id": "w", "correlation_id": "c", "task_identifier": "t"}

names = itertools.count()


def executions(store, *described, **common):
    """Record executions that have ended, a second apart, named by their numbers."""
    rows = []
    for number, each in enumerate(described):
        row = {
            **ENDED,
            "status": "failed" if "error" in each else "completed",
            "job_id": f"job-{number}",
            "started_at": NOON + timedelta(seconds=number),
            **common,
            **each,
        }
        begun = row["started_at"] or NOON + timedelta(seconds=number)
        rows.append({"completed_at": begun + timedelta(milliseconds=500), **row})
    store.record_many(rows)


def jobs(records):
    return [int(record.job_id.removeprefix("job-")) for record in records]


def pages(store, limits, **criteria):
    """The records of one page after the other, as large as the limits say in turn."""
    cursor = None
    for limit in itertools.cycle(limits):
        page = store.page(criteria, after=cursor, limit=limit)
        assert isinstance(page, Page)
        yield page.records
        cursor = page.next_cursor
        if cursor is None:
            return


def fields(record):
    return {c: getattr(record, c) for c in record.__mapper__.column_attrs.keys()}  # noqa: SIM118


# -- criteria ------------------------------------------------------------------------------------


def test_criteria_are_met_by_what_is_found(store):
    executions(
        store,
        {"execution_time_ms": 0},
        {"error": TimeoutError("timed out"), "execution_time_ms": 10},
        {"error": "100% full", "execution_time_ms": 20},
        {"error": "no a_b; axb", "execution_time_ms": 30},
        {"error": r"C:\temp is gone", "started_at": None},  # nothing tells how long it took
        {"execution_time_ms": 2**62},
    )
    for criteria, expected in CRITERIA:
        assert jobs(store.query(**criteria)) == expected, criteria
        assert jobs(store.query(HistoryQuery(**criteria))) == expected, criteria


CRITERIA = [
    ({"order": "oldest"}, [0, 1, 2, 3, 4, 5]),
    ({"order": "newest", "limit": 2}, [5, 4]),
    ({"limit": 2**63 - 1}, [5, 4, 3, 2, 1, 0]),
    ({"order": "oldest", "limit": 2}, [0, 1]),
    ({"order": "oldest", "status": "failed"}, [1, 2, 3, 4]),
    ({"job_id": "job-3"}, [3]),
    ({"job_id": "job-30"}, []),
    ({"correlation_id": "c"}, [5, 4, 3, 2, 1, 0]),
    ({"correlation_id": "c", "job_id": "job-1"}, [1]),
    ({"correlation_id": "other"}, []),
    ({"error_contains": "TIMED out"}, [1]),
    ({"error_contains": "timeoutERROR: t"}, [1]),
    ({"error_contains": "100%"}, [2]),
    ({"error_contains": "a_b"}, [3]),
    ({"error_contains": "\\"}, [4]),
    ({"error_contains": "%"}, [2]),
    ({"error_contains": "_"}, [3]),
    ({"error_contains": "no such thing"}, []),
    ({"error_contains": "Error", "status": "completed"}, []),
    ({"min_execution_time_ms": 20}, [5, 3, 2]),
    ({"min_execution_time_ms": 0}, [5, 3, 2, 1, 0]),
    ({"min_execution_time_ms": 31, "order": "oldest"}, [5]),
]


def test_without_an_order_a_query_returns_the_same_records_in_any_order(store):
    executions(store, *[{}] * 3, {"error": "x"}, {"error": "x"})
    assert sorted(jobs(store.query(order=None))) == [0, 1, 2, 3, 4]
    assert len(store.query(order=None, limit=2)) == 2
    assert sorted(jobs(store.query(order=None, status="failed"))) == [3, 4]
    assert jobs(store.iterate(order=None)) == [4, 3, 2, 1, 0]
    assert [jobs(page) for page in pages(store, [2], order=None)] == [[4, 3], [2, 1], [0]]
    cursor = store.page(order=None, limit=2).next_cursor
    assert jobs(store.page(order="newest", after=cursor, limit=2)) == [2, 1]


parents = [uuid.UUID(int=number) for number in (1, 2)]
traces = ["4bf92f3577b34da6a3ce929d0e0e4736", "0" * 31 + "1"]
workers = st.sampled_from(["host-1:5", "host-1:7", "HOST-1:5", "host-2", "h", "%", "_x", "ä:1"])
label_sets = st.dictionaries(
    st.sampled_from(["tenant", "queue"]), st.sampled_from(["acme", "Acme", "", "1", "ä'\"\\"])
)


@given(
    described=st.lists(
        st.fixed_dictionaries(
            {
                "worker_id": workers,
                "attempt_number": st.integers(0, 3),
                "labels": st.none() | label_sets,
                "parent_id": st.none() | st.sampled_from(parents),
                "trace_id": st.none() | st.sampled_from(traces),
            }
        ),
        max_size=12,
    ),
    criteria=st.fixed_dictionaries(
        {},
        optional={
            "worker_id": workers | st.lists(workers, max_size=3) | st.sets(workers, max_size=3),
            "worker_id_starts_with": st.sampled_from(["host-1", "host", "h", "%", "_", "ä", "H"]),
            "min_attempt": st.integers(0, 3),
            "labels": label_sets,
            "parent_id": st.sampled_from(parents),
            "trace_id": st.sampled_from(traces),
        },
    ),
)
def test_workers_attempts_labels_parents_and_traces_are_criteria(make_store, described, criteria):
    store = make_store(buffer_size=10_000)
    recorded = {"correlation_id": f"c-{next(names)}"}
    executions(store, *described, **recorded)

    def meets(execution):
        chosen = criteria.get("worker_id", execution["worker_id"])
        chosen = [chosen] if isinstance(chosen, str) else chosen
        labels = execution["labels"] or {}
        return (
            execution["worker_id"] in chosen
            and execution["worker_id"].startswith(criteria.get("worker_id_starts_with", ""))
            and execution["attempt_number"] >= criteria.get("min_attempt", 0)
            and labels.items() >= criteria.get("labels", {}).items()
            and criteria.get("parent_id") in (None, execution["parent_id"])
            and criteria.get("trace_id") in (None, execution["trace_id"])
        )

    expected = [number for number, each in enumerate(described) if meets(each)]
    assert jobs(store.query(criteria, order="oldest", **recorded)) == expected
    assert store.count(criteria, **recorded).value == len(expected)
    assert sum(each.executions for each in store.stats(criteria, **recorded)) == len(expected)
    paged = [number for page in pages(store, [2], **criteria, **recorded) for number in jobs(page)]
    assert paged == expected[::-1]


@pytest.mark.parametrize("limit", [2**63 - 1, 2**63 - 2])
def test_the_largest_limit_is_that_of_the_databases(store, limit):
    executions(store, {}, {}, {})
    page = store.page(limit=limit)
    assert (jobs(page), page.next_cursor) == ([2, 1, 0], None)
    assert jobs(store.query(limit=limit, order="oldest")) == [0, 1, 2]
    assert jobs(store.get_by_correlation_id("c", limit=limit)) == [2, 1, 0]
    assert len(store.failure_groups(limit=limit)) == len(store.running(limit=limit)) == 0


def test_a_page_is_a_collection_of_its_records(store):
    executions(store, {}, {}, {})
    page = store.page(limit=2)
    assert list(page) == page.records
    assert len(page) == 2
    assert bool(page)
    assert page.records[0] in page
    assert not store.page(status="failed")


@given(
    text=st.text(min_size=1).filter(lambda text: "\0" not in text),
    part=st.data(),
    case=st.sampled_from([str, str.upper, str.lower, str.swapcase]),
)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_any_part_of_a_message_finds_it_and_so_it_does_in_memory(database, text, part, case):
    """A to Z match in either case; other letters are taken as they are, on every database."""
    name = f"c-{next(names)}"
    first = part.draw(st.integers(0, len(text) - 1))
    last = part.draw(st.integers(first + 1, len(text)))
    needle = case(text[first:last])
    found = []
    for store in (create_store(), create_store(database.engine)):
        executions(store, {"error": text}, correlation_id=name)
        found.append(len(store.query(error_contains=needle, correlation_id=name)))
    assert found[0] == found[1]
    if ascii_lower(needle) == ascii_lower(text[first:last]):
        assert found[0] == 1


@pytest.mark.parametrize(
    ("criteria", "says"),
    [
        ({"order": "newest first"}, "order 'newest first' is not an order; write 'newest' or"),
        ({"error_contains": ""}, "error_contains '' is not a text to search for"),
        ({"error_contains": 7}, "error_contains 7"),
        ({"min_execution_time_ms": -1}, "min_execution_time_ms -1 .* write it like 1500"),
        ({"min_execution_time_ms": "1s"}, "min_execution_time_ms '1s'"),
        ({"job_id": ""}, "job_id '' is empty"),
        ({"correlation_id": 1.5}, "correlation_id 1.5 is not an id"),
        ({"limit": 2**63}, "limit"),
        ({"worker_id": ["w", ""]}, "worker_id '' is empty"),
        ({"worker_id_starts_with": ""}, "worker_id_starts_with '' is not the start of an id"),
        ({"worker_id_starts_with": ["h"]}, "worker_id_starts_with"),
        ({"min_attempt": -1}, "min_attempt -1 is not a whole number"),
        ({"min_attempt": 2**31}, "min_attempt"),
        ({"labels": "tenant"}, "labels 'tenant' is not a mapping"),
        ({"labels": {"Tenant": "acme"}}, "labels 'Tenant' is not the name of a label"),
        ({"labels": {"tenant": 5}}, "labels"),
        ({"parent_id": "0150c2eb-1e00-7000-80b1-a73527cf55ed"}, "parent_id"),
        ({"trace_id": "4BF9"}, "trace_id '4BF9' is not a trace id"),
    ],
)
def test_what_is_no_criterion_is_refused(plain_store, criteria, says):
    for ask in (plain_store.query, plain_store.page):
        with pytest.raises(InvalidInput, match=says):
            ask(criteria)


# -- pages ---------------------------------------------------------------------------------------


def test_a_page_says_where_the_next_one_begins(store):
    executions(store, *[{}] * 5)

    first = store.page(limit=2)
    second = store.page(limit=2, after=first.next_cursor)
    third = store.page(limit=2, after=second.next_cursor)
    assert [jobs(page.records) for page in (first, second, third)] == [[4, 3], [2, 1], [0]]
    assert third.next_cursor is None
    assert store.page(limit=5).next_cursor is None
    assert jobs(store.page(limit=None, after=first.next_cursor).records) == [2, 1, 0]
    assert store.page(limit=None).next_cursor is None
    assert store.page(status="failed") == Page([], None)


def test_a_page_is_of_a_hundred_without_a_limit(store):
    executions(store, *[{}] * 101)

    page = store.page()
    assert len(page.records) == 100
    assert jobs(store.page(after=page.next_cursor).records) == [0]


def test_a_page_validates_its_criteria_once(store):
    class Counting(int):
        read = 0

        def __str__(self):
            Counting.read += 1
            return int.__repr__(self)

    executions(store, *[{"job_id": "7"}] * 3)
    page = store.page(job_id=Counting(7), limit=1)
    assert (len(page.records), Counting.read) == (1, 1)
    page = store.page(job_id=Counting(7), limit=1, after=page.next_cursor)
    assert (len(page.records), Counting.read) == (1, 2)


def test_criteria_replace_those_of_a_query_by_name(store):
    executions(store, {}, {"error": "x"}, {"worker_id": "other"})
    query = HistoryQuery(status="completed", from_=NOON, limit=1)

    assert jobs(store.query(query)) == [2]
    assert jobs(store.query(query, worker_id="w", limit=None)) == [0]
    assert jobs(store.query(query, status=None, worker_id="w", order="oldest")) == [0]
    with pytest.raises(InvalidInput, match=r"from_ '2015-11-01 12.*' is after '2015-10-31"):
        store.query(query, to=NOON - timedelta(days=1))


criteria = st.fixed_dictionaries(
    {},
    optional={
        "order": st.sampled_from(["newest", "oldest"]),
        "status": st.sampled_from(["completed", "failed", ["failed", "partial_success"]]),
        "task_identifier": st.sampled_from(["a", ["a", "b"], ["a", "b", "c"], []]),
        "worker_id": st.sampled_from(["w", ["w"], ["w", "v"], []]),
        "worker_id_starts_with": st.sampled_from(["w", "W"]),
        "min_attempt": st.sampled_from([0, 1, 2]),
        "labels": st.sampled_from([{}, {"tenant": "acme"}]),
        "error_contains": st.just("O"),
        "min_execution_time_ms": st.just(1),
        "from_": st.just(NOON + timedelta(seconds=1)),
    },
)
described = st.fixed_dictionaries(
    {
        # Few moments, so that many start together.
        "started_at": st.integers(0, 3).map(lambda n: NOON + timedelta(seconds=n)),
        "completed_at": st.integers(0, 3).map(lambda n: NOON + timedelta(minutes=n, seconds=3)),
        "task_identifier": st.sampled_from(["a", "b", "c"]),
        "execution_time_ms": st.none() | st.integers(0, 3),
        "queue_time_ms": st.none() | st.integers(0, 2**63 - 1),
    },
    optional={
        "status": st.sampled_from(["completed", "partial_success", "cancelled"]),
    },
)
failed = st.builds(
    lambda execution, will_retry, error: {
        **execution,
        "status": "failed",
        "error": error,
        "will_retry": will_retry,
    },
    described,
    st.sampled_from([None, False, True]),
    st.sampled_from([ValueError("no 1"), ValueError("no 2"), OSError(), "no 'x'", "no 'y'", ""]),
)
some_executions = st.lists(described | failed, max_size=25)


@given(
    given_executions=some_executions,
    criteria=criteria,
    limits=st.lists(st.integers(1, 7), min_size=1),
)
def test_pages_one_after_the_other_are_the_unpaged_result(
    make_store, given_executions, criteria, limits
):
    """Ties included; what is recorded meanwhile takes nothing away, and nothing comes twice."""
    store = make_store(buffer_size=10_000)
    criteria = {**criteria, "correlation_id": f"c-{next(names)}"}
    recorded = {"correlation_id": criteria["correlation_id"]}
    executions(store, *given_executions, **recorded)

    unpaged = [r.id for r in store.query(criteria, limit=None)]
    paged = list(pages(store, limits, **criteria))
    assert [r.id for page in paged for r in page] == unpaged
    assert [r.id for r in store.iterate(criteria, batch_size=limits[0])] == unpaged
    assert all(paged) or paged == [[]], "no page but the only one is empty"
    assert store.count({k: v for k, v in criteria.items() if k != "order"}).value == len(unpaged)

    meanwhile = []
    for number, page in enumerate(pages(store, limits, **criteria)):
        meanwhile += page
        if number < 3:  # oldest first, it could else go on for ever
            executions(store, *given_executions[:2], **recorded)
    ids = [r.id for r in meanwhile]
    assert len(set(ids)) == len(ids)
    assert [id_ for id_ in ids if id_ in unpaged] == unpaged
    positions = [(r.started_at, r.id) for r in meanwhile]
    assert positions == sorted(positions, reverse=criteria.get("order") != "oldest")


def test_a_cursor_is_refused_for_other_criteria(store):
    executions(store, *[{"error": "x"}] * 3)
    cursor = store.page(limit=1, status="failed", from_=NOON).next_cursor

    for criteria in [
        {},
        {"from_": NOON},
        {"from_": NOON, "status": ["failed", "completed"]},
        {"from_": NOON, "status": "failed", "order": "oldest"},
        {"from_": NOON, "status": "failed", "job_id": 1},
        {"from_": NOON + timedelta(microseconds=1), "status": "failed"},
    ]:
        with pytest.raises(
            InvalidInput,
            match=r"^after 'v2.* belongs to other criteria; repeat those of its page, or start",
        ):
            store.page(criteria, after=cursor)
    same = {"from": NOON.astimezone(), "status": [Status.FAILED]}
    assert jobs(store.page(same, after=cursor, limit=7).records) == [1, 0]


@pytest.mark.parametrize(
    "text",
    ["", "v2", "v2.", "v2.AAAA", "v2.x y", "42", 42, "v2.=", "v2." + "A" * 2_000_000, "vé.A"],
)
def test_what_is_no_cursor_is_refused(plain_store, text):
    with pytest.raises(
        InvalidInput, match=r"after .* is not a cursor; give the next_cursor of a page, unchanged"
    ):
        plain_store.page(after=text)


def test_a_cursor_of_another_version_is_refused(store):
    with pytest.raises(InvalidInput, match="is a cursor of version 7, and this version of jobhist"):
        store.page(after="v7.abcdef")


def test_a_cursor_may_go_into_a_url_as_it_is(store):
    executions(store, *[{"error": "ü/?&=#"}] * 3)
    cursor = store.page(limit=1, error_contains="ü/?&=#", task_identifier=["t", "u"]).next_cursor

    assert set(cursor) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert len(cursor) == 51


# -- iterate -------------------------------------------------------------------------------------


def test_iterate_goes_through_all_whatever_their_number(store):
    executions(store, *[{}] * 7)

    assert jobs(store.iterate(batch_size=3)) == [6, 5, 4, 3, 2, 1, 0]
    assert jobs(store.iterate({"order": "oldest"})) == [0, 1, 2, 3, 4, 5, 6]
    assert jobs(store.iterate(HistoryQuery(order="oldest"), batch_size=7)) == list(range(7))
    assert jobs(store.iterate(status="failed")) == []


def test_iterate_refuses_what_it_cannot_use_at_once(store):
    for arguments, says in [
        ({"limit": 5}, "criteria 'limit' has no effect here"),
        ({"criteria": HistoryQuery(limit=5)}, "criteria 'limit' has no effect here"),
        ({"state": "failed"}, "criteria 'state' is not a criterion"),
        ({"batch_size": 0}, "batch_size 0"),
    ]:
        with pytest.raises(InvalidInput, match=says):
            store.iterate(**arguments)


def test_iterate_does_not_mind_what_becomes_of_the_records(database):
    store = create_store(database.engine)
    executions(store, *[{}] * 5)

    seen = []
    for record in store.iterate(batch_size=2):
        seen.append(record.job_id)
        record.started_at, record.id = NOON - timedelta(days=1), uuid.uuid4()
        assert database.engine.pool.checkedout() == 0, "no connection is held between batches"
    assert seen == ["job-4", "job-3", "job-2", "job-1", "job-0"]


def test_iterate_holds_one_batch_at_a_time(database):
    store = create_store(database.engine)
    executions(store, *[{}] * 6)
    store.count()  # the first question to a database reads how the table is laid out
    statements = []
    event.listen(database.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))

    found = store.iterate(batch_size=2)
    assert statements == []
    for _ in range(3):
        next(found)
    assert len(statements) == 2


# -- count ---------------------------------------------------------------------------------------


def test_count_is_exact_or_capped(store):
    executions(store, *[{}] * 5, {"error": "x"})

    assert store.count() == Count(6)
    assert store.count(status="failed") == Count(1)
    assert store.count(task_identifier=[]) == Count(0)
    assert store.count(job_id="job-2") == Count(1)
    for cap, count in [
        (None, Count(6)),
        (2**63 - 1, Count(6)),
        (7, Count(6)),
        (6, Count(6)),
        (5, Count(5, is_capped=True)),
        (0, Count(0, is_capped=True)),
    ]:
        assert store.count(cap=cap) == count
    assert store.count({"status": "failed"}, cap=1) == Count(1)


@pytest.mark.parametrize(
    ("count", "shown", "is_true"),
    [
        (Count(0), "0", False),
        (Count(7), "7", True),
        (Count(0, is_capped=True), "0+", True),
        (Count(10_000, is_capped=True), "10000+", True),
    ],
)
def test_a_count_looks_the_same_everywhere(count, shown, is_true):
    assert (str(count), f"{count}", f"{count:>9}") == (shown, shown, shown.rjust(9))
    assert repr(count) == f"<Count {shown}>"
    assert (int(count), bool(count)) == (count.value, is_true)


def test_a_count_is_a_value_but_no_number():
    """A number would hide that there may be more."""
    count = Count(10_000, is_capped=True)
    assert len({count, Count(10_000, is_capped=True), Count(10_000)}) == 2
    assert count != 10_000
    for compute in (lambda: count < 10_001, lambda: count + 1, lambda: "x" * count):
        with pytest.raises(TypeError):
            compute()
    with pytest.raises(AttributeError):
        count.value = 5


def test_count_refuses_what_it_cannot_use(store):
    for arguments in ({"limit": 5}, {"order": "oldest"}, {"cap": -1}, {"cap": "many"}):
        with pytest.raises(InvalidInput, match=next(iter(arguments))):
            store.count(**arguments)


# -- statistics ----------------------------------------------------------------------------------


def test_stats_tell_how_each_task_went(store, clock):
    clock.now = NOON + timedelta(hours=1)
    executions(
        store,
        *({"execution_time_ms": n, "queue_time_ms": 1000 - n} for n in range(1, 101)),
        {"error": ValueError("x"), "execution_time_ms": 500},
        {"status": "partial_success", "failed_steps": ["upload"]},
        {"status": "cancelled", "error_message": "stopped", "execution_time_ms": 1},
        {"error": "later", "will_retry": True, "execution_time_ms": 1},
        {"error": "never", "will_retry": False, "execution_time_ms": 500},
        task_identifier="ship",
    )
    executions(store, {"error": "x"}, task_identifier="pack")
    store.record_start(Job("running", "ship"), "w", "c")
    store.record_start(Job("running", "weigh", run_at=clock.now), "w", "c")

    pack, ship, weigh = store.stats()
    assert ship == TaskStats(
        task_identifier="ship",
        bucket=None,
        executions=106,
        started=1,
        completed=100,
        failed=3,
        partial_success=1,
        cancelled=1,
        final_failures=2,
        lost=0,
        execution_time_ms=Percentiles(p5=4, p50=51, p95=98, p99=500, max=500),
        queue_time_ms=Percentiles(p5=904, p50=949, p95=994, p99=998, max=999),
        last_start=clock.now,
        last_success=NOON + timedelta(seconds=99, milliseconds=500),
        last_failure=NOON + timedelta(seconds=104, milliseconds=500),
        is_exact=True,
    )
    assert ship.failure_rate == 2 / 103
    assert ship.attempt_failure_rate == 3 / 104
    assert (pack.task_identifier, pack.failure_rate) == ("pack", 1.0)
    assert (pack.last_success, pack.execution_time_ms.p50) == (None, 500)
    assert weigh.failure_rate is None
    assert weigh.execution_time_ms == Percentiles(*[None] * 5)
    assert weigh.queue_time_ms == Percentiles(*[0] * 5)
    assert weigh.last_failure is None


def test_stats_are_of_what_meets_the_criteria(store):
    executions(store, {}, {"error": "x"}, {"worker_id": "other"})

    assert store.stats(worker_id="unknown") == []
    (other,) = store.stats(worker_id="other")
    assert (other.executions, other.completed) == (1, 1)
    (failed,) = store.stats({"status": "failed"})
    assert (failed.executions, failed.failure_rate) == (1, 1.0)
    (later,) = store.stats(from_=NOON + timedelta(seconds=1))
    assert later.executions == 2


def test_a_series_has_statistics_of_each_period_in_which_something_started(store):
    moments = ["2015-10-31T23:59:59.999999", "2015-11-01T00:00:00", "2015-11-01T01:30:00"]
    executions(store, *({"started_at": datetime.fromisoformat(m + "+00:00")} for m in moments))
    early = datetime(1, 1, 1, 0, 0, 0, 999999, tzinfo=UTC)
    executions(store, {"started_at": early}, task_identifier="early")

    def begun(bucket, **criteria):
        return [s.bucket.isoformat()[:16] for s in store.stats(bucket=bucket, **criteria)]

    assert begun("1h", task_identifier="t") == [
        "2015-10-31T23:00",
        "2015-11-01T00:00",
        "2015-11-01T01:00",
    ]
    assert begun("1d") == ["0001-01-01T00:00", "2015-10-31T00:00", "2015-11-01T00:00"]
    assert begun("1 week", task_identifier="t") == ["2015-10-26T00:00"], "it begins on Monday"
    assert begun(timedelta(minutes=90), task_identifier="t")[-1] == "2015-11-01T01:30"
    assert begun(timedelta(days=3_000_000)) == ["0001-01-01T00:00"] * 2
    assert [s.executions for s in store.stats(bucket="1d")] == [1, 1, 2]
    assert all(s.bucket.tzinfo is UTC for s in store.stats(bucket="1d"))
    assert all(s.bucket is None for s in store.stats())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"bucket": "soon"}, "bucket 'soon' is not a duration"),
        ({"bucket": 3600}, "bucket 3600 has no unit"),
        ({"bucket": "0s"}, "bucket '0s'"),
        ({"bucket": timedelta(milliseconds=1500)}, "bucket .* is not a number of whole seconds"),
        ({"bucket": timedelta.max}, "bucket .* is not a number of whole seconds"),
        ({"bucket": timedelta(days=999999999)}, "bucket .* exceeds the range of dates"),
        ({"limit": 5}, "criteria 'limit' has no effect here; leave it out"),
        ({"order": "oldest"}, "criteria 'order' has no effect here; leave it out"),
    ],
)
def test_stats_refuse_what_they_cannot_use(plain_store, arguments, says):
    with pytest.raises(InvalidInput, match=says):
        plain_store.stats(**arguments)


@given(
    given_executions=some_executions,
    started=st.lists(st.sampled_from(["a", "b"]), max_size=3),
    bucket=st.none() | st.sampled_from(["1s", "2s", "7s"]),
)
def test_databases_compute_what_follows_from_the_rows(database, given_executions, started, bucket):
    """A store in memory computes it from the rows in plain Python."""
    correlation_id = f"c-{next(names)}"
    answers = []
    ids = [new_execution_id(NOON) for _ in given_executions]
    for bind in (None, database.engine):
        store = create_store(bind, buffer_size=10_000, clock=lambda: NOON)
        each = [{"id": id_} | e for id_, e in zip(ids, given_executions, strict=True)]
        executions(store, *each, correlation_id=correlation_id)
        for task in started:
            store.record_start(Job("s", task), "w", correlation_id)
        groups = store.failure_groups(correlation_id=correlation_id)
        answers.append(
            (
                store.stats(correlation_id=correlation_id, bucket=bucket),
                [{**vars(group), "example": fields(group.example)} for group in groups],
                [r.job_id for r in store.running(correlation_id=correlation_id)],
                len(store.failure_groups(correlation_id=correlation_id, limit=1)),
            )
        )
    assert answers[0] == answers[1]


@given(times=st.lists(st.integers(0, 5), min_size=1, max_size=250))
def test_percentiles_are_those_of_the_nearest_rank(database, times):
    """So many percent of the times do not exceed them, and of any smaller one, fewer do not."""
    correlation_id = f"c-{next(names)}"
    store = create_store(database.engine)
    executions(store, *({"execution_time_ms": n} for n in times), correlation_id=correlation_id)

    (stats,) = store.stats(correlation_id=correlation_id)
    for percent in (5, 50, 95, 99):
        found = getattr(stats.execution_time_ms, f"p{percent}")
        assert found in times
        assert sum(time <= found for time in times) * 100 >= percent * len(times)
        assert sum(time < found for time in times) * 100 < percent * len(times)
    assert stats.execution_time_ms.max == max(times)


# -- failures ------------------------------------------------------------------------------------


def test_failures_are_grouped_by_what_their_messages_have_in_common(store):
    executions(
        store,
        {"error": ValueError("no order 42")},
        {"error": ValueError("no order 4711")},
        {"error": ValueError("no order")},
        {"error": TypeError("no order 7")},
        {"error": ValueError("no order 7"), "task_identifier": "other"},
        {"error": ValueError("no order -3.5")},
        {},
        {"status": "failed"},
    )
    groups = store.failure_groups()
    assert all(isinstance(group, FailureGroup) for group in groups)
    assert [(g.task_identifier, g.error_type, g.message, g.count) for g in groups] == [
        ("t", "ValueError", "no order <number>", 3),
        ("t", "Error", "", 1),
        ("other", "ValueError", "no order <number>", 1),
        ("t", "TypeError", "no order <number>", 1),
        ("t", "ValueError", "no order", 1),
    ]
    orders = groups[0]
    assert orders.first_seen == NOON + timedelta(milliseconds=500)
    assert orders.last_seen == NOON + timedelta(seconds=5, milliseconds=500)
    assert (orders.example.job_id, orders.example.error_message) == ("job-5", "no order -3.5")
    assert "ValueError: no order -3.5" in orders.example.error_stack

    assert [g.count for g in store.failure_groups(limit=2)] == [3, 1]
    assert [g.message for g in store.failure_groups(error_type="TypeError")] == [
        "no order <number>"
    ]
    assert [g.count for g in store.failure_groups(task_identifier="other")] == [1]
    assert store.failure_groups(from_=NOON + timedelta(hours=1)) == []


def test_long_messages_are_told_apart_by_their_beginning(store):
    executions(store, {"error": "x" * 500 + "a"}, {"error": "x" * 500 + "b"})

    (group,) = store.failure_groups()
    assert (group.count, group.message) == (2, "x" * 500)


def test_the_example_of_a_group_is_the_failure_that_ended_last(store):
    for job_id, start, took in [("1", 0, 10_000), ("2", 9, 1000), ("3", 9.5, 100)]:
        store.record_execution(
            job_id=job_id,
            task_identifier="t",
            worker_id="w",
            correlation_id="c",
            started_at=NOON + timedelta(seconds=start),
            execution_time_ms=took,
            error=ValueError(f"no order {job_id}"),
        )

    (group,) = store.failure_groups()
    assert group.last_seen == group.example.completed_at == NOON + timedelta(seconds=10)
    assert group.example.job_id == "2", "of two that ended then, the one with the greater id"


def test_a_group_is_new_if_it_has_no_failure_in_the_time_before_the_window(store):
    executions(
        store,
        {"error": ValueError("no order 1"), "started_at": NOON - timedelta(days=2)},
        {"error": ValueError("no order 2"), "worker_id": "other"},
        {"error": ValueError("no tenant")},
        {"error": ValueError("no order 3"), "task_identifier": "other"},
    )

    def new(known_for, **criteria):
        groups = store.failure_groups(from_=NOON, known_for=known_for, **criteria)
        return {(each.task_identifier, each.message): each.is_new for each in groups}

    order, tenant, other = (
        ("t", "no order <number>"),
        ("t", "no tenant"),
        ("other", "no order <number>"),
    )
    assert new("3 days") == {order: False, tenant: True, other: True}
    assert new("1 day") == {order: True, tenant: True, other: True}
    assert new(timedelta.max)[order] is False
    assert new("3 days", worker_id="other") == {order: True}, "the other criteria count as well"
    assert set(new(None).values()) == {None}
    assert {each.is_new for each in store.failure_groups(known_for="1 day")} == {None}


@given(given_executions=some_executions, known_for=st.integers(1, 4), limit=st.integers(1, 5))
def test_new_groups_follow_from_all_groups(make_store, given_executions, known_for, limit):
    store = make_store(buffer_size=10_000)
    criteria = {"correlation_id": f"c-{next(names)}"}
    executions(store, *given_executions, **criteria)
    begun = NOON + timedelta(seconds=2)
    earlier = begun - timedelta(seconds=known_for)
    before = begun - timedelta(microseconds=1)

    def kind(group):
        return group.task_identifier, group.error_type, group.message

    known = {kind(each) for each in store.failure_groups(criteria, from_=earlier, to=before)}
    groups = store.failure_groups(
        criteria, from_=begun, limit=limit, known_for=timedelta(seconds=known_for)
    )
    assert [each.is_new for each in groups] == [kind(each) not in known for each in groups]
    plain = store.failure_groups(criteria, from_=begun, limit=limit)
    assert list(map(kind, groups)) == list(map(kind, plain))


@pytest.mark.parametrize("known_for", ["soon", 7, "0s"])
def test_the_time_before_the_window_is_a_duration(plain_store, known_for):
    with pytest.raises(InvalidInput, match="known_for"):
        plain_store.failure_groups(known_for=known_for)


def test_failures_refuse_what_makes_no_difference(store):
    for key in ("status", "order"):
        with pytest.raises(InvalidInput, match=f"criteria '{key}' has no effect here"):
            store.failure_groups({key: "failed"})


# -- what runs -----------------------------------------------------------------------------------


def test_running_is_what_has_started_and_not_ended_longest_first(store, clock):
    for number in range(5):
        store.record_start(Job(f"job-{number}", f"task-{number % 2}"), "w", "c")
        clock.advance(minutes=1)
    store.record_completion("job-1", "w", "c", 1)
    store.record_failure("job-4", "w", "c", 1, "x")

    assert jobs(store.running()) == [0, 2, 3]
    assert all(record.status is Status.STARTED for record in store.running())
    assert jobs(store.running(limit=1)) == [0]
    assert jobs(store.running(task_identifier="task-1")) == [3]
    assert jobs(store.running({"from": clock.now - timedelta(minutes=3)})) == [2, 3]
    assert store.running(worker_id="other") == []


def test_running_pages_are_pages_of_started_executions_oldest_first(store, clock):
    for number in range(5):
        store.record_start(Job(f"job-{number}", "t"), "w", "c")
    query = {"status": "started", "order": "oldest"}

    found = [r.id for page in pages(store, [2], **query) for r in page]
    assert found == [r.id for r in store.running()]
    assert len(found) == 5


def test_running_refuses_what_makes_no_difference(store):
    for criteria in ({"status": "started"}, {"order": "newest"}):
        with pytest.raises(InvalidInput, match="has no effect here"):
            store.running(**criteria)


# -- workers -------------------------------------------------------------------------------------


def test_workers_are_told_by_what_they_did_last_seen_first(store, clock):
    begun = clock.now
    store.record_start(Job("job-0", "t"), "busy", "c")
    store.record_start(Job("job-1", "t"), "gone", "c")
    clock.advance(minutes=1)
    store.record_execution(ENDED, job_id="job-2", worker_id="idle", error=ValueError("x"))
    clock.advance(minutes=1)
    store.record_completion("job-0", "busy", "c", 1)
    store.record_start(Job("job-3", "t"), "busy", "c")
    clock.advance(hours=1)
    store.record_failure("job-1", "gone", "c", 1, WorkerLost("no heartbeat"))

    busy, idle, gone = store.workers()
    assert busy == WorkerActivity(
        worker_id="busy",
        executions=2,
        running=1,
        failed=0,
        lost=0,
        first_seen=begun,
        last_seen=begun + timedelta(minutes=2),
    )
    assert (idle.worker_id, idle.failed, idle.lost) == ("idle", 1, 0)
    assert (gone.worker_id, gone.failed, gone.lost) == ("gone", 1, 1)
    assert gone.last_seen == begun, "that a worker is lost is no sign of its life"
    assert store.workers(limit=1) == [busy]
    assert store.workers(worker_id_starts_with="i") == [idle]
    assert [w.executions for w in store.workers(from_=begun + timedelta(minutes=1))] == [1, 1]
    assert store.workers(task_identifier="other") == []


moments = st.integers(0, 3).map(lambda n: NOON + timedelta(seconds=n))


@given(
    ended=st.lists(
        st.fixed_dictionaries(
            {
                "worker_id": workers,
                "started_at": moments,
                "completed_at": moments.map(lambda moment: moment + timedelta(seconds=3)),
                "heartbeat_at": st.none() | moments,
            },
            optional={"error": st.sampled_from([ValueError("x"), WorkerLost("x")])},
        ),
        max_size=12,
    ),
    running=st.lists(workers, max_size=3),
    given_criteria=st.fixed_dictionaries(
        {},
        optional={
            "from_": moments,
            "to": moments.map(lambda moment: moment + timedelta(seconds=3)),
            "worker_id_starts_with": st.sampled_from(["host-1", "ä"]),
            "error_type": st.just("ValueError"),
            "limit": st.integers(1, 4),
        },
    ),
)
def test_what_workers_did_follows_from_their_executions(make_store, ended, running, given_criteria):
    store = make_store(buffer_size=10_000)
    criteria = {"correlation_id": f"c-{next(names)}"} | given_criteria
    executions(store, *ended, correlation_id=criteria["correlation_id"])
    for worker in running:
        store.record_start(Job("job-99", "t"), worker, criteria["correlation_id"])

    records = store.query(criteria, limit=None)
    expected = []
    for worker in sorted({record.worker_id for record in records}):
        own = [record for record in records if record.worker_id == worker]
        lost = [record for record in own if record.error_type == "jobhistory.WorkerLost"]
        signs = [(r.started_at, r.heartbeat_at, r not in lost and r.completed_at) for r in own]
        expected.append(
            WorkerActivity(
                worker_id=worker,
                executions=len(own),
                running=sum(record.completed_at is None for record in own),
                failed=sum(record.status is Status.FAILED for record in own),
                lost=len(lost),
                first_seen=min(record.started_at for record in own),
                last_seen=max(sign for each in signs for sign in each if sign),
            )
        )
    expected.sort(key=lambda worker: worker.last_seen, reverse=True)
    assert store.workers(criteria) == expected[: criteria.get("limit")]


def test_workers_refuse_what_makes_no_difference(plain_store):
    for criteria in ({"status": "failed"}, {"order": "oldest"}):
        with pytest.raises(InvalidInput, match="has no effect here"):
            plain_store.workers(criteria)


# -- together ------------------------------------------------------------------------------------


def test_questions_in_a_session_see_what_it_has_not_committed(database):
    store = create_store(database.engine)
    with Session(database.engine) as session:
        inside = store.in_session(session)
        inside.record_start(Job("job-0", "t"), "w", "c")
        inside.record_execution(ENDED, job_id="job-1", error=ValueError("no 7"))
        assert inside.count().value == 2
        assert [s.executions for s in inside.stats()] == [2]
        (group,) = inside.failure_groups()
        assert (group.message, group.example.job_id) == ("no <number>", "job-1")
        assert group.example not in session
        assert jobs(inside.running()) == [0]
        assert len(list(inside.iterate(batch_size=1))) == 2
        assert len(inside.page().records) == 2
        session.rollback()
    assert [r.job_id for r in store.query()] == ["job-1"], "failures survive"


def test_failures_may_be_asked_for_while_the_caller_reads_from_the_connection(database):
    store = create_store(database.engine)
    executions(store, {"error": "x"}, {"error": "y"})
    with Session(database.engine) as session:
        for _ in range(2):
            rows = session.connection().exec_driver_sql("SELECT id FROM job_history")
            rows.fetchone()
            assert len(store.in_session(session).failure_groups()) == 2
            rows.fetchone()
        session.rollback()
