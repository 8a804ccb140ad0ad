"""Retention rules: what a small model in Python says is what every kind of store does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from jobhistory import Job, RetentionRule

KINDS = [
    *("memory", "sqlite", "postgresql", "url-postgresql"),
    *("in-session-postgresql", "async-sqlite", "postgresql_by_psycopg2", "postgresql_as_app"),
]
OUTCOMES = ("completed", "failed", "partial_success", "cancelled")
TASKS = ("nightly", "resize", "a\\b")
LABELS = (None, {"tenant": "acme"}, {"tenant": "acme", "queue": "q"}, {"queue": "q"})
TIMES = (10, 60, 3600, None)
OWN = (10, 77, "never")
LOST = "jobhistory.WorkerLost"

subsets = st.none() | st.lists(st.sampled_from(OUTCOMES), min_size=1, max_size=3, unique=True)
tasks = st.lists(st.sampled_from(TASKS), min_size=1, max_size=2, unique=True)
specs = st.fixed_dictionaries(
    {
        "keep": st.sampled_from(TIMES),
        "status": subsets,
        "task_identifier": st.none() | tasks,
        "labels": st.sampled_from(LABELS),
    }
) | st.fixed_dictionaries(
    {
        "keep_last": st.integers(1, 3),
        "status": subsets,
        "task_identifier": tasks,
        "labels": st.sampled_from(LABELS),
    }
)
rule_lists = st.tuples(st.lists(specs, max_size=4), st.sampled_from(TIMES))
executions = st.tuples(
    st.sampled_from(TASKS),
    st.sampled_from(LABELS),
    st.none() | st.sampled_from(OWN),
)
steps = st.one_of(
    st.tuples(st.just("start"), executions),
    st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from(OUTCOMES)),
    st.tuples(st.just("begin and end"), executions, st.sampled_from(OUTCOMES)),
    st.tuples(st.just("record"), executions, st.sampled_from(OUTCOMES)),
    st.tuples(st.just("record many"), st.lists(st.tuples(executions, st.sampled_from(OUTCOMES)))),
    st.tuples(st.just("reap")),
    st.tuples(st.just("wait"), st.sampled_from((1, 30, 3000))),
    st.tuples(st.just("expire"), st.integers(1, 5)),
    st.tuples(st.just("rules"), rule_lists),
)


def rule_of(spec):
    spec = dict(spec)
    if "keep" in spec:
        seconds = spec["keep"]
        spec["keep"] = "forever" if seconds is None else timedelta(seconds=seconds)
    return RetentionRule(**spec)


def after(moment, seconds):
    return None if seconds is None else moment + timedelta(seconds=seconds)


class Model:
    """What the rows should be."""

    def __init__(self, rules):
        self.rows = {}
        self.rules = self.applied = rules

    def decide(self, rules, row, status):
        specs, default = rules
        status = "completed" if status == "started" else status
        for number, spec in enumerate(specs):
            if (
                (spec["status"] is None or status in spec["status"])
                and (spec["task_identifier"] is None or row["task"] in spec["task_identifier"])
                and (spec["labels"] or {}).items() <= (row["labels"] or {}).items()
            ):
                return number, spec.get("keep")
        return None, default

    def expiry(self, rules, row, status):
        return after(row["started_at"], self.decide(rules, row, status)[1])

    def follows(self, rules, row):
        given = {self.expiry(rules, row, status) for status in ("completed", row["status"])}
        return row["expires_at"] in given

    def add(self, id_, execution, status, now):
        task, labels, own = execution
        row = {"task": task, "labels": labels, "started_at": now, "status": status}
        row["lost"] = False
        if own is None:
            row["expires_at"] = self.expiry(self.rules, row, status)
        else:
            row["expires_at"] = after(now, None if own == "never" else own)
        self.rows[id_] = row

    def end(self, id_, status, *, lost=False):
        row = self.rows[id_]
        if self.follows(self.rules, row):
            row["expires_at"] = self.expiry(self.rules, row, status)
        row["status"], row["lost"] = status, lost

    def expire(self, now):
        if self.rules != self.applied:
            for row in self.rows.values():
                if self.follows(self.applied, row):
                    row["expires_at"] = self.expiry(self.rules, row, row["status"])
            self.applied = self.rules
        groups, doomed = {}, set()
        for id_, row in self.rows.items():
            number, _ = self.decide(self.rules, row, row["status"])
            spec = {} if number is None else self.rules[0][number]
            if row["expires_at"] is not None and row["expires_at"] <= now:
                doomed.add(id_)
            elif row["expires_at"] is None and row["status"] != "started" and "keep_last" in spec:
                groups.setdefault((number, row["task"]), []).append(id_)
        for (number, _), ids in groups.items():
            ids.sort(key=lambda id_: (self.rows[id_]["started_at"], id_))
            doomed.update(ids[: -self.rules[0][number]["keep_last"]])
        for id_ in doomed:
            del self.rows[id_]
        return len(doomed)


class Play:
    """Plays steps on a store and on the model, and compares."""

    def __init__(self, make, clock, rules, *, is_in_memory):
        self.make, self.clock, self.is_in_memory = make, clock, is_in_memory
        self.model = Model(rules)
        self.declare(rules)
        self.store.purge(from_=datetime(1970, 1, 1, tzinfo=UTC))
        self.store.expire()

    def declare(self, rules):
        specs, seconds = rules
        self.store = self.make(
            retention_rules=[rule_of(spec) for spec in specs],
            history_retention="never" if seconds is None else timedelta(seconds=seconds),
        )
        self.model.rules = rules

    def play(self, step):
        # No two executions start at once.
        self.clock.advance(seconds=1, microseconds=1001)
        name, *rest = step
        getattr(self, name.replace(" ", "_"))(*rest)
        self.compare()

    def compare(self):
        rows = {row.id: row for row in self.store.query(limit=None)}
        assert rows.keys() == self.model.rows.keys()
        for id_, row in rows.items():
            wanted = self.model.rows[id_]
            assert row.status == wanted["status"]
            assert row.expires_at == wanted["expires_at"], (id_, wanted)

    def job(self, execution):
        return Job(f"job-{self.clock()}", execution[0], labels=execution[1])

    def retention(self, execution):
        own = execution[2]
        return own if own in (None, "never") else f"{own} s"

    def start(self, execution):
        record = self.store.record_start(
            self.job(execution), "w", "c", history_retention=self.retention(execution)
        )
        self.model.add(record.id, execution, "started", self.clock())

    def end(self, which, status):
        ids = [
            id_ for id_, row in self.model.rows.items() if row["status"] == "started" or row["lost"]
        ]
        if ids:
            id_ = ids[which % len(ids)]
            self.record_outcome(id_, status)
            self.model.end(id_, status)

    def record_outcome(self, id_, status):
        kind = {
            "completed": lambda: self.store.record_completion(execution_id=id_),
            "failed": lambda: self.store.record_failure(execution_id=id_, error="x"),
            "partial_success": lambda: self.store.record_partial_success(
                execution_id=id_, partial_results={}
            ),
            "cancelled": lambda: self.store.record_cancellation(execution_id=id_),
        }
        kind[status]()

    def begin_and_end(self, execution, status):
        begun = self.store.begin(
            self.job(execution), "w", "c", history_retention=self.retention(execution)
        )
        if status == "failed":
            begun.end("x")
        else:
            begun.end(partial_results={} if status == "partial_success" else None)
        status = "completed" if status == "cancelled" else status
        self.model.add(begun.id, execution, "started", self.clock())
        self.model.end(begun.id, status)
        assert begun.record.expires_at == self.model.rows[begun.id]["expires_at"]

    def described(self, execution, status):
        values = {
            "job_id": f"job-{self.clock()}",
            "task_identifier": execution[0],
            "worker_id": "w",
            "correlation_id": "c",
            "labels": execution[1],
            "status": status,
            "started_at": self.clock(),
        }
        if execution[2] is not None:
            own = execution[2]
            values["expires_at"] = after(self.clock(), None if own == "never" else own)
        return values

    def record(self, execution, status):
        record = self.store.record_execution(self.described(execution, status))
        self.model.add(record.id, execution, status, self.clock())

    def record_many(self, many):
        known = set(self.model.rows)
        for execution, status in many:
            self.clock.advance(seconds=1)
            self.store.record_many([self.described(execution, status)])
            (new,) = {row.id for row in self.store.query(limit=None)} - known
            known.add(new)
            self.model.add(new, execution, status, self.clock())

    def reap(self):
        self.store.reap_lost("1 s")
        for id_, row in self.model.rows.items():
            if row["status"] == "started" and row["started_at"] <= self.clock() - timedelta(
                seconds=1
            ):
                self.model.end(id_, "failed", lost=True)

    def wait(self, seconds):
        self.clock.advance(seconds=seconds)

    def expire(self, batch_size):
        expected = self.store.expire(dry_run=True)
        coverage = self.store.retention()
        assert sum(each.to_delete for each in coverage) == expected
        assert sum(each.covered for each in coverage) == len(self.model.rows)
        deleted = self.store.expire(batch_size=batch_size)
        assert deleted == self.model.expire(self.clock()) == expected

    def rules(self, rules):
        if not self.is_in_memory:
            self.declare(rules)


@pytest.mark.parametrize("make_store", KINDS, indirect=True)
@given(rules=rule_lists, script=st.lists(steps, max_size=25))
def test_every_store_keeps_executions_as_the_model_does(make_store, request, clock, rules, script):
    is_in_memory = "memory" in request.node.callspec.params["make_store"]
    play = Play(make_store, clock, rules, is_in_memory=is_in_memory)
    for step in [*script, ("expire", 2)]:
        note(repr(step))
        play.play(step)
