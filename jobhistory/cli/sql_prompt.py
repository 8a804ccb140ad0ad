"""A prompt for SQL: DuckDB's own command if it is installed, otherwise a small one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from shutil import which

PROMPT, CONTINUED = "archive> ", "     ... "
COMMAND = "duckdb"


def start_duckdb(statements: Sequence[str]) -> None:
    """Replace this process by DuckDB's command, which first executes these statements.

    It returns if there is no such command.
    """
    command = which(COMMAND)
    if command is not None and os.name == "posix":  # Windows would start another process beside
        sys.stdout.flush()
        words = [word for statement in statements for word in ("-cmd", f"{statement};")]
        os.execv(command, [COMMAND, *words])  # noqa: S606 - the arguments need no shell


def prompt(execute: Callable[[str], object]) -> None:
    """Read statements, which end with a semicolon, and execute them until the end of input.

    Ctrl-C discards what has been typed. Ctrl-D ends the prompt.
    """
    with suppress(ImportError):  # Windows has none
        import readline  # noqa: F401 - input() then has a history and edits lines
    print("SQL on the view job_history; end each statement with ;, and leave with Ctrl-D")
    while True:
        try:
            statement = _statement()
        except KeyboardInterrupt:
            print()
            continue
        except EOFError:
            print()
            return
        if statement:
            execute(statement)


def _statement() -> str:
    """Return the lines up to a semicolon, without it."""
    lines = [input(PROMPT)]
    while lines != [""] and not lines[-1].rstrip().endswith(";"):
        lines.append(input(CONTINUED))
    return "\n".join(lines).strip().rstrip(";")
