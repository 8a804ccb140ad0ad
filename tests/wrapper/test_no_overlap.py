"""`jobhistory run --no-overlap`, and runs whose wrapper is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine

from jobhistory import Job, create_store
from jobhistory._runtime.clock import utc_now
from jobhistory.cli.wrapper import history
from tests import command_line

NOWHERE = "postgresql://app:hunter2@127.0.0.1:1/nowhere"
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
UNTIL_TOLD = ["sh", "-c", "echo $$; read line"]
"""Prints its process id, and runs until its standard input is closed."""


@pytest.fixture
def store(database):
    # Processes that the tests fork could not use the file if a connection to it were open.
    return create_store(create_engine(database.url, poolclass=NullPool))


def eventually(is_true):
    """Wait for what another process does."""
    until = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.01)


def kill(pid):
    """Kill a process that is nobody's child here, and wait for its end."""
    os.kill(pid, signal.SIGKILL)
    ask = ["ps", "-o", "stat=", "-p", str(pid)]
    eventually(lambda: subprocess.run(ask, capture_output=True).stdout.strip()[:1] in (b"", b"Z"))


class Runs:
    """Runs of a task, which end with the test at the latest."""

    def __init__(self, environment, url):
        self._environment = environment
        self._url = url
        self._started = []

    def start(self, *arguments, url=None, **options):
        process = command_line.start(
            *self._arguments(arguments, url), env=self._environment, text=True, **PIPES | options
        )
        self._started.append(process)
        return process

    def start_command(self, *options, **others):
        """Start a run, and return it and the process of its command."""
        process = self.start(*options, "--", *UNTIL_TOLD, **others)
        return process, int(process.stdout.readline())

    def run(self, *arguments, url=None):
        return command_line.run(*self._arguments(arguments, url), env=self._environment)

    def _arguments(self, arguments, url):
        return ("run", "--url", url or self._url, "--task", "backup", *arguments)

    def kill_wrapper(self, process, command):
        """Kill a run, but not its command, once it has noted which process that is."""
        folder = Path(self._environment["XDG_DATA_HOME"], "jobhistory", "running")
        eventually(lambda: any(f" {command} " in file.read_text() for file in folder.iterdir()))
        process.kill()
        process.wait()

    def close(self):
        for process in self._started:
            process.kill()
            with process:
                process.communicate(timeout=60)


@pytest.fixture
def runs(environment, url):
    runs = Runs(environment, url)
    yield runs
    runs.close()


def end(process):
    """Let a command end; return the exit status of its run."""
    _, err = process.communicate("\n", timeout=60)
    assert err == ""
    return process.returncode


def told(done):
    return done.returncode, done.stdout, done.stderr


def only(store, status):
    (record,) = store.query(status=status)
    return record


def test_a_run_is_skipped_while_another_one_of_its_task_runs(runs, store):
    first, _ = runs.start_command("--no-overlap")
    assert told(runs.run("--no-overlap", "--", "echo", "no")) == (0, "", "")
    assert told(runs.run("--", "echo", "allowed")) == (0, "allowed\n", "")
    assert told(runs.run("--no-overlap", "--task", "mail", "--", "echo", "yes")) == (0, "yes\n", "")

    holder = only(store, "started")
    skipped = only(store, "cancelled")
    assert skipped.error_message == (
        f"skipped: execution {holder.id} of worker {holder.worker_id} "
        f"has been running since {holder.started_at:%Y-%m-%dT%H:%M:%SZ}"
    )
    assert (skipped.execution_time_ms, skipped.payload) == (0, {"command": ["echo", "no"]})
    assert skipped.completed_at == skipped.started_at

    assert end(first) == 0
    assert told(runs.run("--no-overlap", "--", "echo", "yes")) == (0, "yes\n", "")


def test_who_looks_at_a_terminal_is_told_that_a_run_is_skipped(runs):
    runs.start_command("--no-overlap")
    ours, theirs = os.openpty()
    process = runs.start("--no-overlap", "--", "true", stderr=theirs)
    assert process.wait(60) == 0
    os.close(theirs)
    assert os.read(ours, 1000).decode().startswith("jobhistory: backup is skipped: execution ")
    os.close(ours)


def test_who_asks_is_told_that_a_run_is_skipped(runs):
    runs.start_command("--no-overlap")
    status, out, err = told(runs.run("--no-overlap", "--verbose", "--", "echo", "no"))
    assert (status, out) == (0, "")
    assert err.startswith("jobhistory: backup is skipped: execution ")


def test_several_lost_runs_take_one_line(runs, store):
    long_ago = create_store(
        store.internals.session_factory, clock=lambda: utc_now() - timedelta(days=1)
    )
    for number in range(3):
        record = long_ago.record_start(Job(number, "backup"), "elsewhere:17", "c")
        store.internals.history.heartbeat(
            record.id, record.job_id, {"heartbeat_at": record.started_at}
        )
    _, _, err = told(runs.run("--no-overlap", "--", "true"))
    assert err.startswith("jobhistory: 3 runs of backup since 20")
    assert err.count("\n") == 1


def test_without_a_place_for_files_the_row_keeps_others_away(runs, environment):
    environment["XDG_DATA_HOME"] = "/dev/null"
    first, _ = runs.start_command("--no-overlap")
    assert told(runs.run("--no-overlap", "--", "echo", "no")) == (0, "", "")
    assert end(first) == 0
    assert told(runs.run("--no-overlap", "--", "echo", "yes")) == (0, "yes\n", "")


def test_of_runs_that_start_at_once_exactly_one_runs(runs, store):
    at_once = [runs.start("--no-overlap", "--", *UNTIL_TOLD) for _ in range(4)]
    for process in at_once:
        if process.stdout.readline() == "":
            assert process.wait(60) == 0
    (winner,) = [process for process in at_once if process.poll() is None]
    assert end(winner) == 0
    statuses = sorted(record.status for record in store.query())
    assert statuses == ["cancelled"] * 3 + ["completed"]


def test_a_command_that_outlives_its_killed_wrapper_still_counts(runs, store):
    killed, command = runs.start_command("--no-overlap")
    runs.kill_wrapper(killed, command)
    assert told(runs.run("--no-overlap", "--", "echo", "no")) == (0, "", "")
    assert only(store, "started").worker_id.endswith(f":{killed.pid}")

    kill(command)
    done = runs.run("--no-overlap", "--", "echo", "yes")
    lost = only(store, "failed")
    assert told(done) == (
        0,
        "yes\n",
        f"jobhistory: the run of backup from {lost.started_at:%Y-%m-%dT%H:%M:%SZ} "
        f"on {lost.worker_id} was lost, and has failed\n",
    )
    assert lost.error_type == "jobhistory.WorkerLost"
    assert lost.worker_id.endswith(f":{killed.pid}")


def test_the_next_run_tells_of_one_that_was_killed(runs, store):
    killed, command = runs.start_command()
    eventually(store.running)
    runs.kill_wrapper(killed, command)
    kill(command)
    next_, _ = runs.start_command()
    eventually(lambda: store.query(status="failed"))
    assert only(store, "failed").error_type == "jobhistory.WorkerLost"
    _, err = next_.communicate("\n", timeout=60)
    assert err.startswith("jobhistory: the run of backup from 20")
    assert told(runs.run("--", "true")) == (0, "", "")


def test_reap_tells_of_runs_that_were_killed(runs, store, url, environment):
    killed, command = runs.start_command()
    eventually(store.running)
    runs.kill_wrapper(killed, command)
    reap = ["reap", "--url", url, "--older-than", "1 day", "--verbose"]
    none = command_line.run(*reap, env=environment)
    kill(command)
    one = command_line.run(*reap, env=environment)
    assert none.stdout == "0 executions marked as failed (worker lost)\n"
    assert one.stdout == "1 execution marked as failed (worker lost)\n"
    assert only(store, "failed").error_type == "jobhistory.WorkerLost"


@pytest.mark.parametrize("age", [timedelta(seconds=50), timedelta(seconds=70)])
def test_a_run_of_another_machine_is_lost_when_its_heartbeats_have_stopped(runs, store, age):
    at = utc_now() - age
    record = create_store(store.internals.session_factory, clock=lambda: at).record_start(
        Job("1", "backup"), "elsewhere:17", "c"
    )
    store.internals.history.heartbeat(record.id, record.job_id, {"heartbeat_at": at})
    done = runs.run("--no-overlap", "--", "echo", "yes")
    if age < timedelta(minutes=1):
        assert told(done) == (0, "", "")
        assert only(store, "cancelled")
    else:
        assert (done.returncode, done.stdout) == (0, "yes\n")
        assert only(store, "failed").error_message.startswith("no heartbeat since 20")


def test_an_execution_without_heartbeats_counts_as_running_and_the_remedy_is_told(runs, store):
    store.record_start(Job("1", "backup"), "elsewhere:17", "c")
    assert told(runs.run("--no-overlap", "--", "echo", "no")) == (0, "", "")
    reason = only(store, "cancelled").error_message
    assert reason.endswith(
        "; it sends no heartbeats, so 'jobhistory reap' must end it if it is lost"
    )


def test_a_run_without_overlap_sends_heartbeats(runs, store, monkeypatch):
    monkeypatch.setattr(history, "HEARTBEAT_SECONDS", 0.01)
    process, _ = runs.start_command("--no-overlap")
    (record,) = store.running()
    eventually(lambda: store.get(record.id).heartbeat_at > record.heartbeat_at)
    assert end(process) == 0


def test_without_history_runs_of_one_machine_do_not_overlap(runs):
    first, _ = runs.start_command("--no-overlap", url=NOWHERE)
    skipped = runs.run("--no-overlap", "--", "echo", "no", url=NOWHERE)
    assert (skipped.returncode, skipped.stdout) == (0, "")
    assert skipped.stderr.startswith("jobhistory: not recorded: backup, skipped: ")
    _, err = first.communicate("\n", timeout=60)
    assert err.startswith(
        "jobhistory: backup may overlap with runs on other machines, "
        "because history cannot be reached: "
    )
    assert "hunter2" not in err + skipped.stderr
    assert first.returncode == 0


def test_a_retry_that_would_overlap_is_skipped(runs, store):
    script = "echo tried; read line; exit 3"
    options = ["--no-overlap", "--retry", "1", "--retry-delay", "0s"]
    first = runs.start(*options, "--", "sh", "-c", script)
    assert first.stdout.readline() == "tried\n"
    other, _ = runs.start_command()  # it does not care
    eventually(lambda: len(store.running()) == 2)
    assert end(first) == 3
    assert only(store, "cancelled").attempt_number == 2
    assert end(other) == 0


def test_what_is_not_written_before_the_end_cannot_keep_others_away(runs):
    done = runs.run("--no-overlap", "--record", "failures", "--", "echo", "no")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--no-overlap" in done.stderr
    assert "--record" in done.stderr
