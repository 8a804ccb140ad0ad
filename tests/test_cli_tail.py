"""`jobhistory tail`: in pipes and on terminals, until Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess

import pytest

from jobhistory import Job, create_store
from tests.command_line import start

HEADINGS = "STARTED (UTC)\tSTATUS\tTOOK\tTASK\tJOB\tERROR"


@pytest.fixture
def store(database):
    return create_store(database.engine, notify=True)


@pytest.fixture
def tail(database):
    """Start `jobhistory tail`; it is ended at the end."""
    processes = []

    def start_tail(*arguments, **options):
        url = database.url.render_as_string(hide_password=False)
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        env = dict(os.environ) | {"JOBHISTORY_URL": url, "TERM": "xterm", "COLUMNS": "100"}
        processes.append(start("tail", *arguments, env=env, **options))
        return processes[-1]

    yield start_tail
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def record(store, job_id, error=None):
    running = store.record_start(Job(job_id, "import"), "w", "c")
    if error is None:
        store.record_completion(running)
    else:
        store.record_failure(running, error=error)


def cells(process):
    return process.stdout.readline().rstrip("\n").split("\t")


def test_in_a_pipe_it_prints_the_last_ones_and_then_follows(tail, store):
    for number in range(3):
        record(store, f"old-{number}")
    process = tail("-n", "2")
    assert process.stdout.readline() == f"{HEADINGS}\n"
    assert [cells(process)[4] for _ in range(2)] == ["old-1", "old-2"]
    record(store, "new", error="no space")
    line = cells(process)
    if line[1] == "started":
        line = cells(process)
    assert line[1] == "failed"
    assert line[3:] == ["import", "new", "Error: no space"]


def test_ctrl_c_ends_it_with_status_130_and_without_a_word(tail, store):
    record(store, "1")
    process = tail()
    assert process.stdout.readline() == f"{HEADINGS}\n"
    assert cells(process)[4] == "1"
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stdout.read() == ""
    assert process.stderr.read() == ""


def test_json_lines_and_criteria(tail, store):
    record(store, "other", error="x")
    process = tail("--json", "--status", "completed", "--task", "import", "-n", "5")
    record(store, "bad", error="x")
    record(store, "good")
    line = process.stdout.readline()
    assert line, process.communicate()  # it has ended
    found = json.loads(line)
    assert (found["job_id"], found["status"]) == ("good", "completed")


def test_a_reader_that_closes_the_pipe_ends_it(tail, store):
    process = tail()
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    record(store, "1")
    assert process.wait(20) == 1
    assert process.stderr.read() == ""


def test_on_a_terminal_it_is_aligned_and_coloured(tail, store):
    record(store, "1")
    ours, theirs = pty.openpty()
    process = tail(stdout=theirs)
    os.close(theirs)
    record(store, "2", error="no space\x1b[2J")
    shown = ""
    while "no space" not in shown:
        shown += os.read(ours, 4096).decode()
    assert "STARTED (UTC)" in shown
    assert "\x1b[32mcompleted" in shown
    assert "\x1b[1;31mfailed" in shown
    assert "\x1b[2J" not in shown
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    os.close(ours)


@pytest.mark.parametrize(("arguments", "says"), [(["-n", "-1"], "-n -1"), (["--status=x"], "x")])
def test_options_that_cannot_be_used(tail, arguments, says):
    process = tail(*arguments)
    assert process.wait(20) == 2
    assert says in process.stderr.read()
