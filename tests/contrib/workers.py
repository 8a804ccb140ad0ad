"""Start workers of job frameworks in processes of their own, as users do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class Worker:
    """A worker that runs, and the file with what it prints."""

    process: subprocess.Popen[bytes]
    output: Path

    @property
    def printed(self) -> str:
        return self.output.read_text(errors="replace")

    def end(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)


@contextmanager
def running(
    *command: str, folder: Path, environment: dict[str, str] | None = None
) -> Iterator[Worker]:
    """Run `python -m command` in a folder, in its own process group, and end it afterwards."""
    output = folder / f"worker-{time.monotonic_ns()}.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Worker(process, output)
        finally:
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
            with suppress(ProcessLookupError):  # also children that outlive it
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(condition: Callable[[], T], what: str, *, timeout: float = 30) -> T:
    """Return what `condition` returns as soon as that is true."""
    until = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(0.05)
    return found


def write_app(folder: Path, source: str, **values: Any) -> Path:
    """Write a module for a worker to import, with `values` as constants at its top."""
    path = folder / "jobs_app.py"
    constants = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    path.write_text(f"from __future__ import annotations\n{constants}\n{source}")
    return path
