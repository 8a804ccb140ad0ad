"""`.ci/run` repeats what failed beside other tests only if all tests have run."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "run"
FUNCTIONS = 'source <(sed "$ d" "$0"); trap - EXIT; '  # all but the last line, which calls main

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="no checkout, but a source package")


@pytest.fixture
def bash(tmp_path):
    """Runs lines after the functions of the script, with a pytest that exits as it is told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    fake = folder / "pytest"
    fake.write_text(f'#!/bin/sh\necho "pytest $*"\nread -r status <{tmp_path}/statuses\n'
                    f"sed -i 1d {tmp_path}/statuses\nexit $status\n")  # fmt: skip
    fake.chmod(0o700)

    def bash(lines, *statuses):
        (tmp_path / "statuses").write_text("".join(f"{each}\n" for each in statuses))
        return subprocess.run(
            ["bash", "-c", FUNCTIONS + f"environment={tmp_path} work={tmp_path}; {lines}", SCRIPT],
            capture_output=True,
            text=True,
            timeout=60,
        )

    return bash


@pytest.mark.parametrize("call", ["run_busy_tests name", "start_beside name; wait_beside name"])
@pytest.mark.parametrize(
    ("statuses", "expected", "runs"),
    [
        ([0], 0, 1),
        ([1, 0], 0, 2),
        ([1, 1], 1, 2),
        ([1, 5], 5, 2),  # what failed is not known
        ([2, 0], 2, 1),  # interrupted
        ([3, 0], 3, 1),
        ([4, 0], 4, 1),
        ([137, 0], 137, 1),  # killed
    ],
)
def test_what_failed_is_repeated_if_all_tests_have_run(bash, call, statuses, expected, runs):
    ran = bash(f"{call}; echo passed", *statuses)
    assert (ran.returncode, ran.stdout.count("pytest ")) == (expected, runs), ran
    assert ("passed" in ran.stdout) is (expected == 0)
    assert ran.stdout.count("--last-failed ") == runs - 1


def test_crashed_workers_do_not_end_a_run_early(bash):
    assert "--max-worker-restart 1000" in bash("run_tests name", 0).stdout


def test_after_ctrl_c_the_last_line_names_the_step(tmp_path):
    lines = (
        FUNCTIONS
        + f"cd {tmp_path}; git init -q .; enter_a_clean_checkout 2>/dev/null; "
        + 'slow() { echo "in $work"; kill -INT $$; sleep 5; }; step slow "a slow step"'
    )
    ran = subprocess.run(
        ["bash", "-c", lines, SCRIPT],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert ran.returncode == 130, ran
    assert ran.stdout.splitlines()[-1] == "failed: a slow step"
    assert not list(tmp_path.glob("tmp.*"))


def test_the_callers_own_history_is_not_touched():
    line = next(each for each in SCRIPT.read_text().splitlines() if "unset JOB" in each)
    names = "JOBHISTORY_URL JOBHISTORY_SCHEMA JOBHISTORY_RETENTION_RULES XDG_DATA_HOME"
    shown = subprocess.run(
        ["bash", "-c", f"{line}\nenv"],
        env=os.environ | dict.fromkeys(names.split(), "/x"),
        capture_output=True,
        text=True,
    ).stdout
    assert "=/x" not in shown
