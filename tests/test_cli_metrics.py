"""`jobhistory metrics`: on standard output, and in a file for node_exporter."""

from __future__ import annotations

import os
import stat

import pytest

from jobhistory import Job, create_store
from tests.test_cli import run, url  # noqa: F401 - fixtures
from tests.test_metrics import value

# ruff: noqa: F811


@pytest.fixture
def history(database):
    with create_store(database.engine).track(Job("1", "back\x1b[31mup"), "w"):
        pass


def test_it_prints_metrics(run, url, history):
    status, out, err = run("metrics", "--url", url)

    assert (status, err) == (0, "")
    assert value(out, "executions_total", task="back\x1b[31mup", status="completed") == 1


def test_it_sends_no_escape_sequences_to_a_terminal(run, url, history, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    _, out, _ = run("metrics", "--url", url)

    assert "\x1b" not in out
    assert 'task="back\\x1b[31mup"' in out


def test_it_writes_a_whole_file_that_everybody_can_read(run, url, history, tmp_path):
    folder = tmp_path / "collector"
    folder.mkdir()
    path = folder / "jobhistory.prom"
    path.write_text("old")
    path.chmod(0o600)
    before = path.stat().st_ino
    umask = os.umask(0o077)
    try:
        assert run("metrics", "--textfile", str(path), "--url", url) == (0, "", "")
    finally:
        os.umask(umask)

    text = path.read_text(encoding="utf-8")
    assert value(text, "running", task="back\x1b[31mup") == 0
    assert text.endswith("\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.stat().st_ino != before  # replaced, not written over
    assert os.listdir(folder) == ["jobhistory.prom"]


def test_a_failure_leaves_the_file_as_it_was(run, url, history, tmp_path, monkeypatch):
    path = tmp_path / "jobhistory.prom"
    path.write_text("old")

    def no_space(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    status, out, err = run("metrics", "--textfile", str(path), "--url", url)

    assert (status, out) == (1, "")
    assert "No space left on device" in err
    assert path.read_text() == "old"
    assert not list(tmp_path.glob(".jobhistory.prom*"))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--textfile", "metrics.txt"], 2, "--textfile 'metrics.txt' is not a file that"),
        (["--textfile", "/nowhere/x.prom"], 1, "No such file or directory"),
        (["--max-tasks", "-1"], 2, "--max-tasks -1 is not a whole number from 0 up"),
    ],
)
def test_what_it_refuses(run, url, arguments, status, message):
    found, out, err = run("metrics", *arguments, "--url", url)

    assert (found, out) == (status, "")
    assert message in err


def test_a_database_without_a_table(run, bare_postgres_url):
    status, _, err = run(
        "metrics", "--url", bare_postgres_url.render_as_string(hide_password=False)
    )

    assert status == 1
    assert "jobhistory db upgrade" in err


def test_it_limits_the_number_of_tasks(run, url, history):
    _, out, _ = run("metrics", "--max-tasks", "0", "--url", url)

    assert value(out, "executions_total", task="_other", status="completed") == 1
