"""The output of a command under `jobhistory run`: its order, its readers, and what is held back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests import command_line

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

CHATTY = "for n in 1 2 3 4 5; do echo out$n; echo err$n >&2; done"
IN_ORDER = "".join(f"out{n}\nerr{n}\n" for n in range(1, 6))


@pytest.fixture
def joint(environment, url):
    """Runs a command whose standard output and standard error are one pipe."""

    def joint(*arguments):
        with command_line.start(
            *["run", "--url", url, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            out, _ = process.communicate(timeout=60)
        return process.returncode, out

    return joint


def test_output_that_goes_to_one_place_keeps_its_order(joint, only_record):
    assert joint("--capture", "--", "sh", "-c", CHATTY) == (0, IN_ORDER.encode())
    assert only_record().log_tail == IN_ORDER


def test_output_to_one_file_keeps_its_order(environment, url, tmp_path):
    with open(tmp_path / "log", "ab") as log:
        arguments = ["run", "--url", url, "--", "sh", "-c", CHATTY]
        process = command_line.start(*arguments, env=environment, stdout=log, stderr=log)
        assert process.wait(60) == 0
    assert (tmp_path / "log").read_text() == IN_ORDER


def test_a_failure_quotes_the_last_line_of_joint_output(joint, only_record):
    assert joint("--", "sh", "-c", "echo problem; exit 3") == (3, b"problem\n")
    assert only_record().error_message == "exit status 3: problem"
    assert "The end of its output:\nproblem" in only_record().error_stack


def test_bytes_and_unfinished_lines_pass_unchanged(joint):
    script = r"printf '\000\377\r\n\033[1mx'"
    assert joint("--", "sh", "-c", script) == (0, b"\0\xff\r\n\x1b[1mx")


def test_a_reader_that_leaves_ends_the_command_as_it_would_alone(environment, url, only_record):
    command = f"{command_line.SCRIPT} run --url {url} -- yes 2>&1 | head -n 1"
    done = subprocess.run(
        ["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("y\n", "")
    assert only_record().error_message.startswith("killed by SIGPIPE")


@pytest.mark.parametrize(
    ("closed", "open_ones"), [("<&-", "1"), (">&-", "0"), ("<&- >&- 2>&-", "")]
)
def test_files_that_the_caller_closed_are_closed_for_the_command(
    environment, url, only_record, tmp_path, closed, open_ones
):
    tells = 'for n in 0 1; do [ -e /proc/$$/fd/$n ] && printf $n >> "$0"; done; touch "$0"'
    subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", command_line.SCRIPT, "run", "--url", url]
        + ["--", "sh", "-c", tells, tmp_path / "seen"],
        env=environment,
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert (tmp_path / "seen").read_text() == open_ones
    assert only_record().status == "completed"


def test_quiet_prints_nothing_of_a_success(joint):
    assert joint("--quiet", "--", "sh", "-c", CHATTY) == (0, b"")


@pytest.mark.parametrize("lines", [5, 300_000])
def test_quiet_prints_all_of_a_failure_in_order(joint, lines):
    script = f"for n in range({lines}): print(n, flush=n < 9, file=[sys.stdout, sys.stderr][n % 2])"
    ended = joint("--quiet", "--", sys.executable, "-uc", f"import sys\n{script}\nsys.exit(2)")
    assert ended == (2, "".join(f"{n}\n" for n in range(lines)).encode())


def test_quiet_prints_to_where_the_output_would_have_gone(run):
    done = run("--quiet", "--", "sh", "-c", "echo out; echo err >&2; exit 1")
    assert (done.returncode, done.stdout, done.stderr) == (1, "out\n", "err\n")


def test_quiet_prints_the_failed_attempts_only_if_the_last_one_fails(joint, tmp_path):
    script = "echo try; echo x >> $0; test $(wc -l < $0) -gt $1"
    options = ["--quiet", "--retry", "1", "--retry-delay", "0", "--", "sh", "-c", script]
    assert joint(*options, tmp_path / "a", "1") == (0, b"")
    assert joint(*options, tmp_path / "b", "9") == (1, b"try\ntry\n")


def test_nothing_waits_for_a_background_process(joint):
    status, out = joint("--", "sh", "-c", "sleep 60 & echo $!; exit 3")
    os.kill(int(out), 9)
    assert status == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process was given")
def test_the_command_has_the_environment_of_its_caller(url, only_record):
    """Python adds LC_CTYPE to its own in a locale such as that of cron."""
    done = subprocess.run(
        [command_line.SCRIPT, "run", "--url", url, "--", "/usr/bin/env"],
        env={"PATH": "/usr/bin:/bin", "LANG": "C"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    given = f"PATH=/usr/bin:/bin\nLANG=C\nJOBHISTORY_EXECUTION_ID={only_record().id}\n"
    assert (done.stdout, done.stderr) == (given, "")
