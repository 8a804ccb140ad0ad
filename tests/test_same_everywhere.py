"""A store in memory and one on a database answer alike, whatever is asked in whatever order."""

from __future__ import annotations

import shutil
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import URL

from jobhistory import JobHistoryError, Status, create_store
from tests.conftest import FakeClock

job_ids = st.sampled_from(["job-1", "job-2"])
workers = st.sampled_from(["w-1", "w-2"])
tasks = st.sampled_from(["resize", "send_email"])
correlations = st.sampled_from(["c-1", "c-2"])
statuses = st.sampled_from(Status)
maybe = st.none()


@pytest.fixture(scope="module")
def sqlite_file(migrated_sqlite, tmp_path_factory):
    return shutil.copy(migrated_sqlite, tmp_path_factory.mktemp("alike") / "history.db")


def told(record):
    """All of a record but its id, which differs from store to store."""
    return {
        name: getattr(record, name)
        for name in record.__mapper__.column_attrs.keys()  # noqa: SIM118
        if name != "id"
    }


def machine(url):
    class Alike(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.clock = FakeClock()
            options = {"clock": self.clock, "buffer_size": 10_000, "history_retention": "1 h"}
            self.stores = [create_store(None, **options), create_store(url, **options)]
            emptied = create_store(url, clock=lambda: self.clock().replace(year=9000))
            emptied.expire()
            emptied.close()

        def teardown(self):
            for store in self.stores:
                store.close()

        def both(self, ask):
            answers = []
            for store in self.stores:
                try:
                    answer = ask(store)
                    if isinstance(answer, list):
                        answer = [told(record) for record in answer]
                    elif not isinstance(answer, int | None):
                        answer = told(answer)
                except JobHistoryError as error:
                    answer = type(error)
                answers.append(answer)
            assert answers[0] == answers[1]
            # No two executions start at once here, as ids then decide, and differ.
            self.clock.advance(seconds=1)

        @rule(job=job_ids, task=tasks, worker=workers, correlation=correlations)
        def start(self, job, task, worker, correlation):
            work = {"id": job, "task_identifier": task, "payload": {"n": job}}
            self.both(lambda store: store.record_start(work, worker, correlation))

        @rule(job=job_ids, worker=workers, correlation=correlations, how=statuses)
        def end(self, job, worker, correlation, how):
            ids = (job, worker, correlation)
            self.both(
                {
                    Status.STARTED: lambda store: store.record_failure(*ids, 3, ValueError("x")),
                    Status.COMPLETED: lambda store: store.record_completion(*ids, 1, result=[1]),
                    Status.FAILED: lambda store: store.record_failure(
                        *ids, 2, "text", will_retry=True
                    ),
                    Status.PARTIAL_SUCCESS: lambda store: store.record_partial_success(
                        *ids, 4, {"failed_steps": ["upload"]}
                    ),
                    Status.CANCELLED: lambda store: store.record_cancellation(*ids, 5, reason="x"),
                }[how]
            )

        @rule(job=job_ids, old=maybe | st.just("a"), new=maybe | st.just("a"))
        def label(self, job, old, new):
            def exchange(store):
                ids = [record.id for record in store.get_by_job_id(job, limit=1)]
                exchange_label = store.internals.history.exchange_label
                return any(exchange_label(id_, job, "replayed_at", old, new) for id_ in ids)

            self.both(exchange)

        @rule(minutes=st.integers(1, 50))
        def wait(self, minutes):
            self.clock.advance(minutes=minutes)

        @rule()
        def expire(self):
            self.both(lambda store: store.expire(dry_run=True))
            self.both(lambda store: store.expire(batch_size=2))

        @rule(job=job_ids, correlation=correlations)
        def get(self, job, correlation):
            self.both(lambda store: store.get_by_job_id(job))
            self.both(lambda store: store.get_by_correlation_id(correlation))

        @rule(
            task_identifier=maybe | tasks | st.lists(tasks),
            status=maybe | statuses | st.lists(statuses),
            worker_id=maybe | workers,
            error_type=maybe | st.sampled_from(["Error", "ValueError"]),
            limit=maybe | st.integers(1, 5),
            ago=st.tuples(st.integers(0, 90), st.integers(0, 90)),
        )
        def query(self, ago, **criteria):
            to, from_ = (self.clock() - timedelta(minutes=n) for n in sorted(ago))
            self.both(lambda store: store.query(criteria))
            self.both(lambda store: store.query(criteria, from_=from_, to=to))

        @invariant()
        def everything_is_the_same(self):
            self.both(lambda store: store.query(limit=None))

    return Alike


def test_memory_and_a_database_answer_alike(sqlite_file):
    run_state_machine_as_test(
        machine(URL.create("sqlite", database=str(sqlite_file))),
        settings=settings(stateful_step_count=25),
    )
