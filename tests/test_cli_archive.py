"""The commands that verify an archive, restore from it, and delete from it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from jobhistory import Archive, create_store, migrate
from jobhistory.cli import main
from tests.archived import archive_all

NOW = datetime(2015, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def url(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/history.db"
    monkeypatch.setenv("JOBHISTORY_URL", url)
    with create_store(url) as store:
        migrate.upgrade(store.internals.session_factory.engine)
        store.record_many(
            {
                "job_id": number,
                "correlation_id": "c",
                "task_identifier": "t",
                "worker_id": "w",
                "labels": {"tenant": ("acme", "other")[number % 2]},
                "started_at": NOW + timedelta(hours=number),
                "execution_time_ms": number,
                "status": "completed",
            }
            for number in range(30)
        )
        archive_all(store, Archive(tmp_path / "archive"))
    return url


@pytest.fixture
def run(capsys, url, tmp_path):
    def run(command, *arguments):
        with pytest.raises(SystemExit) as caught:
            main(["archive", command, str(tmp_path / "archive"), *arguments])
        out, err = capsys.readouterr()
        return caught.value.code or 0, out, err

    return run


def test_verify_prints_a_summary_or_a_line_for_each_problem(run, tmp_path):
    status, out, err = run("verify")
    assert (status, err) == (0, "")
    assert out.startswith("2 files with 30 executions, 0.0 MiB: ok")
    assert json.loads(run("verify", "--json")[1])["rows"] == 30
    path = min((tmp_path / "archive").glob("day=*/*"))
    (path.parent / "other.parquet").write_bytes(path.read_bytes())
    path.unlink()
    status, out, err = run("verify")
    assert (status, err) == (1, "")
    assert out.splitlines() == [
        f"day=2015-11-01/{path.name}: there is no such file",
        "day=2015-11-01/other.parquet: is not in the manifest",
        "2 files with 30 executions, 0.0 MiB: 2 problems",
    ]
    status, out, _ = run("verify", "--json")
    assert status == 1
    assert [each["kind"] for each in json.loads(out)["problems"]] == ["missing", "unknown"]


def test_verify_names_files_that_wait_which_are_no_problem(run, tmp_path):
    (tmp_path / "archive" / "_pending" / "x.parquet").write_bytes(b"")
    status, out, err = run("verify")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "_pending/x.parquet: waits for 'expire --archive', which publishes or deletes it",
        "2 files with 30 executions, 0.0 MiB: ok",
    ]


def test_restore_copies_a_window(run):
    window = ("--from", "2015-11-01 14:00", "--to", "2015-11-01 16:00")
    assert run("restore", *window) == (0, "3 executions restored into job_history_restored\n", "")
    assert run("restore", "--json", "--into", "other") == (0, '{"restored": 30}\n', "")
    assert run("restore")[1] == "27 executions restored into job_history_restored\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--from", "soon"], "--from 'soon'"),
        (["--from", "2015-11-02", "--to", "2015-11-01"], "--from '2015-11-02 00:00:00+00:00'"),
        (["--into", "job_history"], "--into 'job_history' would count its executions"),
        (["--batch-size", "0"], "--batch-size 0"),
    ],
)
def test_restore_names_the_option_that_it_refuses(run, options, says):
    status, out, err = run("restore", *options)
    assert (status, out) == (2, "")
    assert err.startswith(f"jobhistory: {says}")


def test_delete_needs_a_criterion_and_an_answer(run):
    assert run("delete", "--yes")[0] == 2
    assert "nothing is chosen" in run("delete", "--yes")[2]
    assert "nobody can answer here" in run("delete", "--job-id", "3")[2]
    assert json.loads(run("verify", "--json")[1])["rows"] == 30


def test_delete_removes_what_meets_the_criteria(run, url, tmp_path):
    assert run("delete", "--label", "tenant=acme", "--dry-run") == (
        0,
        "15 executions would be deleted\n",
        "",
    )
    assert run("delete", "--label", "tenant=acme", "--yes") == (0, "15 executions deleted\n", "")
    assert run("delete", "--job-id", "3", "--yes", "--json") == (0, '{"deleted": 1}\n', "")
    assert json.loads(run("verify", "--json")[1])["rows"] == 14


def test_delete_takes_ids_of_executions(run, capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["archive", "sql", str(tmp_path / "archive"), "SELECT id FROM job_history LIMIT 2"])
    ids = capsys.readouterr().out.splitlines()[1:]
    given = ("--execution-id", ",".join(ids))
    assert run("delete", *given, "--dry-run")[1] == "2 executions would be deleted\n"
    assert run("delete", *given, "--yes")[1] == "2 executions deleted\n"
    assert run("delete", "--execution-id", "x", "--yes")[0] == 2


def test_a_url_that_is_no_archive_is_named_as_it_was_typed(capsys, url):
    with pytest.raises(SystemExit) as caught:
        main(["archive", "verify", " "])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("jobhistory: ARCHIVE ' ' is not a folder or URL")


def test_a_history_file_that_does_not_exist_is_not_created(run, tmp_path):
    status, _, err = run("verify", "--url", f"sqlite:///{tmp_path}/typo.db")
    assert status == 2
    assert "names a file that does not exist" in err
    assert not (tmp_path / "typo.db").exists()
