"""Show long output through a pager, as git does."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from shutil import which

from rich.console import Console

_COULD_NOT_START = (126, 127)


@contextmanager
def paged(console: Console, *, use_pager: bool = True) -> Iterator[None]:
    """Print what a block prints on a console when it has ended: through a pager if it is long.

    Output is long if it does not fit on the terminal. The pager is that of `JOBHISTORY_PAGER`,
    `PAGER`, or `less` if there is one. In a pipe, and if it is empty or `cat`, nothing changes.
    """
    command = _command()
    if not use_pager or not console.is_terminal or command in ("", "cat"):
        yield
        return
    with console.capture() as capture:
        yield
    text = capture.get()
    is_long = text.count("\n") >= console.height and console.file.isatty()
    if not is_long or not _page(text.encode(console.encoding, "backslashreplace"), command):
        console.file.write(text)
        console.file.flush()


def _command() -> str:
    found = (os.environ.get(name) for name in ("JOBHISTORY_PAGER", "PAGER"))
    default = "less" if which("less") else "cat"  # small containers have none, nor has Windows
    return next((each.strip() for each in found if each is not None), default)


def _page(text: bytes, command: str) -> bool:
    """Show a text through a pager; return whether that could be started."""
    # It may be a command with arguments, and the user's own.
    pager = subprocess.Popen(  # noqa: S602
        command,
        shell=True,
        stdin=subprocess.PIPE,
        env={"LESS": "FRX", "LV": "-c"} | os.environ,
    )
    # Ctrl-C is for the pager, which may stop a search and go on.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with suppress(BrokenPipeError):  # quit before the end
            pager.communicate(text)
        return pager.wait() not in _COULD_NOT_START
    finally:
        signal.signal(signal.SIGINT, before)
