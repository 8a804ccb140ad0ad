"""The history that each released version wrote is upgraded, and then used.

`tests/upgrades/make.py` writes the fixtures: a folder for each revision.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import func, select

import jobhistory
from jobhistory import HistoryStore, Job, Status, create_store, migrate
from jobhistory.rollup_schema import ENDED
from tests.upgrades.make import FOLDER, POSTGRESQL, ROWS, SQLITE, load_dump, plain_values

FIXTURES = sorted(path.parent.name for path in FOLDER.glob(f"*/{ROWS}"))


@dataclass
class Upgraded:
    """A store on an upgraded copy of a fixture, and the rows that the old version wrote."""

    store: HistoryStore
    rows: list[dict[str, Any]]
    now: datetime

    def row(self, job_id: str) -> dict[str, Any]:
        (row,) = [row for row in self.rows if row["job_id"] == job_id]
        return row

    def has_expired(self, row: dict[str, Any]) -> bool:
        expires_at = row["expires_at"]
        return expires_at is not None and datetime.fromisoformat(expires_at) <= self.now


@pytest.fixture(params=FIXTURES)
def upgraded(request, bare_database, clock):
    folder = FOLDER / request.param
    if bare_database.name == "sqlite":
        shutil.copy(folder / SQLITE, bare_database.url.database)
    else:
        load_dump(bare_database.engine, (folder / POSTGRESQL).read_text(encoding="utf-8"))
    assert migrate.current(bare_database.engine) == request.param
    migrate.upgrade(bare_database.engine)
    document = json.loads((folder / ROWS).read_text(encoding="utf-8"))
    clock.now = datetime.fromisoformat(document["now"])
    store = create_store(bare_database.engine, clock=clock)
    return Upgraded(store, document["rows"], clock.now)


def test_every_released_revision_has_a_fixture():
    """Unreleased revisions are rewritten, and so would be their fixtures."""
    if "dev" not in jobhistory.__version__:
        assert migrate.HEAD in FIXTURES, "run: python -m tests.upgrades.make"
    assert FIXTURES


def test_an_upgraded_database_is_like_a_new_one(upgraded, bare_database):
    assert migrate.current(bare_database.engine) == migrate.HEAD
    assert migrate.check(bare_database.engine) == ()


def test_an_upgrade_keeps_every_value_of_every_row(upgraded):
    columns = upgraded.rows[0].keys()
    kept = [
        {name: value for name, value in plain_values(record).items() if name in columns}
        for record in upgraded.store.iterate(order="oldest")
    ]

    assert kept == upgraded.rows


def test_pages_of_upgraded_history_contain_each_row_once(upgraded):
    ids, cursor = [], None
    while True:
        page = upgraded.store.page(after=cursor, order="oldest", limit=5)
        ids += [str(record.id) for record in page.records]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert ids == [row["id"] for row in upgraded.rows]


def test_reports_count_upgraded_rows(upgraded):
    statuses = [row["status"] for row in upgraded.rows]
    stats = upgraded.store.stats()

    assert sum(task.executions for task in stats) == len(statuses)
    for status in Status:
        assert sum(getattr(task, status.value) for task in stats) == statuses.count(status)
        assert upgraded.store.count(status=status).value == statuses.count(status)
    groups = upgraded.store.failure_groups()
    assert sum(group.count for group in groups) == statuses.count("failed")
    assert {group.error_type for group in groups} == {
        row["error_type"] for row in upgraded.rows if row["status"] == "failed"
    }


def test_the_queue_has_each_execution_that_ended_before_the_upgrade_once(upgraded, bare_database):
    """Also if the history comes from a dump: its triggers are created after its rows."""
    queued = func.sum(ENDED.c.weight)
    columns = (ENDED.c.task_identifier, ENDED.c.status)
    with bare_database.engine.connect() as connection:
        rows = connection.execute(select(*columns, queued).group_by(*columns)).all()
    counts = {(task, status): count for task, status, count in rows}

    assert counts == Counter(
        (row["task_identifier"], row["status"])
        for row in upgraded.rows
        if row["status"] != "started"
    )


def test_an_execution_that_started_before_the_upgrade_gets_its_outcome(upgraded):
    for job_id, record_outcome in [
        ("running", lambda *ids: upgraded.store.record_completion(*ids, 1500)),
        ("waiting", lambda *ids: upgraded.store.record_failure(*ids, 1500, ValueError("no"))),
    ]:
        started = upgraded.row(job_id)
        record_outcome(job_id, started["worker_id"], started["correlation_id"])
        (ended,) = upgraded.store.get_by_job_id(job_id)
        assert str(ended.id) == started["id"]
        assert ended.status in (Status.COMPLETED, Status.FAILED)
        assert ended.execution_time_ms == 1500
        assert ended.payload == started["payload"]


def test_upgraded_history_grows(upgraded):
    new = upgraded.store.record_start(Job("new", "send_email", {"ä": [None]}), "w", "c")

    assert upgraded.store.query(limit=1)[0].id == new.id
    assert upgraded.store.count().value == len(upgraded.rows) + 1


def test_executions_of_workers_lost_before_the_upgrade_are_found(upgraded):
    assert upgraded.store.reap_lost("1 day", worker_id="dead") == 1
    (lost,) = upgraded.store.get_by_job_id("lost")
    assert lost.error_type == upgraded.row("reaped")["error_type"]


def test_rows_that_expired_before_the_upgrade_are_deleted(upgraded):
    expired = [row["id"] for row in upgraded.rows if upgraded.has_expired(row)]

    assert upgraded.store.expire() == len(expired) > 0
    left = {str(record.id) for record in upgraded.store.query(limit=None)}
    assert left == {row["id"] for row in upgraded.rows} - set(expired)
