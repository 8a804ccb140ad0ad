"""Each execution is in the table or in the archive, once, whenever archiving is killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from jobhistory import Archive, create_store, new_execution_id
from jobhistory.schema import COLUMNS, TABLE
from tests.archives import archived, check_each_is_somewhere_once, manifest, published, stored

IDS = {"job_id": "1", "worker_id": "w", "correlation_id": "c", "task_identifier": "t"}
OPERATIONS = ["write", "read", "publish", "delete", "pending"]


def expired(number, days=4):
    """An ended execution that has expired; the numbers are spread over several days."""
    start = datetime.now(UTC) - timedelta(days=40 + number % days, seconds=number)
    id_ = new_execution_id(start)
    return IDS | {"status": "completed", "started_at": start, "id": id_}


def record(store, how_many):
    """Record expired executions, and return their ids."""
    rows = [expired(number) for number in range(how_many)]
    store.record_many(rows)
    return {row["id"] for row in rows}


class Writer(threading.Thread):
    """Records executions that have expired, and changes some, until it is told to stop."""

    def __init__(self, url, engine):
        super().__init__(daemon=True)
        self.recorded = set()
        self.pause = threading.Lock()
        self.is_over = threading.Event()
        self._url = url
        self._engine = engine

    def run(self):
        change = (
            update(TABLE)
            .where(COLUMNS.id.in_(select(COLUMNS.id).order_by(COLUMNS.started_at).limit(2)))
            .values(result={"changed": True})
        )
        with create_store(self._url) as store:
            while not self.is_over.wait(0.01):
                with self.pause:
                    self.recorded |= record(store, 40)
                    with self._engine.begin() as connection:
                        connection.execute(change)


def _archive_until_killed(url, folder):
    with create_store(url) as store:
        while True:
            store.expire(archive=folder, batch_size=150)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_archivers_lose_nothing_and_keep_nothing_twice(database, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "jobhistory.archive.conversion"])
    url = database.url.render_as_string(hide_password=False)
    folder = tmp_path / "archive"
    writer = Writer(url, database.engine)
    writer.start()

    def start_archiver():
        archiver = context.Process(target=_archive_until_killed, args=(url, folder), daemon=True)
        archiver.start()
        return archiver

    try:
        for _ in range(25):
            before = len(manifest(database.engine))
            archiver = start_archiver()
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline and len(manifest(database.engine)) == before:
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.1))
            os.kill(archiver.pid, signal.SIGKILL)
            archiver.join()
            with writer.pause:
                check_each_is_somewhere_once(database.engine, folder, writer.recorded)
    finally:
        writer.is_over.set()
        writer.join()
    with create_store(url) as store:
        store.expire(archive=folder)
    assert stored(database.engine) == []
    assert sorted(archived(database.engine, folder)) == sorted(writer.recorded)
    assert all(row.published_at for row in manifest(database.engine))
    assert len(published(folder)) == len(manifest(database.engine))


class Killed(BaseException):
    """The process ends, and nothing is cleaned up."""


class Killer:
    """Passes calls on to a storage, until it is killed before or after one of them."""

    def __init__(self, storage, moment):
        self._storage = storage
        self._left = moment

    def __getattr__(self, name):
        value = getattr(self._storage, name)
        if name not in OPERATIONS:
            return value

        def call(*arguments):
            self._tick()
            result = value(*arguments)
            self._tick()
            return result

        return call

    def _tick(self):
        if self._left == 0:
            raise Killed
        self._left -= 1


def test_it_may_be_killed_before_and_after_each_step(database, tmp_path):
    folder = tmp_path / "archive"
    recorded = set()
    store = create_store(database.engine)
    for moment in range(100):
        recorded |= record(store, 20)
        archive = Archive(folder)
        archive.storage = Killer(archive.storage, moment)
        try:
            store.expire(archive=archive)
        except Killed:
            check_each_is_somewhere_once(database.engine, folder, recorded)
            continue
        break
    assert moment > 12
    check_each_is_somewhere_once(database.engine, folder, recorded)
    assert stored(database.engine) == []
    assert all(row.pending is None and row.published_at for row in manifest(database.engine))
    assert len(published(folder)) == len(manifest(database.engine))


def test_simultaneous_archivers_need_no_lock(database, tmp_path):
    folder = tmp_path / "archive"
    recorded = record(create_store(database.engine), 400)

    def archive():
        with create_store(database.url) as store:
            counts.append(store.expire(archive=folder, batch_size=30))

    counts = []
    threads = [threading.Thread(target=archive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with create_store(database.url) as store:
        counts.append(store.expire(archive=folder))
    assert sum(counts) == len(recorded)
    assert sorted(archived(database.engine, folder)) == sorted(recorded)
    check_each_is_somewhere_once(database.engine, folder, recorded)
