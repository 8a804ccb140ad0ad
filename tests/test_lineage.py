"""Where an execution comes from: the execution that started it, and its trace."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from types import SimpleNamespace

import pytest

from jobhistory import (
    InvalidInput,
    Job,
    Recorder,
    create_async_store,
    create_store,
    current_execution,
    new_execution_id,
)
from tests.conftest import async_engine

trace = pytest.importorskip("opentelemetry.trace")

IDS = ("worker-1", "request-1")
TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def found(store):
    return {record.job_id: record for record in store.query()}


# -- parents -------------------------------------------------------------------------------------


def test_the_parent_is_an_argument(store):
    parent = new_execution_id()
    store.record_start(Job("recorded", "t"), *IDS, parent_id=parent)
    store.begin(Job("begun", "t"), "w", parent_id=parent).end()
    store.record_completion("recorded", *IDS, 5)

    for record in [*store.query(), *store.recent()]:
        assert record.parent_id == parent


def test_an_execution_that_is_tracked_inside_another_has_it_as_its_parent(plain_store):
    with plain_store.track(Job("outer", "t"), "w") as outer:
        with plain_store.track(Job("inner", "t"), "w") as inner:
            assert inner.id != outer.id
            plain_store.begin(Job("begun", "t"), "w").end()
        with plain_store.track(Job("second", "t"), "w"):
            pass
        plain_store.record_start(Job("recorded", "t"), *IDS)
    with plain_store.track(Job("after", "t"), "w"):
        pass

    records = found(plain_store)
    assert records["outer"].id == outer.id
    assert records["inner"].parent_id == records["second"].parent_id == outer.id
    assert records["begun"].parent_id == inner.id
    assert records["after"].parent_id is records["outer"].parent_id is None
    assert records["recorded"].parent_id is None, "record_start takes what it is given"


def test_a_given_parent_takes_precedence_over_the_enclosing_execution(plain_store):
    parent = new_execution_id()
    with (
        plain_store.track(Job("outer", "t"), "w"),
        plain_store.track(Job("inner", "t"), "w", parent_id=parent),
    ):
        pass
    assert found(plain_store)["inner"].parent_id == parent


def test_the_enclosing_execution_may_be_of_another_store(database):
    outer, inner = create_store(), create_store(database.engine)
    with outer.track(Job("outer", "t"), "w") as execution, inner.track(Job("inner", "t"), "w"):
        pass
    assert found(inner)["inner"].parent_id == execution.id


def test_an_execution_has_its_parent_if_history_could_not_record_it(plain_store, monkeypatch):
    """Its row is written at its end, with the id that it had from the start."""

    def unavailable(*args, **named):
        raise ConnectionError("no database")

    with monkeypatch.context() as broken:
        broken.setattr(plain_store._destination, "insert", unavailable)
        outer = plain_store.track(Job("outer", "t"), "w")
        outer_execution = outer.__enter__()
    with plain_store.track(Job("inner", "t"), "w"):
        pass
    outer.__exit__(None, None, None)

    records = found(plain_store)
    assert records["inner"].parent_id == records["outer"].id == outer_execution.id


def test_each_call_of_a_decorated_function_has_its_own_parent(plain_store):
    @plain_store.track(lambda n: Job(f"work-{n}", "t"), "w")
    def work(n):
        if n:
            work(n - 1)

    work(2)

    records = found(plain_store)
    assert records["work-0"].parent_id == records["work-1"].id
    assert records["work-1"].parent_id == records["work-2"].id
    assert records["work-2"].parent_id is None


def test_what_makes_the_job_is_no_part_of_its_execution(plain_store):
    def make_job():
        with plain_store.track(Job("made", "t"), "w"):
            return Job("inner", "t")

    @plain_store.track(make_job, "w")
    def work():
        pass

    with plain_store.track(Job("outer", "t"), "w") as outer:
        work()
    assert found(plain_store)["made"].parent_id == outer.id


def test_a_thread_has_the_parent_of_its_context(plain_store):
    def work(job_id):
        with plain_store.track(Job(job_id, "t"), "w"):
            pass

    with plain_store.track(Job("outer", "t"), "w") as outer:
        context = contextvars.copy_context()
        for target in (lambda: work("bare"), lambda: context.run(work, "copied")):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()

    records = found(plain_store)
    assert records["copied"].parent_id == outer.id
    assert records["bare"].parent_id is None


def test_tasks_have_the_parent_in_which_they_were_created(database, clock):
    async def main():
        closing = []
        with async_engine(database, closing.append) as engine:
            store = create_async_store(engine, clock=clock)

            async def work(job_id):
                async with store.track(Job(job_id, "t"), "w"):
                    await asyncio.sleep(0)

            async with store.track(Job("outer", "t"), "w") as outer:
                await asyncio.gather(work("1"), work("2"))
                left_behind = asyncio.create_task(work("left-behind"))
            await left_behind
            await work("after")
            begun = {record.job_id: record.parent_id for record in await store.query()}
        await closing[0]
        return outer.id, begun

    outer, parents = asyncio.run(main())
    assert parents == {"outer": None, "1": outer, "2": outer, "left-behind": outer, "after": None}


def test_the_current_execution_has_the_id_of_its_record(plain_store):
    with plain_store.track(Job("job-1", "t"), "w"):
        id_ = current_execution().id
    assert found(plain_store)["job-1"].id == id_


def test_a_recorder_records_parents_and_traces(database_store):
    with Recorder(database_store) as recorder:
        with recorder.track(Job("outer", "t"), "w", traceparent=TRACEPARENT) as outer:
            recorder.begin(Job("begun", "t"), "w").end()
        recorder.record_start(Job("recorded", "t"), *IDS, parent_id=outer.id)

    records = found(database_store)
    assert records["begun"].parent_id == records["recorded"].parent_id == records["outer"].id
    assert (records["outer"].trace_id, records["outer"].span_id) == (TRACE_ID, SPAN_ID)


@pytest.mark.parametrize("parent", ["job-7", 7, object()])
def test_a_parent_is_an_execution_id(plain_store, parent):
    for call in (
        lambda: plain_store.record_start(Job("1", "t"), *IDS, parent_id=parent),
        lambda: plain_store.begin(Job("1", "t"), "w", parent_id=parent),
        lambda: plain_store.track(Job("1", "t"), "w", parent_id=parent)(print),
    ):
        with pytest.raises(InvalidInput, match="pass the id of the record of the parent"):
            call()


# -- traces --------------------------------------------------------------------------------------


def test_a_traceparent_gives_the_ids_of_the_trace(store):
    store.record_start(Job("recorded", "t"), *IDS, traceparent=TRACEPARENT)
    store.begin(Job("begun", "t"), "w", traceparent=TRACEPARENT).end()

    for record in store.query():
        assert (record.trace_id, record.span_id) == (TRACE_ID, SPAN_ID)


@pytest.mark.parametrize(
    "traceparent",
    [
        f"01-{TRACE_ID}-{SPAN_ID}-00",
        f"01-{TRACE_ID}-{SPAN_ID}-00-more-fields",
        f"cc-{TRACE_ID}-{SPAN_ID}-ff-",
    ],
)
def test_a_traceparent_of_a_later_version_is_read(plain_store, traceparent):
    record = plain_store.record_start(Job("1", "t"), *IDS, traceparent=traceparent)
    assert (record.trace_id, record.span_id) == (TRACE_ID, SPAN_ID)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        5,
        TRACE_ID,
        TRACEPARENT.upper(),
        f"{TRACEPARENT}\n",
        f" {TRACEPARENT}",
        f"{TRACEPARENT}-more",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}",
    ],
)
def test_another_traceparent_is_refused(plain_store, traceparent):
    for call in (
        lambda: plain_store.record_start(Job("1", "t"), *IDS, traceparent=traceparent),
        lambda: plain_store.track(Job("1", "t"), "w", traceparent=traceparent)(print),
    ):
        with pytest.raises(InvalidInput, match="is not a traceparent; write it like '00-4bf9"):
            call()


def span(trace_id=TRACE_ID, span_id=SPAN_ID):
    return trace.NonRecordingSpan(
        trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False)
    )


def test_the_current_span_of_opentelemetry_gives_the_ids(store):
    with trace.use_span(span()):
        store.record_start(Job("recorded", "t"), *IDS)
        store.record_completion("recorded", *IDS, 5)
    with trace.use_span(span("00000000000000000000000000000abc", "000000000000000d")):
        store.record_start(Job("padded", "t"), *IDS)
        store.record_start(Job("given", "t"), *IDS, traceparent=TRACEPARENT)
    store.record_start(Job("outside", "t"), *IDS)

    traces = {job_id: (r.trace_id, r.span_id) for job_id, r in found(store).items()}
    padded = ("00000000000000000000000000000abc", "000000000000000d")
    assert traces == {
        "recorded": (TRACE_ID, SPAN_ID),
        "padded": padded,
        "given": (TRACE_ID, SPAN_ID),
        "outside": (None, None),
    }


def test_a_tracked_execution_has_the_span_around_it(plain_store, database, clock):
    with trace.use_span(span()), plain_store.track(Job("1", "t"), "w"):
        pass
    assert found(plain_store)["1"].trace_id == TRACE_ID

    async def main():
        closing = []
        with async_engine(database, closing.append) as engine:
            store = create_async_store(engine, clock=clock)
            with trace.use_span(span()):
                async with store.track(Job("1", "t"), "w"):
                    pass
            (record,) = await store.query()
        await closing[0]
        return record

    assert asyncio.run(main()).span_id == SPAN_ID


def test_an_app_that_has_not_imported_opentelemetry_has_no_traces(plain_store, monkeypatch):
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    with trace.use_span(span()):
        assert plain_store.record_start(Job("1", "t"), *IDS).trace_id is None
    assert "opentelemetry.trace" not in sys.modules


class _Span(SimpleNamespace):
    """A span of a tracer of the app, whose ids are no ids of OpenTelemetry."""

    is_valid = True

    def get_span_context(self):
        return self


@pytest.mark.parametrize(
    "module",
    [
        SimpleNamespace(),
        SimpleNamespace(get_current_span=lambda: None),
        SimpleNamespace(get_current_span=lambda: 1 / 0),
        SimpleNamespace(get_current_span=lambda: _Span(trace_id=2**128, span_id=1)),
        SimpleNamespace(get_current_span=lambda: _Span(trace_id=0, span_id=0)),
    ],
)
def test_an_opentelemetry_that_does_not_work_is_no_reason_to_fail(plain_store, monkeypatch, module):
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", module)
    assert plain_store.record_start(Job("1", "t"), *IDS).trace_id is None
