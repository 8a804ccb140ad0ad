"""Files that tell whether the processes of a run on this machine still exist.

Each run locks a file of its own, and the kernel unlocks it when the process ends, however that
happens. The file names the process of the command, which may outlive a run that was killed.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from jobhistory._runtime.private_files import create_private_file, create_private_folder
from jobhistory.cli.user_folder import user_folder

if TYPE_CHECKING:
    from jobhistory.schema import HistoryRecord

_LENGTH = 1000
_UNKNOWN = "-"
_TURN = "turn"


class RunFile:
    """The file of a run of this process, which it keeps locked until it ends.

    Args:
        id_: the id of the execution.
        task: what other runs of its task have in common with it, among them the database.

    Raises:
        OSError: if the file cannot be created.
        ModuleNotFoundError: if the extra `cli` is not installed.
    """

    def __init__(self, id_: UUID, *task: str | None) -> None:
        self._path = _path_of(id_)
        self._task = blake2b(repr(task).encode(), digest_size=16).hexdigest()
        create_private_folder(self._path.parent)
        create_private_file(self._path)
        # Not inherited by the command. It would have to keep it open, which not every one does.
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def begin(self) -> None:
        """Note that this run goes on to start its command."""
        os.pwrite(self._descriptor, self._task.encode(), 0)

    def begin_alone(self) -> str | None:
        """Do so unless another run of the task has; return the id of its execution, if any.

        It only knows of the runs of this machine and of this user.
        """
        folder = self._path.parent
        create_private_file(folder / _TURN)
        with open(folder / _TURN, opener=_open_regular) as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            for path in folder.iterdir():
                if path != self._path and path.name != _TURN and self._task == _task_of(path):
                    return path.name
            self.begin()
        return None

    def name_command(self, pid: int) -> None:
        """Note the process that runs the command."""
        command = f"{self._task} {pid} {_start_of(pid)} {_machine()}"
        os.pwrite(self._descriptor, command.encode(), 0)

    def remove(self) -> None:
        """Remove the file, after the outcome of the run has been recorded."""
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Unlock the file, so that it says that this run has ended."""
        os.close(self._descriptor)


def is_running(record: HistoryRecord) -> bool | None:
    """Return whether a run of this machine still has a process: itself, or its command.

    `None` means that nobody can know here: it ran on another machine, as another user, or in
    another container, or has not named its command, or the extra `cli` is not installed.
    """
    if record.worker_id.rpartition(":")[0] != os.uname().nodename:
        return None
    with suppress(ModuleNotFoundError):
        return _read(_path_of(record.id))[0]
    return None


def killed_here() -> list[UUID]:
    """Return the ids of the runs of this machine and user that were killed, and their commands."""
    with suppress(ModuleNotFoundError, FileNotFoundError):
        return [UUID(path.name) for path in _folder().iterdir() if _read(path)[0] is False]
    return []


def forget(id_: UUID) -> None:
    """Remove the file of a run that has ended, if it is here."""
    with suppress(OSError, ModuleNotFoundError):
        _path_of(id_).unlink()


def _folder() -> Path:
    return user_folder() / "running"


def _path_of(id_: UUID) -> Path:
    return _folder() / str(id_)


def _open_regular(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _task_of(path: Path) -> str | None:
    """Return the task of a run that has begun and still has a process."""
    is_alive, text = _read(path)
    return text.partition(" ")[0] if is_alive else None


def _read(path: Path) -> tuple[bool | None, str]:
    """Return whether the run of a file has a process, `None` if unknown, and what it noted."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None, ""
    text = ""
    try:
        text = os.read(descriptor, _LENGTH).decode()
        # Shared, so that others who look at the same time do not take this for a run.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return _is_alive(text), text
    except BlockingIOError:
        return True, text
    finally:
        os.close(descriptor)


def _is_alive(text: str) -> bool | None:
    """Return whether the command of a run exists whose own process has ended."""
    try:
        _, pid, start, boot, namespace = text.split()
    except ValueError:  # killed before it could name the command
        return None
    here_boot, here_namespace = _machine().split()
    if boot != here_boot:
        return False
    if namespace != here_namespace:
        return None
    return _start_of(int(pid)) in (start, _UNKNOWN)


def _machine() -> str:
    """Return what tells apart process ids of different times and containers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{_UNKNOWN} {_UNKNOWN}"


def _start_of(pid: int) -> str | None:
    """Return when a process started, lest another one with its id pass for it.

    If only its id is known, that stands for the process. `None` means that it has ended.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux, or hidden, because the process changed its user
        return _UNKNOWN if _exists(pid) else None
    # The name of the program, in parentheses, may contain anything.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return True
