"""Executions by their ids: of the record, of the job, of a correlation."""

from __future__ import annotations

from uuid import UUID

import pytest

from jobhistory import InvalidInput, Job, new_execution_id


def test_an_execution_is_found_by_its_id(store):
    started = store.record_start(Job("1", "t", {"n": 1}), "w", "c")
    assert store.get(started.id).status == "started"
    store.record_completion(started)
    found = store.get(started.id)
    assert (found.id, found.status, found.payload) == (started.id, "completed", {"n": 1})


def test_there_is_none_with_another_id(store):
    started = store.record_start(Job("1", "t"), "w", "c")
    assert store.get(new_execution_id()) is None
    assert store.get(UUID(int=started.id.int ^ 1)) is None


@pytest.mark.parametrize("id_", ["0150c2eb-1e00-7000-80b1-a73527cf55ed", 1, None, b"x" * 16])
def test_an_id_is_a_uuid(plain_store, id_):
    with pytest.raises(InvalidInput, match=r"execution_id .* is not a uuid.UUID"):
        plain_store.get(id_)


def test_the_newest_of_a_job_or_correlation_can_be_enough(store, clock):
    ids = []
    for _ in range(3):
        clock.advance(seconds=1)
        ids.append(store.record_start(Job("1", "t"), "w", "c").id)

    for found, argument in ((store.get_by_job_id, "1"), (store.get_by_correlation_id, "c")):
        assert [record.id for record in found(argument, limit=2)] == ids[:0:-1]
        assert [record.id for record in found(argument)] == ids[::-1]
        with pytest.raises(InvalidInput, match="limit 0 is not a whole number"):
            found(argument, limit=0)
