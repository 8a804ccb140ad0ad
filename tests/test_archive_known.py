"""Places that are not the archive of a database: no call gives a false answer about them."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import pytest

from jobhistory import Archive, ArchiveError, InvalidInput
from tests.archived import archive_all

NOW = datetime(2015, 11, 1, 12, tzinfo=UTC)

CALLS = {
    "verify": lambda archive, store: archive.verify(store),
    "restore": lambda archive, store: archive.restore(store),
    "purge": lambda archive, store: archive.purge(store, job_id="3"),
    "count": lambda archive, store: archive.purge(store, job_id="3", dry_run=True),
}


@pytest.fixture
def store(database_store):
    database_store.record_many(
        {
            "job_id": number,
            "task_identifier": "t",
            "worker_id": "w",
            "started_at": NOW + timedelta(hours=number),
            "correlation_id": "c",
            "status": "completed",
        }
        for number in range(30)
    )
    return database_store


@pytest.fixture
def folder(store, tmp_path):
    archive_all(store, Archive(tmp_path / "archive"))
    return tmp_path / "archive"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kind", ["moved", "a typo", "a file", "does not answer"])
def test_a_place_that_the_manifest_does_not_name_is_refused(store, folder, tmp_path, call, kind):
    place = tmp_path / "other"
    if kind == "moved":
        shutil.move(folder, place)
    elif kind == "a file":
        place.write_text("x")
    elif kind == "does not answer":
        place = "http://u:SECRET@127.0.0.1:1/x"
    with pytest.raises(InvalidInput, match="is not an archive of this database") as raised:
        call(Archive(place), store)
    assert folder.as_uri() in str(raised.value), "what it has"
    assert "SECRET" not in str(raised.value)
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_database_without_archives_says_so(store, tmp_path, call):
    with pytest.raises(InvalidInput, match="which has archived nothing"):
        call(Archive(tmp_path), store)


@pytest.mark.parametrize("dry_run", [False, True])
def test_nothing_is_deleted_next_to_files_that_the_manifest_does_not_name(store, folder, dry_run):
    path = min(folder.glob("day=*/*.parquet"))
    path.with_name("copy.parquet").write_bytes(path.read_bytes())
    named = path.parent.name
    with pytest.raises(ArchiveError, match=rf"has {named}/copy\.parquet, a file that"):
        Archive(folder).purge(store, job_id="3", dry_run=dry_run)
    path.with_name("copy.parquet").unlink()
    assert Archive(folder).purge(store, job_id="3", dry_run=dry_run) == 1


def test_a_file_that_is_deleted_meanwhile_is_not_one_without_a_name(store, folder, monkeypatch):
    archive, files = Archive(folder), Archive(folder).storage.files

    def first():
        """Another call deletes all executions of the first day after its file was listed."""
        found = files()
        monkeypatch.undo()
        Archive(folder).purge(store, to=NOW.replace(hour=23))
        return found

    monkeypatch.setattr(archive.storage, "files", first)
    assert archive.purge(store, job_id="20") == 1


def test_an_archive_whose_files_are_gone_restores_nothing_silently(store, folder):
    shutil.rmtree(folder)
    with pytest.raises(ArchiveError, match="has none of the files that its manifest names"):
        Archive(folder).restore(store)


def test_a_store_that_does_not_answer_is_not_empty():
    storage = Archive("http://u:SECRET@127.0.0.1:1/x?sig=SECRET").storage
    for found in (storage.files, storage.pending):
        with pytest.raises(ArchiveError, match="cannot be listed") as raised:
            found()
        assert "SECRET" not in str(raised.value)
