"""The spool of a `Recorder`: the files it uses, adopts, renames and removes."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from jobhistory import InvalidInput, Job, Recorder, create_store, migrate
from jobhistory.execution.retention import Retention
from jobhistory.execution.rows import RowBuilder
from jobhistory.recorder import spool_file
from jobhistory.recorder.spool import Spool
from jobhistory.sanitize.json_values import Limits, Sanitizer
from tests.recorders import IDS, Gate, record


@pytest.fixture
def make_rows(clock):
    builder = RowBuilder(clock, Retention(None), Sanitizer(Limits(), None))
    return lambda *job_ids: [
        builder.started(Job(job_id, "t", {"text": "x" * 500}), *IDS[1:], None) for job_id in job_ids
    ]


@pytest.fixture
def leave(make_rows):
    """Leave a spool with the starts of jobs, like a killed process."""

    def leave(path, *job_ids, name=None):
        spool = Spool(Path(path))
        spool.append(make_rows(*job_ids))
        spool._connection.execute("UPDATE spool SET name = ?", (name or Path(path).name,))
        spool._connection.commit()
        spool.close()

    return leave


def jobs_in(spool):
    return [row["job_id"] for row in spool.first(100_000, 2**40).operations]


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def make_database(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE operations (number INTEGER PRIMARY KEY, body TEXT)")
        connection.execute("INSERT INTO operations (body) VALUES ('precious')")
        connection.commit()


def make_wal_database(path):
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    make_database(path)


def make_later_spool(path):
    Spool(path)._connection.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 2")


FOREIGN = {
    "database": (make_database, "is not a spool"),
    "database in WAL mode": (make_wal_database, "is not a spool"),
    "text": (lambda path: path.write_text("notes" * 500), "is not a spool"),
    "short text": (lambda path: path.write_text("x"), "is not a spool"),
    "spool of a later version": (make_later_spool, "is a spool of format 2"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_is_not_a_spool_is_refused_and_stays_as_it_is(tmp_path, kind):
    make, says = FOREIGN[kind]
    path = tmp_path / "app.db"
    make(path)
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match=f"{re.escape(str(path))}' {says}") as caught:
        Recorder(create_store(), spool=path)
    assert caught.value.argument == "spool"
    assert path.read_bytes() == before
    assert names(tmp_path) == ["app.db"]


def test_a_database_at_work_in_this_process_keeps_its_lock(tmp_path):
    """Closing a descriptor of our own on the file would release the lock."""
    path = tmp_path / "app.db"
    make_database(path)
    with closing(sqlite3.connect(path)) as app:
        app.execute("BEGIN IMMEDIATE")
        with pytest.raises(InvalidInput, match="is not a spool"):
            Recorder(create_store(), spool=path)
        assert _is_locked_for_others(path)


def _is_locked_for_others(path):
    pid = os.fork()
    if pid == 0:
        try:
            other = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=0)
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_symbolic_links_folders_and_files_of_others_are_refused(tmp_path, leave, monkeypatch):
    leave(tmp_path / "real", "1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    (tmp_path / "folder").mkdir()
    for name, says in (
        ("link", "is a symbolic link"),
        ("dangling", "is a symbolic link"),
        ("folder", "is not a regular file"),
    ):
        with pytest.raises(InvalidInput, match=f"{name}' {says}"):
            Recorder(create_store(), spool=tmp_path / name)
    assert not (tmp_path / "new").exists()

    leave(tmp_path / "journaled", "1")
    (tmp_path / "journaled-journal").symlink_to(tmp_path / "real")
    with pytest.raises(InvalidInput, match="journaled-journal', that is a symbolic link"):
        Recorder(create_store(), spool=tmp_path / "journaled")
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(InvalidInput, match="belongs to another user"):
        Recorder(create_store(), spool=tmp_path / "real")


def test_files_beside_the_spool_that_are_not_its_own_stay_as_they_are(tmp_path, leave):
    make_database(tmp_path / "metrics.2024")
    (tmp_path / "metrics.1").write_text("a rotated log")
    (tmp_path / "metrics.2").touch()
    (tmp_path / "metrics.3").symlink_to(tmp_path / "metrics.2024")
    leave(tmp_path / "metrics.7", "of another recorder")
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}

    recorders = [Recorder(create_store(), spool=tmp_path / "metrics") for _ in range(2)]
    assert set(names(tmp_path)) - before.keys() == {
        *("metrics", "metrics-journal", "metrics.4", "metrics.4-journal")
    }
    for recorder in recorders:
        assert recorder.counts.spooled == 0
        recorder.close()
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(
    "spool",
    [
        *("{folder}/app.db", "app.db", "{folder}/../{name}/app.db", "link/app.db"),
        *("{folder}/app.db-wal", "{folder}/app.db-journal"),
    ],
)
@pytest.mark.parametrize(
    "url", ["sqlite:///{folder}/app.db", "sqlite:///file:{folder}/app.db?uri=true"]
)
def test_the_database_of_the_store_is_refused(tmp_path, monkeypatch, exists, spool, url):
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    store = create_store(url.format(folder=tmp_path))
    if exists:
        migrate.upgrade(store._owned_engine)
    before = names(tmp_path)
    with store:
        with pytest.raises(InvalidInput, match=r"spool .* is the store's own database"):
            Recorder(store, spool=spool.format(folder=tmp_path, name=tmp_path.name))
        assert names(tmp_path) == before


def test_the_database_of_the_store_is_never_taken_beside_the_path(tmp_path):
    with create_store(f"sqlite:///{tmp_path}/app.2") as store:
        recorders = [Recorder(store, spool=tmp_path / "app") for _ in range(2)]
        assert not (tmp_path / "app.2").exists()
        for recorder in recorders:
            recorder.close()


def test_a_file_is_removed_before_its_lock_ends(tmp_path, make_rows, monkeypatch):
    """A process that opens the path meanwhile gets a file that stays."""
    path = tmp_path / "spool"
    first, others = Spool(path), []
    unlink = Path.unlink

    def open_first(file, **options):
        if file == path:
            others.append(Spool(path))
        unlink(file, **options)
        if file == path:
            others.append(Spool(path))

    monkeypatch.setattr(Path, "unlink", open_first)
    first.close()
    monkeypatch.undo()
    assert len(others) == 2
    for number, other in enumerate(others):
        other.append(make_rows(number))
        assert os.path.samestat(other.file.stat(), os.stat(other.file))
        with closing(sqlite3.connect(f"{other.file.as_uri()}?immutable=1", uri=True)) as found:
            assert found.execute("SELECT count(*) FROM operations").fetchone() == (1,)
        other._connection.close()


def test_a_file_that_was_replaced_while_it_was_opened_is_left(tmp_path, make_rows, monkeypatch):
    path = tmp_path / "spool"
    Spool(path)._connection.close()
    lock, replaced = spool_file._lock, []

    def replace_first(file):
        connection = lock(file)
        if not replaced:
            replaced.append(True)
            file.rename(tmp_path / "old")
            shutil.copy(tmp_path / "old", file)  # as another process may have created one
        return connection

    monkeypatch.setattr(spool_file, "_lock", replace_first)
    spool = Spool(path)
    spool.append(make_rows("1"))
    spool._connection.close()
    assert jobs_in(Spool(path)) == ["1"]
    assert jobs_in(Spool(tmp_path / "old")) == []


def test_a_relative_path_stays_the_same_file(tmp_path, monkeypatch, leave):
    (tmp_path / "elsewhere").mkdir()
    leave(tmp_path / "elsewhere/spool", "of others")
    monkeypatch.chdir(tmp_path)
    recorder = Recorder(create_store(), spool="spool")
    monkeypatch.chdir(tmp_path / "elsewhere")
    recorder.close()
    assert names(tmp_path) == ["elsewhere"]
    assert jobs_in(Spool(tmp_path / "elsewhere/spool")) == ["of others"]


@pytest.mark.parametrize("name", ["sp[1]ool", "*", "?.db", "a%20b#c", "ünïcode", "-"])
def test_any_name_will_do(tmp_path, leave, name):
    leave(tmp_path / name, "1")
    leave(tmp_path / f"{name}.2", "2", name=name)
    leave(tmp_path / f"{name}.10", "10", name=name)
    spool = Spool(tmp_path / name)
    assert jobs_in(spool) == ["1", "2", "10"]
    spool._connection.close()
    assert set(names(tmp_path)) - {f"{name}-journal"} == {name}


def test_adoption_leaves_no_journal(tmp_path, leave):
    for number in range(2, 5):
        leave(tmp_path / f"spool.{number}", number, name="spool")
        for suffix in ("-journal", "-wal", "-shm"):
            (tmp_path / f"spool.{number}{suffix}").touch()
    spool = Spool(tmp_path / "spool")
    assert jobs_in(spool) == ["2", "3", "4"]
    assert names(tmp_path) == ["spool", "spool-journal"]
    spool.remove(spool.first(10, 2**40))
    spool.close()
    assert names(tmp_path) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_for_their_owner_alone(tmp_path, make_rows, umask):
    path = tmp_path / "new/folder/spool"
    before = os.umask(umask)
    try:
        spools = [Spool(path), Spool(path)]
        for spool in spools:
            spool.append(make_rows("1"))
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "new").rglob("*")}
    assert modes == {
        "folder": 0o700,
        **dict.fromkeys(["spool", "spool-journal", "spool.2", "spool.2-journal"], 0o600),
    }
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    path.chmod(0o644)
    spools[0]._connection.close()
    Spool(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_empty_file_that_was_named_is_used(tmp_path):
    (tmp_path / "spool").touch()
    Spool(tmp_path / "spool").close()
    assert names(tmp_path) == []


UNREADABLE = {
    "not JSON": b'{"row": secret',
    "not UTF-8": b'{"row": "\xff secret"}',
    "no object": b'["secret"]',
    "no values": b'{"row": "secret"}',
    "column missing": b'{"row": {"job_id": "secret"}}',
    "unknown column": b'{"key": ["a", "b", "c"], "values": {"status": "failed", '
    b'"completed_at": "2026-01-01T00:00:00+00:00", "secret": 1}, "row": null}',
    "status": b'{"key": ["a", "b", "c"], "values": {"status": "secret", "completed_at": "x"}}',
    "naive moment": b'{"key": ["a", "b", "c"], "values": {"status": "failed", '
    b'"completed_at": "2026-01-01T00:00:00"}}',
    "boolean": b'{"key": ["a", "b", "c"], "values": {"status": "failed", "will_retry": "secret", '
    b'"completed_at": "2026-01-01T00:00:00+00:00"}}',
    "number": b'{"key": ["a", "b", "c"], "values": {"status": "failed", "progress": "secret", '
    b'"completed_at": "2026-01-01T00:00:00+00:00"}}',
    "key": b'{"key": ["secret"], "values": {}}',
    "nested too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_operation_is_put_aside_and_the_others_are_written(
    database_store, tmp_path, leave, caplog, kind
):
    path = tmp_path / "spool"
    leave(path, "1", "2", "3")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE operations SET body = ? WHERE number = 2", (UNREADABLE[kind],))
        connection.commit()
    with Recorder(database_store, spool=path) as recorder:
        recorder.flush(30)
        assert (recorder.counts.written, recorder.counts.refused) == (2, 1)

    assert sorted(r.job_id for r in database_store.query()) == ["1", "3"]
    assert f"operation 2 in the spool {path} is unreadable" in caplog.text
    assert "secret" not in caplog.text
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        assert connection.execute("SELECT body FROM rejected").fetchall() == [(UNREADABLE[kind],)]
        assert connection.execute("SELECT count(*) FROM operations").fetchone() == (0,)
    Recorder(database_store, spool=path).close()
    assert "has 1 unreadable operations in its table 'rejected'" in caplog.text
    assert path.exists()


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def overwrite_in_the_middle(path):
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(b"\xa5" * 8192)


@pytest.mark.parametrize("damage", [truncate, overwrite_in_the_middle])
@pytest.mark.parametrize("beside", [False, True])
def test_what_is_readable_of_a_damaged_spool_is_written(
    database_store, tmp_path, leave, caplog, damage, beside
):
    path = tmp_path / "spool"
    file = tmp_path / "spool.2" if beside else path
    leave(file, *range(200), name="spool")
    damage(file)
    damaged = file.read_bytes()
    with Recorder(database_store, spool=path) as recorder:
        recorder.flush(30)

    written = len(database_store.query(limit=None))
    assert 80 <= written < 200
    assert f"the spool {file} is damaged; it was renamed to {file}.damaged" in caplog.text
    assert f"recovered {written} operations from the damaged spool {file}.damaged" in caplog.text
    assert names(tmp_path) == sorted({f"{file.name}.damaged"} | set(names(tmp_path)) - {"spool"})
    assert Path(f"{file}.damaged").read_bytes() == damaged
    assert not path.exists()


def test_a_spool_that_gets_damaged_while_it_is_used_is_replaced(
    database_store, tmp_path, leave, caplog
):
    path = tmp_path / "spool"
    leave(path, *range(200))
    gate = Gate(database_store)
    gate.error = ConnectionError("away")
    gate.open.set()
    with Recorder(database_store, spool=path, batch_size=20) as recorder:
        gate.wait_for_tries(1)
        overwrite_in_the_middle(path)
        recorder._writer._spool._connection.execute("PRAGMA shrink_memory")
        gate.error = None
        recorder.record_start(Job("new", "t"), *IDS[1:])
        recorder.flush(30)
        counts = recorder.counts
        assert (counts.accepted, counts.waiting, counts.spooled) == (1, 0, 0)

    written = {r.job_id for r in database_store.query(limit=None)}
    assert "new" in written
    assert 80 <= len(written) < 200
    assert f"the spool {path} is damaged; it was renamed to {path}.damaged" in caplog.text
    assert names(tmp_path) == [name for name in names(tmp_path) if name != "spool"]


def test_a_full_disk_under_the_spool_holds_up_nothing(database_store, tmp_path, leave, caplog):
    """Written operations stay in the file, which cannot change, until there is room again."""
    path = tmp_path / "spool"
    leave(path, *range(10))
    gate = Gate(database_store)
    with Recorder(database_store, spool=path, batch_size=3, max_delay=0) as recorder:
        gate.wait_for_tries(1)
        spool = recorder._writer._spool
        kept = spool._connection
        spool._connection = FullDisk(kept)
        gate.open.set()
        record(recorder, "new")
        recorder.flush(30)
        assert recorder.counts.written == 12
        assert len(database_store.query(limit=None)) == 11
        assert len(database_store.recent()) == 1
        assert kept.execute("SELECT count(*) FROM operations").fetchone() == (10,)
        spool._connection = kept
    assert not path.exists()
    assert f"the spool {path} cannot be shortened yet: database or disk is full" in caplog.text


class FullDisk:
    """A connection that can read but not write."""

    def __init__(self, connection):
        self._connection = connection

    def __getattr__(self, name):
        return getattr(self._connection, name)

    def __enter__(self):
        return self._connection.__enter__()

    def __exit__(self, *error):
        return self._connection.__exit__(*error)

    def execute(self, statement, *parameters):
        if not statement.startswith("SELECT"):
            raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(statement, *parameters)

    executemany = execute


def test_a_spool_that_no_disk_has_room_for_is_an_error_with_its_path(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(spool_file, "_set_up", fail)
    with pytest.raises(InvalidInput, match=f"{tmp_path}/spool' cannot be opened .*disk is full"):
        Recorder(create_store(), spool=tmp_path / "spool")
    shutil.rmtree(tmp_path)
