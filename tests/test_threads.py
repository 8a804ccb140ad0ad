"""Many threads record through one store, on an engine that the store made."""

from __future__ import annotations

import threading

import pytest

from jobhistory import Job, Status, create_store

THREADS, EACH = 16, 50


def record_from_all_threads(store):
    failures = []

    def work(thread):
        try:
            for count in range(EACH):
                ids = (f"{thread}-{count}", f"worker-{thread}", "load")
                store.record_start(Job(ids[0], "t", {"n": count}), *ids[1:])
                store.record_completion(*ids, count)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_every_row_is_there_finished_once_and_the_ring_buffer_holds_the_last(database):
    with create_store(database.url, buffer_size=100) as store:
        record_from_all_threads(store)
        records = store.query(limit=None)
        buffered = store.recent()
        pool = store._owned_engine.pool

        assert len(records) == len({r.job_id for r in records}) == THREADS * EACH
        assert all(r.status is Status.COMPLETED for r in records)
        assert all(r.execution_time_ms == r.payload["n"] for r in records)
        assert len(buffered) == len({r.id for r in buffered}) == 100
        assert {r.id for r in buffered} <= {r.id for r in records}
        assert pool.checkedout() == 0


@pytest.mark.parametrize("buffer_size", [100, 10_000])
def test_memory_alone_holds_what_fits(buffer_size):
    store = create_store(buffer_size=buffer_size)
    record_from_all_threads(store)
    remembered = store.query(limit=None)

    assert len(remembered) == len(store.recent()) == min(buffer_size, THREADS * EACH)
    assert {r.id for r in remembered} == {r.id for r in store.recent()}
    assert all(r.status is Status.COMPLETED for r in remembered)
