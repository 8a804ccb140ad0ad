"""Comparing an archive with its manifest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobhistory import Archive, InvalidInput, create_store
from jobhistory.archive import verifying
from jobhistory.archive.parquet import read_table, write_file
from jobhistory.archive.storage import PENDING
from jobhistory.database import manifest
from jobhistory.database.transaction import Purpose
from tests.archived import archive_all

NOW = datetime(2015, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def archived(database_store, tmp_path):
    """A store whose executions, of three days, are archived; the archive; its folder."""
    database_store.record_many(
        {
            "job_id": number,
            "task_identifier": "t",
            "worker_id": "w",
            "started_at": NOW + timedelta(hours=number),
            "correlation_id": "c",
            "execution_time_ms": 5,
            "status": "completed",
        }
        for number in range(60)
    )
    archive = Archive(tmp_path / "archive")
    archive_all(database_store, archive)
    return database_store, archive, tmp_path / "archive"


def kinds(verified):
    return [(problem.kind, problem.file) for problem in verified.problems]


def first_file(folder):
    return min(folder.glob("day=*/*.parquet"))


def test_an_archive_as_it_was_written_has_no_problem(archived):
    store, archive, folder = archived
    verified = archive.verify(store)
    assert verified.ok
    assert (verified.files, verified.rows) == (3, 60)
    assert verified.bytes == sum(path.stat().st_size for path in folder.glob("day=*/*"))
    assert verified.pending == ()


def test_a_file_that_is_gone_is_missing(archived):
    store, archive, folder = archived
    path = first_file(folder)
    path.unlink()
    assert kinds(archive.verify(store)) == [("missing", f"day=2015-11-01/{path.name}")]


def test_a_file_that_the_manifest_does_not_name_is_unknown(archived):
    store, archive, folder = archived
    (folder / "day=2015-11-01" / "copy.parquet").write_bytes(first_file(folder).read_bytes())
    assert kinds(archive.verify(store)) == [("unknown", "day=2015-11-01/copy.parquet")]


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"", "flip"])
def test_a_damaged_file_is_unreadable(archived, damage):
    store, archive, folder = archived
    path = first_file(folder)
    data = path.read_bytes()
    half = len(data) // 4
    flipped = data[:half] + bytes([data[half] ^ 255]) + data[half + 1 :]
    path.write_bytes(flipped if damage == "flip" else damage(data))
    assert [kind for kind, _ in kinds(archive.verify(store))] == ["unreadable"]


def rewritten(path, change):
    path.write_bytes(write_file(change(read_table(path.read_bytes()))))


def test_a_file_with_too_few_executions_is_found(archived):
    store, archive, folder = archived
    rewritten(first_file(folder), lambda table: table.slice(1))
    (problem,) = archive.verify(store).problems
    assert (problem.kind, problem.detail) == (
        "rows",
        "has 11 executions, and the manifest says 12",
    )


def test_a_file_with_other_executions_is_found(archived):
    store, archive, folder = archived
    files = sorted(folder.glob("day=*/*.parquet"))
    other = read_table(files[1].read_bytes()).slice(0, 12)
    rewritten(files[0], lambda table: other)
    assert [kind for kind, _ in kinds(archive.verify(store))] == ["digest", "day"]


def test_a_file_whose_values_were_changed_has_another_size(archived):
    store, archive, folder = archived
    rewritten(first_file(folder), lambda table: table.drop_columns(["log_tail"]))
    assert [kind for kind, _ in kinds(archive.verify(store))] == ["size"]


def test_files_that_wait_to_be_published_are_no_problem(archived):
    store, archive, folder = archived
    name = first_file(folder).name
    (folder / PENDING / name).write_bytes(first_file(folder).read_bytes())
    first_file(folder).unlink()

    def unpublish(transaction):
        entry = manifest.entries_of(transaction, archive.location)[0]
        transaction.execute(
            manifest.ARCHIVE.update()
            .where(manifest.ARCHIVE.c.file == entry.file)
            .values(published_at=None, pending=name)
        )

    store.internals.history.run(Purpose.MAINTAIN_AS_ONE, unpublish)
    verified = archive.verify(store)
    assert verified.ok
    assert (verified.files, verified.rows) == (2, 48)
    assert verified.pending == (f"{PENDING}/{name}", f"day=2015-11-01/{name}")
    (folder / PENDING / name).unlink()
    assert kinds(archive.verify(store)) == [("missing", f"day=2015-11-01/{name}")]


def test_files_that_others_replace_meanwhile_are_no_problem(archived, monkeypatch):
    store, archive, _ = archived
    original = verifying.data_of
    calls = []

    def delete_before(storage, entry):
        if not calls:
            calls.append(1)
            archive.purge(store, job_id=["3"][0])
            archive.purge(store, from_=NOW + timedelta(hours=36))  # empties the last file
        return original(storage, entry)

    monkeypatch.setattr(verifying, "data_of", delete_before)
    verified = archive.verify(store)
    assert verified.problems == ()


def test_progress_is_the_number_of_executions(archived):
    store, archive, _ = archived
    seen = []
    archive.verify(store, progress=seen.append)
    assert seen == [12, 36, 60]


def test_another_database_does_not_have_the_archive(archived, tmp_path):
    from jobhistory import migrate

    _, archive, _ = archived
    url = f"sqlite:///{tmp_path}/other.db"
    with create_store(url) as other:
        migrate.upgrade(other.internals.session_factory.engine)
        with pytest.raises(InvalidInput, match="is not an archive of this database"):
            archive.verify(other)


def test_damage_anywhere_is_found_and_the_other_files_are_checked(archived):
    store, archive, folder = archived
    path = first_file(folder)
    max(folder.glob("day=*/*.parquet")).unlink()
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for place in [*range(0, footer, 997), *range(footer, len(data), 241)]:
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        found = kinds(archive.verify(store))
        assert {file for _, file in found[:-1]} == {path.relative_to(folder).as_posix()}, place
        assert found[-1][0] == "missing"


def test_other_statistics_are_found(archived):
    store, archive, folder = archived
    path = first_file(folder)
    data = path.read_bytes()
    changed = data.replace(b"completed", b"completee")
    path.write_bytes(changed)
    assert changed != data
    assert kinds(archive.verify(store)) != []
    path.write_bytes(data.replace(b"error_message", b"error_massage"))
    assert [kind for kind, _ in kinds(archive.verify(store))] == ["bytes"]
    path.write_bytes(data.replace(b"started_at", b"ztarted_at"))
    assert [kind for kind, _ in kinds(archive.verify(store))] == ["unreadable"]
