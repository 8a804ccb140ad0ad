"""What the file of a run tells of its processes."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from jobhistory import Job, create_store
from jobhistory.cli import run_file
from jobhistory.cli.killed_runs import end_killed_runs
from jobhistory.cli.run_file import RunFile, forget, is_running
from jobhistory.schema import record_from

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

HOST = os.uname().nodename


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path / "jobhistory" / "running"


@pytest.fixture
def command():
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def execution(worker=f"{HOST}:17"):
    return record_from({"id": uuid4(), "worker_id": worker})


def killed_run(record, pid=None, task="backup"):
    """Leave what a run leaves that is killed while the process with an id runs its command."""
    child = os.fork()
    if child == 0:
        try:
            file = RunFile(record.id, task)
            file.begin()
            if pid is not None:
                file.name_command(pid)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_a_run_runs_until_its_file_is_removed(folder):
    record = execution()
    file = RunFile(record.id)
    assert is_running(record) is True
    file.name_command(os.getpid())
    assert is_running(record) is True
    assert [oct(each.stat().st_mode)[-3:] for each in (folder, *folder.iterdir())] == ["700", "600"]
    file.remove()
    assert is_running(record) is None
    assert list(folder.iterdir()) == []


def test_a_killed_run_lives_on_in_its_command(command):
    record = execution()
    killed_run(record, command.pid)
    assert is_running(record) is True
    command.kill()
    os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOWAIT)  # a zombie
    assert is_running(record) is False
    command.wait()
    assert is_running(record) is False
    forget(record.id)
    assert is_running(record) is None


def test_another_process_with_the_id_of_the_command_does_not_pass_for_it(folder):
    record = execution()
    killed_run(record, os.getpid())
    (file,) = folder.iterdir()
    task, pid, start, *rest = file.read_text().split()
    assert is_running(record) is True
    file.write_text(" ".join([task, pid, str(int(start) - 1), *rest]))
    assert is_running(record) is False


def test_no_process_outlives_the_machine(folder):
    record = execution()
    killed_run(record, os.getpid())
    (file,) = folder.iterdir()
    file.write_text(
        file.read_text().replace(
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "earlier"
        )
    )
    assert is_running(record) is False


def test_of_another_container_nothing_is_known(folder):
    record = execution()
    killed_run(record, os.getpid())
    (file,) = folder.iterdir()
    *rest, _ = file.read_text().split()
    file.write_text(" ".join([*rest, "pid:[1]"]))
    assert is_running(record) is None


@pytest.mark.parametrize("worker", ["elsewhere:17", "celery@host", f"{HOST}", f"{HOST}x:17"])
def test_of_another_machine_nothing_is_known(worker):
    record = execution(worker)
    file = RunFile(record.id)
    assert is_running(record) is None
    file.remove()


def test_a_run_that_was_killed_before_it_named_its_command_may_have_one():
    record = execution()
    killed_run(record)
    assert is_running(record) is None


def test_without_proc_the_id_stands_for_the_process(monkeypatch, command):
    monkeypatch.setattr(run_file, "Path", lambda path: Path(str(path).replace("/proc", "/no")))
    record = execution()
    killed_run(record, command.pid)
    assert is_running(record) is True
    command.kill()
    command.wait()
    assert is_running(record) is False


def test_a_process_that_hides_behind_another_user_still_runs(monkeypatch, command):
    record, machine = execution(), run_file._machine()
    killed_run(record, command.pid)

    def refuse(pid, signal):
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", refuse)
        patch.setattr(run_file, "Path", lambda path: Path(path.replace("/proc/", "/proc/hidden")))
        patch.setattr(run_file, "_machine", lambda: machine)
        assert is_running(record) is True


def test_a_symbolic_link_is_no_file_of_a_run(folder, tmp_path):
    record = execution()
    folder.mkdir(parents=True)
    (tmp_path / "target").touch()
    (folder / str(record.id)).symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic link"):
        RunFile(record.id)
    assert is_running(record) is None


def test_on_one_machine_one_run_of_a_task_begins(command):
    first, second, other = execution(), execution(), execution()
    files = [RunFile(each.id, "url", "backup") for each in (first, second)]
    other_file = RunFile(other.id, "url", "mail")
    assert files[0].begin_alone() is None
    assert files[1].begin_alone() == str(first.id)
    assert other_file.begin_alone() is None
    files[0].remove()
    assert files[1].begin_alone() is None
    for file in (files[1], other_file):
        file.remove()


def test_a_command_that_outlives_its_run_keeps_others_from_beginning(command):
    killed = execution()
    killed_run(killed, command.pid)
    file = RunFile(uuid4(), "backup")
    assert file.begin_alone() == str(killed.id)
    command.kill()
    command.wait()
    assert file.begin_alone() is None
    file.remove()


def test_killed_runs_of_this_machine_are_ended_at_once(plain_store, folder, command):
    """Those of other databases keep their files, for those who look there."""
    running, killed, elsewhere = (
        plain_store.record_start(Job(number, "backup"), f"{HOST}:1", "c") for number in range(3)
    )
    plain_store.purge(job_id="2")
    killed_run(running, command.pid)
    for each in (killed, elsewhere):
        killed_run(each, 2**22 + 1)  # no process has such an id

    assert end_killed_runs(plain_store, task_identifier="mail") == 0
    assert end_killed_runs(plain_store, worker_id=f"{HOST}:1") == 1
    (ended,) = plain_store.query(status="failed")
    assert (ended.id, ended.error_type) == (killed.id, "jobhistory.WorkerLost")
    assert {path.name for path in folder.iterdir()} == {str(running.id), str(elsewhere.id)}
    assert end_killed_runs(plain_store) == 0


def test_without_runs_nothing_was_killed():
    assert end_killed_runs(create_store()) == 0
