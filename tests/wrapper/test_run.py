"""`jobhistory run`: a real command between its caller and history."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from sqlalchemy import select, text

from jobhistory import Status, create_store
from jobhistory.rollup_schema import ENDED
from tests import command_line
from tests.command_line import SCRIPT

NOWHERE = "postgresql://app:hunter2@127.0.0.1:1/nowhere"


def test_a_command_that_fails_tells_its_story(environment, url, only_record):
    done = subprocess.run(
        [SCRIPT, "run", "--url", url, "--task", "backup", "--"]
        + ["sh", "-c", "echo working; echo oops >&2; exit 3"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert (done.returncode, done.stdout, done.stderr) == (3, "working\n", "oops\n")
    record = only_record()
    assert record.status is Status.FAILED
    assert record.task_identifier == "backup"
    assert record.error_type == "jobhistory.CommandFailed"
    assert record.error_message == "exit status 3: oops"
    assert record.error_stack.endswith("The end of its standard error:\noops\n\n")
    assert record.payload == {"command": ["sh", "-c", "echo working; echo oops >&2; exit 3"]}
    assert record.execution_time_ms < 30_000


@pytest.mark.parametrize("record", ["failures", "0"])
def test_failures_are_kept_and_other_runs_are_counted(run, database, record):
    task = f"ping-{record}"
    for script, status in (("exit 0", 0), ("exit 3", 3)):
        done = run("--task", task, "--record", record, "--", "sh", "-c", script)
        assert (done.returncode, done.stderr) == (status, "")

    (kept,) = create_store(database.engine).query()
    assert kept.error_type == "jobhistory.CommandFailed"
    with database.engine.connect() as connection:
        counted = connection.execute(select(ENDED).filter_by(task_identifier=task)).all()
    assert sorted((row.status, row.is_stored) for row in counted) == [
        ("completed", False),
        ("failed", True),
    ]


@pytest.mark.parametrize("record", ["some", "2", "nan"])
def test_what_to_keep_is_checked_before_the_command_runs(run, record):
    done = run("--record", record, "--", "echo", "no")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--record" in done.stderr
    assert "write it like 0.01" in done.stderr


def test_a_command_that_succeeds_is_completed_under_the_names_it_was_given(run, only_record):
    done = run(
        *["--task", "greet", "--job-id", "j-1", "--correlation-id", "c-1", "--retention", "1 day"],
        *["--", "cat", "-"],
        input="hello\n",
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
    record = only_record()
    assert record.status is Status.COMPLETED
    assert (record.job_id, record.correlation_id, record.task_identifier) == ("j-1", "c-1", "greet")
    assert (record.expires_at - record.started_at).days == 1
    assert record.started_at <= record.completed_at


def test_without_names_the_task_is_the_command_and_the_ids_are_new(run, only_record):
    assert run("--retention", "never", "/bin/true", "--flag").returncode == 0
    record = only_record()

    assert record.task_identifier == "true"
    assert record.job_id == record.correlation_id
    assert record.expires_at is None
    assert record.payload == {"command": ["/bin/true", "--flag"]}


def test_output_passes_through_as_it_comes(environment, tmp_path):
    """The command waits for each line to be read before it goes on to the next."""
    script = (
        "import sys\nprint('one', flush=True); input()\nprint('two', file=sys.stderr); input()\n"
    )
    with subprocess.Popen(
        [SCRIPT, "run", "--", sys.executable, "-c", script],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=0,
    ) as process:
        assert process.stdout.readline() == "one\n"
        process.stdin.write("\n")
        assert process.stderr.readline() == "two\n"
        process.stdin.write("\n")
        assert process.wait(30) == 0


def test_what_is_no_text_passes_through_and_is_recorded(run, only_record):
    done = run("--", "sh", "-c", r"printf '\000\377x' >&2; printf '\000\377'; exit 1", text=False)
    assert (done.stdout, done.stderr) == (b"\x00\xff", b"\x00\xffx")
    assert "\ufffd\ufffdx" in only_record().error_stack


def test_of_a_long_standard_error_the_record_has_the_tail_and_the_caller_everything(
    run, only_record
):
    script = "import sys\nfor n in range(200_000): sys.stderr.write(f'line {n}\\n')\nsys.exit(1)"
    done = run("--", sys.executable, "-c", script)

    assert len(done.stderr.splitlines()) == 200_000
    stack = only_record().error_stack
    assert stack.rstrip().endswith("line 199999")
    assert 30_000 < len(stack) < 40_000


def test_a_message_quotes_the_beginning_of_a_long_last_line(run, only_record):
    run("--", "sh", "-c", "head -c 5000 /dev/zero | tr '\\0' x >&2; exit 2")
    assert only_record().error_message == f"exit status 2: {'x' * 997}..."


def test_death_by_a_signal_names_the_signal(run, only_record):
    assert run("--", "sh", "-c", "kill -9 $$").returncode == 128 + 9
    record = only_record()

    assert record.error_type == "jobhistory.CommandKilled"
    assert record.error_message == "killed by SIGKILL (signal 9)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_command_and_the_record_is_still_written(
    environment, url, only_record, number
):
    script = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with command_line.start(
        *["run", "--url", url, "--", sys.executable, "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(30) == 42
    assert only_record().error_message == "exit status 42"


def test_a_signal_that_ends_the_command_is_recorded(environment, url, only_record):
    command = ["--", "sh", "-c", "echo ready; exec sleep 60"]
    with command_line.start(
        *["run", "--url", url, *command], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(30) == 128 + 15
    assert only_record().error_message == "killed by SIGTERM (signal 15)"


def test_the_command_has_the_signals_that_its_caller_had(run):
    """Held signals are held here, not in the command."""
    script = "import signal; print(len(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    assert run("--", sys.executable, "-c", script).stdout == "0\n"


def test_a_process_left_in_the_background_does_not_hold_up_the_record(
    environment, url, only_record
):
    command = ["--", "sh", "-c", "sleep 60 >/dev/null & echo $!; exit 4"]
    with command_line.start(
        *["run", "--url", url, *command],
        env=environment,
        stdout=subprocess.PIPE,  # not standard error, which the sleeper keeps open
        text=True,
    ) as process:
        out, _ = process.communicate(timeout=30)
    os.kill(int(out), signal.SIGKILL)
    assert process.returncode == 4
    assert only_record().status is Status.FAILED


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_caller_without_standard_error_is_no_reason_to_block(environment, url, only_record):
    """The command fills more than a pipe holds, and nobody can be shown it."""
    script = "import sys; sys.stderr.write('x' * 1_000_000 + 'end'); sys.exit(7)"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", SCRIPT, "run", "--url", url, "--"]
        + [sys.executable, "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (7, b"")
    assert only_record().error_stack.rstrip().endswith("xend")


def test_arguments_that_are_no_text_reach_the_command_and_are_recorded(run, only_record):
    done = run("--", "sh", "-c", 'printf "$1" | od -An -tx1', "sh", b"\xff\xfe")

    assert done.stdout.split() == ["ff", "fe"]
    assert only_record().payload["command"][-1] == "\ufffd\ufffd"


@pytest.mark.parametrize(
    ("command", "status", "kind"),
    [
        ("/no/such/command", 127, "FileNotFoundError"),
        ("/etc/passwd", 126, "PermissionError"),
    ],
)
def test_a_command_that_cannot_be_started_is_recorded(run, only_record, command, status, kind):
    done = run("--", command)

    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(f"jobhistory: {command}: ")
    record = only_record()
    assert (record.status, record.error_type) == (Status.FAILED, kind)
    assert command in record.error_message


@pytest.mark.parametrize(
    ("url", "told"),
    [
        (NOWHERE, "refused"),
        ("sqlite:////no/such/folder/history.db", "unable to open database file"),
    ],
)
def test_bookkeeping_never_stops_a_job(environment, url, told):
    options = ["--task", "backup", "--job-id", "j" * 200, "--url", url]
    command = ["sh", "-c", "echo done; exit 5"]
    done = command_line.run("run", *options, "--", *command, env=environment)
    assert (done.returncode, done.stdout) == (5, "done\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("jobhistory: not recorded: backup, exit status 5 after ")
    assert told in line
    assert len(line) < 200
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("--retention", "1 fortnight", "is not a duration; write it like '30 days' or '12h'"),
        ("--retention", "99999999 weeks", "write it like '30 days' or '12h'"),
        ("--url", "nonsense", "is not a database URL; write it like 'sqlite:///history.db'"),
        ("--url", "sqlite://", "name a file, as in 'sqlite:///history.db'"),
        ("--task", "", "write it like 'send_email'"),
        ("--job-id", "", "write it like 'order-42'"),
        ("--job-id", "j" * 256, "is longer than 255 characters; use a short one like 'order-42'"),
        ("--job-id", b"\xff", "is not readable text; write it like 'order-42'"),
        ("--correlation-id", b"\xff", "is not readable text; write it like 'order-42'"),
    ],
)
def test_an_option_that_can_never_be_recorded_stops_the_command(
    environment, tmp_path, option, value, remedy
):
    command = ["touch", tmp_path / "ran"]
    done = command_line.run("run", option, value, "--", *command, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"jobhistory: {option} ")
    assert remedy in line
    assert not (tmp_path / "ran").exists()


def test_a_missing_table_in_a_database_of_an_app_is_named_and_never_made(
    environment, bare_database
):
    with bare_database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE app (id INTEGER)"))
    url = bare_database.url.render_as_string(hide_password=False)
    done = command_line.run("run", "--url", url, "--", "echo", "done", env=environment)

    assert (done.returncode, done.stdout) == (0, "done\n")
    (line,) = done.stderr.splitlines()
    assert "create it with 'jobhistory db upgrade'" in line


def test_a_new_sqlite_file_gets_its_table(environment, tmp_path):
    url = f"sqlite:///{tmp_path}/new.db"
    done = command_line.run("run", "--url", url, "--", "true", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    with create_store(url) as store:
        assert store.count().value == 1
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600


def test_a_start_that_could_not_be_recorded_is_recorded_at_the_end(
    environment, tmp_path, migrated_sqlite
):
    """The database comes back while the command runs: its history is whole, times included."""
    folder = tmp_path / "mounted-late"
    url = f"sqlite:///{folder}/history.db"
    script = f"mkdir {folder}; cp {migrated_sqlite} {folder}/history.db; exit 6"
    done = command_line.run("run", "--url", url, "--", "sh", "-c", script, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (6, "", "")
    with create_store(url) as store:
        (record,) = store.query()
    assert record.error_message.startswith("exit status 6")
    took = (record.completed_at - record.started_at).total_seconds() * 1000
    assert took >= record.execution_time_ms


def test_the_first_runs_of_a_new_user_may_come_all_at_once(environment):
    processes = [
        command_line.start(
            *["run", "--", "true"], env=environment, stderr=subprocess.PIPE, text=True
        )
        for _ in range(6)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr) == (0, "")
    listed = command_line.run("list", env=environment)
    assert listed.stdout.count("completed") == 6


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_secret_is_not_recorded_if_a_long_last_line_is_cut_inside_it(run, only_record):
    line = "x" * 965 + " postgresql://user:hunter2secret@host/db"
    done = run("--", "sh", "-c", 'echo "$1" >&2; exit 3', "sh", line)

    assert done.stderr == f"{line}\n"
    record = only_record()
    assert record.error_message.startswith("exit status 3: xxx")
    assert len(record.error_message) <= len("exit status 3: ") + 1000
    assert "hunter2" not in record.error_message + record.error_stack


def test_no_secret_of_a_command_or_of_what_it_says_is_recorded(run, database):
    says = "login failed: password=hunter2 https://hunter2@host/x"
    url = "postgresql://app:hunter2@host/db"
    done = run("--", "sh", "-c", f"echo '{says}' >&2; exit 3", "sh", url, "--token", "hunter2")
    (record,) = create_store(database.engine).query()

    assert done.stderr == f"{says}\n", "what passes through is as it was"
    assert "hunter2" not in json.dumps(record.payload) + record.error_message + record.error_stack
    assert record.payload["command"][-3:] == [
        "postgresql://app:[redacted]@host/db",
        "--token",
        "[redacted]",
    ]
    assert record.error_message == (
        "exit status 3: login failed: password=[redacted] https://[redacted]@host/x"
    )
