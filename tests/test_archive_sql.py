"""Questions to an archive in SQL, through DuckDB."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from jobhistory import Archive, InvalidInput, create_store, migrate
from jobhistory.archive.parquet import read_table, write_file
from jobhistory.archive.view import connect, statements_for_command
from jobhistory.cli import main, sql_prompt
from jobhistory.schema import COLUMN_NAMES
from tests.archived import archive_all

NOW = datetime(2015, 11, 1, 22, tzinfo=UTC)


def fill(folder, url):
    """Archive six executions of two days."""
    with create_store(url) as store:
        migrate.upgrade(store.internals.session_factory.engine)
        store.record_many(
            {
                "job_id": number,
                "correlation_id": "c",
                "task_identifier": "t",
                "worker_id": "w",
                "started_at": NOW + timedelta(hours=number),
                "execution_time_ms": number,
                "status": "completed",
                "payload": {"n": number},
            }
            for number in range(6)
        )
        ids = [record.id for record in store.iterate(order="oldest")]
        archive_all(store, Archive(folder))
        return ids


@pytest.fixture
def ids(folder, tmp_path):
    return fill(folder, f"sqlite:///{tmp_path}/history.db")


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "archive")


@pytest.fixture
def run(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["archive", "sql", *arguments])
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run


def ask(folder, query):
    with connect(folder) as connection:
        return connection.execute(query).fetchall()


def test_the_view_has_all_columns_and_the_day(folder, ids):
    names = [name for name, *_ in ask(folder, "DESCRIBE job_history")]
    assert names == [*COLUMN_NAMES, "day"]
    found = ask(folder, "SELECT id, job_id, started_at, day FROM job_history ORDER BY started_at")
    assert found == [
        (id_, str(number), NOW + timedelta(hours=number), (NOW + timedelta(hours=number)).date())
        for number, id_ in enumerate(ids)
    ]
    assert ask(folder, "SELECT payload->>'n' FROM job_history WHERE job_id = '4'") == [("4",)]
    assert ask(folder, f"SELECT job_id FROM job_history WHERE id = '{ids[3]}'") == [("3",)]


def test_an_archive_without_files_is_an_empty_view_with_all_columns(tmp_path):
    (tmp_path / "empty").mkdir()
    found = ask(str(tmp_path / "empty"), "SELECT id, day FROM job_history WHERE job_id = '7'")
    assert found == []


@pytest.mark.parametrize("kind", ["nothing", "a file"])
def test_a_place_that_is_no_folder_is_refused(tmp_path, run, kind):
    path = tmp_path / "typo"
    if kind == "a file":
        path.write_text("x")
    with pytest.raises(InvalidInput, match="does not exist"):
        statements_for_command(str(path))
    status, out, err = run(str(path), "SELECT count(*) FROM job_history")
    assert (status, out) == (2, "")
    assert err.startswith(f"jobhistory: ARCHIVE {path.as_uri()!r} does not exist, or")


@pytest.mark.parametrize("name", ["day=2015-11-02", "."])
def test_a_folder_that_cannot_be_listed_is_an_error_and_not_empty(
    run, folder, ids, monkeypatch, name
):
    """Tests may run as root, which may list any folder."""
    closed = (Path(folder) / name).resolve()
    scandir = os.scandir

    def refusing(path):
        if Path(path).resolve() == closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert run(folder, "SELECT count(*) FROM job_history") == (
        1,
        "",
        f"jobhistory: the archive {Path(folder).as_uri()} cannot be listed: Permission denied\n",
    )


def test_a_damaged_file_is_named(run, folder, ids):
    damaged = next(Path(folder).glob("day=*/*.parquet"))
    damaged.write_bytes(b"")
    status, out, err = run(folder, "SELECT count(*) FROM job_history")
    assert (status, out) == (1, "")
    assert err.startswith(f"jobhistory: the archive {Path(folder).as_uri()} cannot be read: ")
    assert damaged.name in err
    assert err.count("\n") == 1


def test_a_scheme_that_nobody_knows_is_refused(run):
    assert run("nosuch://bucket/archive", "SELECT 1") == (
        2,
        "",
        "jobhistory: ARCHIVE 'nosuch://bucket/archive' has a scheme that fsspec does not know; "
        "write it like '/var/lib/app/archive' or 's3://bucket/archive'\n",
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://u:SECRET@127.0.0.1:1/x?sig=SECRET",
        "http://u:SECRET@127.0.0.1:1/x?sig=SECRET",
        "ftp://user:SECRET@127.0.0.1:1/x",
        "github://user:SECRET@127.0.0.1:1/x",
        "http://u:SECRET@[bad/x",
    ],
)
def test_a_store_that_does_not_answer_gives_one_sentence_without_secrets(run, url):
    status, out, err = run(url, "SELECT count(*) FROM job_history")
    assert status in (1, 2)
    assert out == ""
    assert "SECRET" not in err
    assert err.startswith(("jobhistory: the archive ", "jobhistory: ARCHIVE "))
    assert err.count("\n") == 1


def test_pending_files_do_not_show(folder, ids, tmp_path):
    published = next((tmp_path / "archive").glob("day=*/*.parquet"))
    (tmp_path / "archive" / "_pending" / "x.parquet").write_bytes(published.read_bytes())
    assert ask(folder, "SELECT count(*) FROM job_history") == [(6,)]


def test_files_of_other_versions_may_lack_columns_or_have_more(folder, ids, tmp_path):
    older, newer = sorted((tmp_path / "archive").glob("day=*/*.parquet"))
    older.write_bytes(write_file(read_table(older.read_bytes()).drop_columns(["log_tail"])))
    table = read_table(newer.read_bytes())
    newer.write_bytes(write_file(table.append_column("region", pa.array(["eu"] * len(table)))))
    found = ask(folder, "SELECT log_tail, region, count(*) FROM job_history GROUP BY ALL")
    assert sorted(found, key=str) == [(None, "eu", 4), (None, None, 2)]
    for path in (older, newer):
        path.write_bytes(write_file(read_table(path.read_bytes()).select(["id", "parent_id"])))
    assert ask(folder, "SELECT count(*), count(log_tail) FROM job_history") == [(6, 0)]


def test_a_column_day_of_the_app_is_read_without_the_folders(folder, ids):
    path = min(Path(folder).glob("day=*/*.parquet"))
    table = read_table(path.read_bytes())
    path.write_bytes(write_file(table.append_column("day", pa.array(["monday"] * len(table)))))
    assert ask(folder, f"SELECT DISTINCT day FROM job_history WHERE id = '{ids[0]}'") == [
        (NOW.date(),)
    ]
    files = f"'{folder}/day=*/*.parquet', hive_partitioning = false, union_by_name = true"
    query = f"SELECT DISTINCT day FROM read_parquet({files}) WHERE hex(id) = '{ids[0].hex.upper()}'"
    assert ask(folder, query) == [("monday",)]


@pytest.mark.parametrize("name", ["it's [here]", "a*b?", "ünï cödé"])
def test_the_folder_may_have_any_name(tmp_path, name):
    fill(tmp_path / name, f"sqlite:///{tmp_path}/history.db")
    assert ask(str(tmp_path / name), "SELECT count(*) FROM job_history") == [(6,)]


def test_an_object_store_is_read_through_fsspec(tmp_path):
    url = f"memory://archive-{uuid.uuid4().hex}"
    fill(url, f"sqlite:///{tmp_path}/history.db")
    assert ask(url, "SELECT day, count(*) FROM job_history GROUP BY day ORDER BY day") == [
        (NOW.date(), 2),
        ((NOW + timedelta(days=1)).date(), 4),
    ]
    assert statements_for_command(url) is None, "which DuckDB's own command could not read"


def test_a_pipe_gets_tabs(run, folder, ids):
    query = (
        "SELECT job_id, started_at, error_type, [1, 2] AS list FROM job_history WHERE job_id = '1'"
    )
    assert run(folder, query) == (
        0,
        "job_id\tstarted_at\terror_type\tlist\n1\t2015-11-01T23:00:00Z\t\t[1, 2]\n",
        "",
    )


def test_json_has_an_object_for_each_row(run, folder, ids):
    status, out, _ = run(
        folder, "--json", "SELECT id, day, sum(execution_time_ms) OVER () AS total, 1.5 AS "
        "share, true AS yes, NULL AS nothing FROM job_history ORDER BY started_at LIMIT 1"
    )  # fmt: skip
    assert status == 0
    assert json.loads(out) == {
        "id": str(ids[0]),
        "day": "2015-11-01",
        "total": 15,
        "share": 1.5,
        "yes": True,
        "nothing": None,
    }


def test_json_has_null_for_numbers_that_it_does_not_have(run, folder, ids):
    query = (
        "SELECT 'nan'::DOUBLE AS n, [1.5::DOUBLE, '-inf'::DOUBLE] AS l, {'i': 'inf'::FLOAT} AS s"
    )
    assert run(folder, "--json", query)[1] == '{"n": null, "l": [1.5, null], "s": {"i": null}}\n'


@pytest.mark.parametrize("query", ["", " ;\n"])
@pytest.mark.parametrize("is_piped", [False, True])
def test_no_query_is_an_error_that_shows_one(run, folder, ids, monkeypatch, query, is_piped):
    monkeypatch.setattr(sys, "stdin", io.StringIO(query if is_piped else "SELECT 1"))
    status, out, err = run(folder) if is_piped else run(folder, query)
    assert (status, out) == (2, "")
    assert err == (
        f"jobhistory: QUERY {query!r} has no statement; "
        "write it like 'SELECT count(*) FROM job_history'\n"
    )


def test_an_error_of_one_line_has_no_empty_line(run, folder, ids):
    assert run(folder, "DELETE FROM job_history")[2].count("\n") == 1


def test_a_terminal_gets_a_table(run, folder, ids, monkeypatch):
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    query = "SELECT day, count(*) AS runs FROM job_history GROUP BY day ORDER BY day"
    lines = run(folder, query)[1].replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    assert [line.split() for line in lines] == [
        ["day", "runs"],
        ["2015-11-01", "2"],
        ["2015-11-02", "4"],
    ]
    assert "no rows" in run(folder, "SELECT job_id FROM job_history WHERE false")[1]


def test_a_query_with_a_mistake_fails_and_shows_the_place(run, folder, ids):
    status, out, err = run(folder, "SELECT nosuch FROM job_history")
    assert (status, out) == (1, "")
    assert err.startswith('jobhistory: Binder Error: Referenced column "nosuch" not found')
    assert "LINE 1: SELECT nosuch" in err


def test_an_error_of_a_query_has_no_secrets(run, folder, ids):
    for url in ("s3://k:SECRET@b/x?sig=SECRET", "https://k:SECRET@127.0.0.1:1/x?sig=SECRET"):
        status, out, err = run(folder, f"SELECT error('cannot read {url}: gone')")
        assert (status, out) == (1, "")
        assert "SECRET" not in err
        assert "cannot read" in err


def test_the_query_may_come_from_a_pipe(run, folder, ids, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT count(*) AS n\nFROM job_history;\n"))
    assert run(folder) == (0, "n\n6\n", "")


def typed(monkeypatch, *lines):
    """Type lines at the prompt; an exception among them is raised instead."""
    rest = iter(lines)

    def read(prompt=""):
        line = next(rest, EOFError())
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)


def test_the_prompt_executes_statements_of_several_lines_until_the_end(monkeypatch, capsys):
    executed = []
    typed(
        monkeypatch,
        "",
        "SELECT 1;",
        "SELECT",
        "  2 ; ",
        "SELECT 3",
        KeyboardInterrupt(),
        "SELECT 4;",
    )
    sql_prompt.prompt(executed.append)
    assert executed == ["SELECT 1", "SELECT\n  2 ", "SELECT 4"]


def test_the_command_of_duckdb_gets_the_view(monkeypatch, folder, ids):
    started = []
    monkeypatch.setattr(sql_prompt, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(sql_prompt.os, "execv", lambda *arguments: started.append(arguments))
    statements = statements_for_command(folder)
    sql_prompt.start_duckdb(statements)
    ((path, words),) = started
    assert (path, words[0]) == ("/usr/bin/duckdb", "duckdb")
    assert words[1::2] == ["-cmd"] * len(statements)
    import duckdb

    with duckdb.connect() as connection:
        for statement in words[2::2]:
            connection.execute(statement)
        assert connection.execute("SELECT count(*) FROM job_history").fetchone() == (6,)


def test_without_the_command_of_duckdb_nothing_is_started(monkeypatch):
    monkeypatch.setattr(sql_prompt, "which", lambda name: None)
    monkeypatch.setattr(sql_prompt.os, "execv", lambda *arguments: pytest.fail("started"))
    sql_prompt.start_duckdb(["SELECT 1"])
