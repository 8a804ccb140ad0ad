"""Debian's cron runs jobs, of which some go wrong, and `jobhistory check` tells of each of them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobhistory import create_store, migrate
from jobhistory.database.engines import engine_from_url
from tests.command_line import SCRIPT, run

PATH = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
LONGEST = 300
BETWEEN_CHECKS = 10

# In namespaces of its own, cron sees no other crontabs, nobody else sees its pid file, and what it
# starts ends with it.
NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
DAEMON = """
set -e
mount -t tmpfs none /run
mount -t tmpfs none /var/spool
mkdir -p /var/spool/cron/crontabs
[ ! -e /etc/crontab ] || mount --bind /dev/null /etc/crontab
[ ! -e /etc/pam.d/cron ] || mount --bind "$1" /etc/pam.d/cron
mount --bind "$0" /etc/cron.d
exec cron -f
"""

# Containers lack what Debian's own policy needs, such as the right to set a login uid.
POLICY = "".join(f"{each} required pam_permit.so\n" for each in ("auth", "account", "session"))

JOBS = {
    "steady": "true",
    "missed": "true",
    "overlaps": "sleep 75",
    # Runs too long once, and then not.
    "hangs": "sh -c 'test -e hung || { touch hung; exec sleep 70; }'",
    # Fails twice.
    "fails": "sh -c 'echo >> failed; test $(wc -l < failed) -gt 2'",
}
EXPECTED = {
    "steady": {"grace": "30s", "max_runtime": "30s", "max_running": 1},
    "missed": {"grace": "15s"},
    "overlaps": {"grace": "30s", "max_running": 1},
    "hangs": {"grace": "30s", "max_runtime": "30s"},
    "fails": {"grace": "30s", "failures_in_a_row": 2},
}
PROBLEMS = {
    ("missed", "missed"),
    ("overlaps", "overlapping"),
    ("hangs", "too_long"),
    ("fails", "failing"),
}


def _has_cron():
    if shutil.which("cron", path=PATH) is None:
        return "Debian's cron is not installed"
    if os.geteuid() != 0:
        return "only root can start cron"
    if not Path("/etc/cron.d").is_dir() or shutil.which("unshare") is None:
        return "there is no /etc/cron.d, or no unshare"
    tried = subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "this machine allows no namespaces"


@dataclass
class Crontab:
    """A crontab of jobs that run each minute, in a folder that cron reads."""

    folder: Path
    url: str

    def write(self, tasks):
        lines = ["SHELL=/bin/sh", f"PATH={PATH}", 'MAILTO=""', f"JOBHISTORY_URL={self.url}"]
        lines += [f"TZ={os.environ['TZ']}"] if "TZ" in os.environ else []
        for task in tasks:
            command = f"cd {self.folder.parent} && {SCRIPT} run --task {task} -- {JOBS[task]}"
            lines.append(f"* * * * * root {command} >>{self.folder.parent}/output 2>&1")
        new = self.folder.parent / "new"
        new.write_text("\n".join([*lines, ""]))
        new.chmod(0o600)
        new.replace(self.folder / "jobs")


@pytest.fixture
def history(tmp_path):
    url = f"sqlite:///{tmp_path}/history.db"
    engine = engine_from_url(url)
    migrate.upgrade(engine)
    engine.dispose()
    return url


@pytest.fixture
def crontab(tmp_path, history):
    folder = tmp_path / "cron.d"
    folder.mkdir()
    return Crontab(folder, history)


@pytest.fixture
def cron(crontab):
    """Debian's cron, with this crontab only."""
    if reason := _has_cron():
        pytest.skip(reason)
    crontab.write(JOBS)
    policy = crontab.folder.parent / "policy"
    policy.write_text(POLICY)
    command = [*NAMESPACES, "sh", "-c", DAEMON, str(crontab.folder), str(policy)]
    daemon = subprocess.Popen(command, env=os.environ | {"PATH": PATH})
    yield daemon
    daemon.kill()
    daemon.wait()


@pytest.mark.slow
@pytest.mark.timeout(LONGEST + 60)
def test_each_problem_is_reported_once_and_so_is_its_end(cron, crontab, history, tmp_path):
    for task, fields in EXPECTED.items():
        options = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
        jobhistory(history, "expect", "add", task, "--cron", "* * * * *", *options)
    found = Found(history, tmp_path)
    until = time.monotonic() + LONGEST
    while not found.is_complete and time.monotonic() < until:
        assert cron.poll() is None, "cron has ended"
        time.sleep(BETWEEN_CHECKS)
        found.check()
        # After the check has reported it, the missed job runs again, and the overlapping one stops.
        runs_now = {"steady", "hangs", "fails"}
        if not found.has_run("missed") or found.was_reported("missed", "missed"):
            runs_now.add("missed")
        if not found.was_reported("overlaps", "overlapping"):
            runs_now.add("overlaps")
        crontab.write([task for task in JOBS if task in runs_now])
    assert found.is_complete, found.report()
    assert [key for key, _ in found.incidents() if key not in PROBLEMS] == [], found.report()
    alerts = found.alerts()
    assert len(alerts) == len({*alerts}), found.report()
    # What began and ended between two checks gives one alert that says both.
    assert {key for key, news in alerts if news == "closed"} == PROBLEMS, found.report()
    assert {key for key, news in alerts if news == "opened"} >= PROBLEMS - {
        ("overlaps", "overlapping")
    }, found.report()


class Found:
    """What checks have found so far."""

    def __init__(self, url, folder):
        self.url, self.folder = url, folder
        self.log = []
        self.receiver, self.received = folder / "receive", folder / "received"
        self.receiver.write_text(f"#!/bin/sh\n(cat; echo) >> {self.received}\n")
        self.receiver.chmod(0o700)

    def check(self):
        target = f"command:{self.receiver}"
        result = jobhistory(self.url, "check", "--json", "--alert", target, ok=(0, 1, 2))
        at = f"{datetime.now(UTC):%H:%M:%S}"
        for line in result.stdout.splitlines():
            verdict = json.loads(line)
            self.log.append(f"{at} {verdict['expectation']}: {verdict['summary']}")

    def incidents(self):
        with create_store(self.url) as store:
            return [
                ((each.expectation, each.problem.value), each.is_open)
                for each in store.incidents(limit=None)
            ]

    def alerts(self):
        text = self.received.read_text() if self.received.exists() else ""
        return [
            (
                (each["incident"]["expectation"], each["incident"]["problem"]),
                each["news"],
            )
            for each in map(json.loads, text.splitlines())
        ]

    @property
    def is_complete(self):
        found = dict(self.incidents())
        return found.keys() >= PROBLEMS and not any(found.values())

    def was_reported(self, *key):
        return key in dict(self.incidents())

    def has_run(self, task):
        with create_store(self.url) as store:
            return store.count({"task_identifier": task}).value > 0

    def report(self):
        """Return what was found and what ran, to tell why it is not what was expected."""
        with create_store(self.url) as store:
            since = datetime.now(UTC) - timedelta(hours=1)
            records = store.query({"from_": since, "limit": 100})
            runs = [
                f"{each.started_at:%H:%M:%S} {each.task_identifier} {each.status.value}"
                for each in records
            ]
        output = self.folder / "output"
        said = output.read_text() if output.exists() else "cron has started nothing"
        found = [*map(str, self.incidents()), *map(str, self.alerts())]
        return "\n".join(["", *found, *self.log, *runs, said])


def jobhistory(url, *arguments, ok=(0,)):
    environment = {"JOBHISTORY_URL": url, "PATH": PATH}
    environment |= {"TZ": os.environ["TZ"]} if "TZ" in os.environ else {}
    result = run(*arguments, env=environment)
    assert result.returncode in ok, (arguments, result.stdout, result.stderr)
    return result
