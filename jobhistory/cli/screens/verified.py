"""The result of `jobhistory archive verify`: one line for each problem, and a summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobhistory.cli.output import one_line
from jobhistory.cli.screens.cells import counted

if TYPE_CHECKING:
    from jobhistory.archive.verified import VerifiedArchive


def print_verified(verified: VerifiedArchive) -> None:
    """Print the problems, the files that are not published yet, and a summary."""
    for problem in verified.problems:
        print(one_line(str(problem)))
    for file in verified.pending:
        print(one_line(f"{file}: waits for 'expire --archive', which publishes or deletes it"))
    size = f"{verified.bytes / 1024**2:,.1f} MiB"
    holds = f"{counted(verified.files, 'file')} with {counted(verified.rows, 'execution')}, {size}"
    print(f"{holds}: {counted(len(verified.problems), 'problem') if verified.problems else 'ok'}")
