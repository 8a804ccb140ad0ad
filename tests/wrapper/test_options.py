"""The options of `jobhistory run`: what they do, and how wrong ones are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from time import sleep
from uuid import uuid4

import pytest

from jobhistory import Status, cli, create_store
from jobhistory.cli.commands.run import run as described
from jobhistory.cli.wrapper.options import OPTIONS, RunOptions
from jobhistory.cli.wrapper.parsing import asks_for_help, read_options
from tests import command_line

sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def records(database):
    """Returns the records, the oldest first."""
    return lambda: create_store(database.engine).query()[::-1]


@sqlite
def test_a_command_that_takes_too_long_is_ended_and_recorded_as_timed_out(run, only_record):
    script = "echo working >&2; exec sleep 60"
    done = run("--timeout", "0.2s", "--", "sh", "-c", script)

    assert (done.returncode, done.stderr) == (124, "working\n")
    record = only_record()
    assert (record.status, record.error_type) == (Status.FAILED, "jobhistory.TimedOut")
    assert record.error_message == "took longer than 200 ms: working"
    assert 200 <= record.execution_time_ms < 30_000


@sqlite
def test_what_ignores_its_end_is_killed_with_all_that_it_started(run, only_record):
    script = "trap '' TERM; sleep 60 & echo $!; while :; do sleep 60; done"
    done = run("--timeout", "0.1s", "--kill-after", "0.1s", "--", "sh", "-c", script)

    assert done.returncode == 124
    assert only_record().error_type == "jobhistory.TimedOut"
    assert is_gone(int(done.stdout))


@sqlite
def test_a_command_that_cleans_up_at_its_time_limit_has_timed_out_all_the_same(run, only_record):
    script = "trap 'echo cleaned; exit 0' TERM; sleep 60 & wait"
    done = run("--timeout", "0.1s", "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (124, "cleaned\n")
    assert only_record().error_type == "jobhistory.TimedOut"


@sqlite
def test_each_attempt_is_an_execution_of_one_job(run, records, tmp_path):
    script = "echo x >> $0; test $(wc -l < $0) -gt 2"
    options = ["--retry", "5", "--retry-delay", "0.001s"]
    done = run(*options, "--", "sh", "-c", script, tmp_path / "tries")

    assert (done.returncode, done.stderr) == (0, "")
    attempts = records()
    assert [each.attempt_number for each in attempts] == [1, 2, 3]
    assert [each.will_retry for each in attempts] == [True, True, None]
    assert len({each.job_id for each in attempts}) == 1
    assert attempts[-1].status is Status.COMPLETED


@sqlite
def test_the_last_attempt_that_fails_is_final(run, records):
    done = run("--retry", "1", "--retry-delay", "0", "--", "sh", "-c", "exit 7")
    assert done.returncode == 7
    assert [each.will_retry for each in records()] == [True, None]


@sqlite
def test_a_command_that_cannot_start_is_not_tried_again(run, only_record):
    assert run("--retry", "3", "--retry-delay", "0", "--", "/no/such").returncode == 127
    assert only_record().will_retry is None


@sqlite
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait_for_the_next_attempt(environment, url, only_record, number):
    with command_line.start(
        *["run", "--url", url, "--task", "sync", "--retry", "3", "--retry-delay", "1h"],
        *["--", "sh", "-c", "echo $$; exit 1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        pid = int(process.stdout.readline())
        while exists(pid):  # until its parent knows that it has ended
            sleep(0.001)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    name = signal.Signals(number).name
    assert said == f"jobhistory: sync is not tried again: {name} came while it waited\n"
    assert only_record().will_retry is True


@sqlite
def test_a_command_that_was_told_to_end_is_not_tried_again(environment, url, only_record):
    with command_line.start(
        *["run", "--url", url, "--retry", "3", "--retry-delay", "0"],
        *["--", "sh", "-c", "echo ready; exec sleep 60"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(30) == 128 + 15
    assert only_record().will_retry is None


@sqlite
@pytest.mark.parametrize(
    ("statuses", "status", "recorded"),
    [("0,1", 1, "completed"), ("0,1", 2, "failed"), ("3", 0, "failed")],
)
def test_other_exit_statuses_may_count_as_success(run, only_record, statuses, status, recorded):
    done = run("--ok-status", statuses, "--", "sh", "-c", f"exit {status}")
    assert done.returncode == status
    assert only_record().status == recorded


@sqlite
def test_labels_are_recorded_with_the_start_and_with_a_failure(run, records):
    for options in ([], ["--record", "failures"]):
        done = run("--label", "host=db1", "--label", "kind=a=b", *options, "--", "false")
        assert done.returncode == 1
    assert [each.labels for each in records()] == [{"host": "db1", "kind": "a=b"}] * 2


@sqlite
def test_the_end_of_the_output_is_kept_without_its_secrets(run, only_record):
    script = "echo start; echo password=hunter2; sleep 0.05; echo problem >&2"
    done = run("--capture", "--", "sh", "-c", script)
    assert (done.stdout, done.stderr) == ("start\npassword=hunter2\n", "problem\n")
    record = only_record()
    assert record.status is Status.COMPLETED
    assert record.log_tail == "start\npassword=[redacted]\nproblem\n"


@sqlite
@pytest.mark.parametrize("size", [["--capture", "1 KiB"], ["--capture=1024"]])
def test_what_is_kept_fits_and_begins_with_a_whole_line(run, only_record, size):
    done = run(*size, "sh", "-c", "seq 1000")
    assert done.returncode == 0
    kept = only_record().log_tail
    assert done.stdout.endswith(kept)
    assert 1000 < len(kept) <= 1024
    assert done.stdout[: -len(kept)].endswith("\n")


@sqlite
def test_a_run_in_a_trace_passes_it_on(run, only_record):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    done = run(
        *["--", "sh", "-c", "echo $TRACEPARENT; echo $JOBHISTORY_EXECUTION_ID"],
        variables={"TRACEPARENT": f"00-{trace}-00f067aa0ba902b7-01"},
    )
    record = only_record()
    assert (record.trace_id, record.span_id) == (trace, "00f067aa0ba902b7")
    assert done.stdout.split() == [f"00-{trace}-{record.id.hex[-16:]}-01", str(record.id)]


@sqlite
@pytest.mark.parametrize("variable", ["TRACEPARENT", "JOBHISTORY_EXECUTION_ID"])
def test_a_variable_that_cannot_be_read_stops_nothing(run, only_record, variable):
    done = run("--", "sh", "-c", f"echo ${variable}", variables={variable: "nonsense"})
    assert (done.returncode, done.stderr) == (0, "")
    assert (only_record().trace_id, only_record().parent_id) == (None, None)


@sqlite
def test_a_run_within_a_run_has_a_parent(run, url, records):
    run("--", command_line.SCRIPT, "run", "--url", url, "--", "true")
    parent, child = sorted(records(), key=lambda record: record.started_at)
    assert (parent.parent_id, child.parent_id) == (None, parent.id)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--timeout", "soon"], "--timeout 'soon' is not a duration; write it like '30 days'"),
        (["--timeout", "5"], "--timeout '5' is not a duration"),
        (["--timeout=0s"], "--timeout '0s' is not positive"),
        (["--kill-after", "x"], "--kill-after 'x' is not a duration"),
        (["--retry", "-1"], "--retry '-1' is not a number from 0 to 1000; write it like 3"),
        (["--retry-delay", "x"], "--retry-delay 'x' is not a duration"),
        (["--ok-status", "0,256"], "--ok-status '0,256' is not a list of exit statuses"),
        (["--label", "host"], "--label 'host' has no value; write it like 'tenant=acme'"),
        (["--label", "Host=a"], "--label 'Host' is not the name of a label"),
        (["--capture=16KB"], "--capture '16KB' is not a size from 1 KiB to 16 MiB"),
        (["--capture", "16KB"], "--capture '16KB' is not a size from 1 KiB to 16 MiB"),
        (["--capture", "16", "KB"], "--capture '16 KB' is not a size from 1 KiB to 16 MiB"),
        (["--capture", "64M"], "--capture '64M' is not a size from 1 KiB to 16 MiB"),
        (["--capture", "1.5M"], "--capture '1.5M' is not a size from 1 KiB to 16 MiB"),
        (
            ["--capture", "7z", "x"],
            "--capture '7z' is not a size from 1 KiB to 16 MiB; write it like '16 KiB' or 16384, "
            "and a command after --",
        ),
        (["--quiet=yes"], "--quiet 'yes' is one value too many; write --quiet alone"),
        (["--tsak", "a"], "option '--tsak' does not exist; did you mean '--task'?"),
        (["--time", "5s"], "option '--time' does not exist; did you mean '--timeout'?"),
        (["--zzz"], "option '--zzz' does not exist; 'jobhistory run --help' lists the options"),
        (["-x"], "option '-x' does not exist"),
        (["--url", "mysql://root:hunter2@host/x"], "--url 'mysql://...' uses 'mysql'"),
        (["--task"], "option '--task' has no value; write it like '--task TEXT'"),
    ],
)
def test_a_wrong_option_is_named_and_nothing_runs(environment, tmp_path, arguments, told):
    done = command_line.run("run", *arguments, "--", "touch", tmp_path / "ran", env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"jobhistory: {told}")
    assert "hunter2" not in line
    assert not (tmp_path / "ran").exists()


def test_a_wrong_value_of_a_variable_is_named_by_the_variable(environment):
    done = command_line.run("run", "--", "true", env=environment | {"JOBHISTORY_URL": "x"})
    assert done.returncode == 2
    assert done.stderr.startswith("jobhistory: JOBHISTORY_URL '...' is not a database URL; ")


@pytest.mark.parametrize("command", [[], ["--"], ["--", ""]])
def test_a_missing_command_is_told_with_an_example(environment, command):
    done = command_line.run("run", "--task", "a", *command, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is missing; write it after --, as in 'jobhistory run -- ./backup.sh'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["ls", "-l"], ["ls", "-l"]),
        (["--", "-x"], ["-x"]),
        (["--task", "a", "--", "ls", "--", "x"], ["ls", "--", "x"]),
        (["--task=a", "ls", "--task", "b"], ["ls", "--task", "b"]),
        (["--task", "--quiet", "ls"], ["ls"]),
        (["--capture", "ls"], ["ls"]),
        (["--capture", "--", "7z", "x"], ["7z", "x"]),
        (["--capture", "16 KiB", "ls"], ["ls"]),
        (["--capture", "16", "KiB", "--", "ls"], ["ls"]),
        (["--capture", "16384", "ls"], ["ls"]),
    ],
)
def test_the_command_begins_after_the_options(arguments, command):
    assert read_options(arguments, {}).command == command


@pytest.mark.parametrize(
    ("size", "kept"),
    [
        (["64k"], 64 * 1024),
        (["1K"], 1024),
        (["1M"], 1024**2),
        (["16KiB"], 16 * 1024),
        (["16", "KiB"], 16 * 1024),
        (["1 MiB"], 1024**2),
        (["1", "MiB"], 1024**2),
        (["2048"], 2048),
        ([], 16 * 1024),
    ],
)
def test_a_size_is_written_as_people_write_it(size, kept):
    options = read_options(["--capture", *size, "--", "ls"], {})
    assert (options.capture, options.command) == (kept, ["ls"])
    if len(size) == 1:
        assert read_options([f"--capture={size[0]}", "ls"], {}).capture == kept


def test_the_last_of_several_values_counts_and_variables_are_defaults():
    variables = {"JOBHISTORY_SCHEMA": "s", "JOBHISTORY_URL": ""}
    options = read_options(["--task", "a", "--task", "b", "ls"], variables)
    assert (options.task, options.schema, options.url) == ("b", "s", None)


@pytest.mark.parametrize(
    ("arguments", "asks"),
    [
        (["--help"], True),
        (["--task", "a", "-h"], True),
        (["--task", "--help", "ls"], False),
        (["--", "--help"], False),
        (["ls", "--help"], False),
        ([], False),
    ],
)
def test_help_is_for_the_command_after_its_name(arguments, asks):
    assert asks_for_help(arguments) is asks


def test_each_option_has_a_field_a_valid_default_and_a_place_in_the_help():
    names = [option.field for option in OPTIONS]
    assert set(names) == set(RunOptions._fields) - {"command"}
    assert list(described.__annotations__) == ["command", *names]
    for option in OPTIONS:
        if option.default_text is not None:
            assert option.read(option.default_text, option.name) == option.default


def test_run_is_the_first_word(environment):
    done = command_line.run("--", "run", "true", env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert "write 'jobhistory run -- true'" in done.stderr


def test_windows_is_refused_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(SystemExit, match="1"):
        cli.main(["run", "--", "true"])
    assert capsys.readouterr() == (
        "",
        "jobhistory: run requires a POSIX system, such as Linux, macOS or WSL\n",
    )


def test_nothing_slow_is_imported_before_the_command_starts(environment, tmp_path):
    """The command is started by a function that looks at what has been imported."""
    script = (
        "import os, sys\n"
        "def start(*arguments, **options):\n"
        "    print(*sorted({name.partition('.')[0] for name in sys.modules}))\n"
        "    os._exit(0)\n"
        "os.posix_spawnp = start\n"
        "from jobhistory.cli import main\n"
        "main(['run', '--timeout', '1h', '--retry', '2', '--label', 'a=b', '--', 'true'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment | {"PYTHONUNBUFFERED": "1", "TRACEPARENT": str(uuid4())},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    imported = set(done.stdout.split())
    assert "jobhistory" in imported
    slow = {"sqlalchemy", "typer", "click", "rich", "alembic", "psycopg", "platformdirs"}
    assert not imported & (slow | {"asyncio", "dataclasses", "inspect", "logging", "subprocess"})


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as status:  # its new parent may be slow to bury it
            return status.read().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True
