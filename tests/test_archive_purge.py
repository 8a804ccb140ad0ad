"""Deletion on request from an archive."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobhistory import Archive, ArchiveError, HistoryRecord, InvalidInput, create_store
from jobhistory.archive import archive as archive_module
from jobhistory.archive.parquet import read_table
from jobhistory.database import manifest
from jobhistory.database.transaction import Purpose
from jobhistory.schema import TABLE
from tests.archived import archive_all

NOW = datetime(2015, 11, 1, 12, tzinfo=UTC)
STATUSES = ("completed", "failed", "cancelled")


def id_of(number):
    """A UUIDv7 of the time of an execution, which ends in its number."""
    milliseconds = int((NOW + timedelta(hours=number)).timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | number % 0xFFFF)


def execution(number):
    return {
        "id": id_of(number),
        "job_id": f"order-{number // 2}",
        "correlation_id": f"request-{number % 5}",
        "parent_id": id_of(number - 1) if number % 4 else None,
        "trace_id": f"{number % 3 + 1:032x}" if number % 2 else None,
        "task_identifier": ("import", "export")[number % 2],
        "worker_id": f"host-{number % 3}:1",
        "labels": {"tenant": ("acme", "other")[number % 2], "note": 'ä"'} if number % 3 else None,
        "status": STATUSES[number % 3],
        "error_type": "TimeoutError" if number % 3 == 1 else None,
        "error_message": f"no answer after {number} s" if number % 3 == 1 else None,
        "attempt_number": number % 4,
        "started_at": NOW + timedelta(hours=number),
        "execution_time_ms": number if number % 2 else None,
    }


@pytest.fixture
def archived(database_store, tmp_path):
    database_store.record_many(execution(number) for number in range(60))
    archive = Archive(tmp_path / "archive")
    archive_all(database_store, archive)
    return database_store, archive, tmp_path / "archive"


def numbers(folder):
    """The numbers of the executions in the published files, in their order."""
    return [
        UUID(bytes=id_).int & 0xFFFF
        for path in sorted(folder.glob("day=*/*.parquet"))
        for id_ in read_table(path.read_bytes())["id"].to_pylist()
    ]


def test_what_meets_all_criteria_is_deleted_and_nothing_else(archived):
    store, archive, folder = archived
    gone = [number for number in range(60) if number % 2 == 0 and number % 3]
    assert archive.purge(store, {"labels": {"tenant": "acme"}}, dry_run=True) == len(gone)
    assert numbers(folder) == list(range(60)), "a dry run changes nothing"
    assert archive.purge(store, labels={"tenant": "acme"}) == len(gone)
    assert numbers(folder) == [number for number in range(60) if number not in gone]
    assert archive.purge(store, labels={"tenant": "acme"}) == 0
    verified = archive.verify(store)
    assert verified.problems == verified.pending == ()
    assert verified.rows == 60 - len(gone)


def test_files_without_such_executions_stay_as_they_are(archived):
    store, archive, folder = archived
    before = {path: path.stat().st_ino for path in folder.glob("day=*/*.parquet")}
    assert archive.purge(store, job_id="order-3") == 2
    after = {path: path.stat().st_ino for path in folder.glob("day=*/*.parquet")}
    assert before.keys() == after.keys()
    assert sum(before[path] != after[path] for path in before) == 1


def test_a_file_of_which_nothing_is_left_is_deleted(archived):
    store, archive, folder = archived
    assert archive.purge(store, to=NOW + timedelta(hours=11, minutes=30)) == 12
    assert [path.parent.name for path in sorted(folder.glob("day=*/*.parquet"))] == [
        "day=2015-11-02",
        "day=2015-11-03",
    ]
    verified = archive.verify(store)
    assert (verified.ok, verified.files, verified.rows, verified.pending) == (True, 2, 48, ())


def test_executions_are_deleted_by_their_ids(archived):
    store, archive, folder = archived
    ids = [id_of(3), id_of(4), id_of(9_999)]
    assert archive.purge(store, ids=ids, task_identifier="import") == 1
    assert archive.purge(store, ids=ids) == 1
    assert not {3, 4} & {*numbers(folder)}


criteria = st.fixed_dictionaries(
    {},
    optional={
        "from_": st.integers(-5, 65).map(lambda hour: NOW + timedelta(hours=hour)),
        "task_identifier": st.sampled_from(["import", ["import", "export"], []]),
        "status": st.sampled_from([*STATUSES, ["failed", "cancelled"]]),
        "job_id": st.integers(0, 30).map("order-{}".format),
        "correlation_id": st.integers(0, 6).map("request-{}".format),
        "worker_id": st.sampled_from(["host-0:1", ["host-1:1", "host-2:1"]]),
        "worker_id_starts_with": st.sampled_from(["host-1", "x"]),
        "min_attempt": st.integers(0, 4),
        "labels": st.sampled_from(
            [{"tenant": "acme"}, {"tenant": "other", "note": 'ä"'}, {"x": "y"}]
        ),
        "parent_id": st.integers(0, 60).map(id_of),
        "trace_id": st.sampled_from([f"{1:032x}", f"{2:032x}"]),
        "error_type": st.just("TimeoutError"),
        "error_contains": st.sampled_from(["after 1", "AFTER", "timeouterror: no"]),
        "min_execution_time_ms": st.integers(0, 60),
    },
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, migrated_sqlite):
    """A store with a history that is archived, too, in a folder that no test changes."""
    import shutil

    from sqlalchemy import create_engine, insert

    path = shutil.copy(migrated_sqlite, tmp_path_factory.mktemp("shared") / "history.db")
    engine = create_engine(f"sqlite:///{path}")
    store = create_store(engine)
    store.record_many(execution(number) for number in range(60))
    with engine.connect() as connection:
        rows = [dict(row._mapping) for row in connection.execute(TABLE.select())]
    archive = Archive(tmp_path_factory.mktemp("archive"))
    archive_all(store, archive)
    with engine.begin() as connection:
        connection.execute(insert(HistoryRecord.__table__), rows)
    yield store, archive
    engine.dispose()


@given(chosen=criteria.filter(bool))
def test_criteria_mean_the_same_as_for_the_history(shared, chosen):
    store, archive = shared
    if chosen == {"min_attempt": 0}:  # which is no criterion
        return
    assert archive.purge(store, chosen, dry_run=True) == store.count(chosen).value


@pytest.mark.parametrize("given", [{}, {"status": None}])
def test_without_a_criterion_nothing_is_deleted(archived, given):
    store, archive, folder = archived
    with pytest.raises(InvalidInput, match="would delete the whole archive"):
        archive.purge(store, given)
    with pytest.raises(InvalidInput, match="has no effect"):
        archive.purge(store, {"status": "failed", "limit": 3})
    assert len(numbers(folder)) == 60


class Killed(BaseException):
    """Ends a call as a signal would."""


@pytest.mark.parametrize("step", ["prepare_rest", "publish", "delete"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_call_that_was_killed_is_finished_by_the_next(archived, monkeypatch, step, when):
    store, archive, folder = archived
    original = getattr(archive_module.Archive, step)

    def kill(*arguments):
        if when == "after":
            original(*arguments)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(archive_module.Archive, step, kill)
        # The first file loses all of its executions, or some of them.
        to = NOW + timedelta(hours=11 if step == "delete" else 5)
        with pytest.raises(Killed):
            archive.purge(store, to=to)
    assert archive.verify(store).ok
    archive.purge(store, job_id="order-29")
    verified = archive.verify(store)
    assert verified.ok
    assert [path for path in verified.pending if not path.startswith("_pending")] == []
    assert verified.rows == len(numbers(folder)) == len({*numbers(folder)})
    gone = 0 if step == "prepare_rest" else 12 if step == "delete" else 6
    assert verified.rows == 60 - 2 - gone


def test_another_call_that_changes_the_same_file_is_waited_for(archived, monkeypatch):
    store, archive, folder = archived
    original = archive_module.Archive.prepare_rest
    others = []

    def interrupted(self, entry, table, owner):
        if not others:
            others.append(1)
            assert Archive(folder).purge(store, correlation_id="request-1") == 12
        return original(self, entry, table, owner)

    monkeypatch.setattr(archive_module.Archive, "prepare_rest", interrupted)
    assert archive.purge(store, task_identifier="import") == 24, "six had gone meanwhile"
    assert {number % 2 for number in numbers(folder)} == {1}
    assert {number % 5 for number in numbers(folder)} == {0, 2, 3, 4}
    verified = archive.verify(store)
    assert verified.ok
    assert verified.pending == (), "what was not needed is gone"


def test_a_file_that_differs_from_the_manifest_is_not_replaced(archived):
    store, archive, folder = archived
    path = min(folder.glob("day=*/*.parquet"))
    data = path.read_bytes()
    path.write_bytes(max(folder.glob("day=*/*.parquet")).read_bytes())
    with pytest.raises(ArchiveError, match="has other bytes than were written"):
        archive.purge(store, task_identifier="import")
    path.unlink()
    with pytest.raises(ArchiveError, match="there is no such file"):
        archive.purge(store, task_identifier="import")
    path.write_bytes(data)
    assert archive.purge(store, task_identifier="import") == 30


def _purge_until_killed(url, folder, requests):
    with create_store(url) as store:
        archive = Archive(folder)
        for request in requests:
            archive.purge(store, correlation_id=request)


def _check_kept(folder, gone):
    """Executions of other requests are in one file each, and the others in one at most."""
    found = Counter(numbers(folder))
    assert set(found.values()) <= {1}
    kept = {number for number in range(3_000) if f"request-{number % 100}" not in gone}
    assert kept <= found.keys()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_calls_delete_what_was_asked_and_nothing_else(database, database_store, tmp_path):
    folder, generator = tmp_path / "archive", random.Random(17)
    database_store.record_many(
        execution(number) | {"correlation_id": f"request-{number % 100}"} for number in range(3_000)
    )
    archive_all(database_store, Archive(folder))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "jobhistory.archive.deleting"])
    url = database.url.render_as_string(hide_password=False)
    requests = [f"request-{number}" for number in range(0, 100, 2)]
    gone = set()
    for _ in range(25):
        processes = []
        for _ in range(2):  # which often want to replace the same file
            chosen = generator.sample(requests, 3)
            gone.update(chosen)
            arguments = (url, folder, chosen)
            processes.append(context.Process(target=_purge_until_killed, args=arguments))
        for process in processes:
            process.start()
        time.sleep(generator.uniform(0.3, 2))
        for process in processes:
            process.kill()
            process.join()
        _check_kept(folder, gone)
        assert Archive(folder).verify(database_store).problems == ()
    for request in gone:
        Archive(folder).purge(database_store, correlation_id=request)
    assert sorted(numbers(folder)) == [
        number for number in range(3_000) if f"request-{number % 100}" not in gone
    ]
    verified = Archive(folder).verify(database_store)
    assert verified.ok
    assert all(path.startswith("_pending/") for path in verified.pending)


def test_the_old_file_does_not_count_as_the_new_one(archived):
    store, archive, folder = archived
    original = archive.publish

    def lose(entry):
        (folder / "_pending" / entry.pending).unlink()
        original(entry)

    archive.publish = lose
    with pytest.raises(ArchiveError, match=r"cannot publish day=2015-11-01/\w+.parquet"):
        archive.purge(store, job_id="order-3")


def test_a_new_file_that_is_hours_old_replaces_nothing(archived, clock):
    store, _, folder = archived
    archive = Archive(folder, clock=clock)
    original = archive.prepare_rest

    def pause(entry, table, owner):
        new = original(entry, table, owner)
        clock.advance(hours=13)
        return new

    archive.prepare_rest = pause
    with pytest.raises(ArchiveError, match="longer than 12:00:00"):
        archive.purge(store, job_id="order-3")
    assert numbers(folder) == list(range(60))


def late_copy(store, clock, url, meanwhile):
    """Expire with an archive in memory, whose first copy ends after something else has happened."""
    store.record_many([execution(number) for number in range(3)])
    clock.advance(days=365)
    archive = Archive(url)
    copy = archive.storage.publish

    def publish(name, file):
        data = archive.storage.read(f"_pending/{name}")
        copy(name, file)
        archive.storage.publish = copy

        def note(transaction):
            manifest.note_published(transaction, entry, archive.now())

        (entry,) = store.internals.history.run(Purpose.READ, of_archive)
        store.internals.history.run(Purpose.MAINTAIN, note)
        meanwhile(archive)
        archive.storage._fs.pipe_file(archive.storage._path(file), data)

    of_archive = partial(manifest.unpublished, location=archive.location)
    archive.storage.publish = publish
    return archive


def test_a_copy_that_ends_late_is_no_silent_return_of_what_was_deleted(
    database_store, clock, tmp_path
):
    url = f"memory:/{tmp_path}/archive"
    archive = late_copy(
        database_store, clock, url, lambda archive: archive.purge(database_store, job_id="order-0")
    )
    with pytest.raises(ArchiveError, match="old version of day=2015-11-01"):
        database_store.expire(archive=archive)
    assert [each.kind for each in archive.verify(database_store).problems] == ["rows"]


def test_a_copy_that_ends_late_leaves_no_file_of_which_nothing_is_left(
    database_store, clock, tmp_path
):
    url = f"memory:/{tmp_path}/archive"

    def purge(archive):
        archive.purge(database_store, task_identifier=["import", "export"])

    archive = late_copy(database_store, clock, url, purge)
    assert database_store.expire(archive=archive) == 3
    assert archive.storage.files() == []


def test_a_copy_that_ends_late_is_followed_by_the_one_that_waits(database_store, clock, tmp_path):
    def replace(archive):
        other = Archive(url)
        other.publish = kill
        with pytest.raises(Killed):
            other.purge(database_store, job_id="order-0")

    def kill(entry):
        raise Killed

    url = f"memory:/{tmp_path}/archive"
    archive = late_copy(database_store, clock, url, replace)
    assert database_store.expire(archive=archive) == 3
    assert archive.verify(database_store).ok
    assert archive.verify(database_store).rows == 1


def test_a_count_names_a_file_that_is_damaged_or_gone(archived):
    store, archive, folder = archived
    path = min(folder.glob("day=*/*.parquet"))
    name = f"{path.parent.name}/{path.name}"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArchiveError, match=f"cannot read {name}: "):
        archive.purge(store, job_id="order-1", dry_run=True)
    path.unlink()
    with pytest.raises(ArchiveError, match=f"differs from its manifest: {name}: there is no such"):
        archive.purge(store, job_id="order-1", dry_run=True)


def test_a_count_leaves_out_a_file_that_is_to_be_deleted(archived, monkeypatch):
    store, archive, folder = archived
    days = {path.parent.name for path in folder.glob("day=*/*")}
    first = NOW.replace(hour=0) + timedelta(days=1)

    def die(entry):
        raise ConnectionError

    with monkeypatch.context() as killed:
        killed.setattr(archive, "delete", die)
        with pytest.raises(ConnectionError):
            archive.purge(store, to=first - timedelta(microseconds=1))
    assert {path.parent.name for path in folder.glob("day=*/*")} == days
    assert archive.purge(store, to=first - timedelta(microseconds=1), dry_run=True) == 0
