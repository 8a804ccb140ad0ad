"""The command line: `jobhistory ...`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from jobhistory.cli.lines import one_line, say
from jobhistory.cli.wrapper.parsing import asks_for_help
from jobhistory.errors import InvalidInput


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit; without arguments, the one on the command line of the process."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words[:1] == ["run"] and not asks_for_help(words[1:]):
            if arguments is None:
                _run_and_exit(words[1:])
            sys.exit(_run(words[1:]))
        from jobhistory.cli.program import run_program

        run_program(words)
    except InvalidInput as error:
        print(f"jobhistory: {one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # during an import; Typer catches others
        sys.exit(130)


def _run_and_exit(arguments: Sequence[str]) -> NoReturn:
    """Run a command in a process that does nothing else, and exit.

    Garbage collection during the imports, and the end of the interpreter, take a third of its time.
    """
    gc.disable()
    status = _run(arguments)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # the caller closed it
            with suppress(OSError):
                stream.flush()
    os._exit(status)


def _run(arguments: Sequence[str]) -> int:
    """Run a command before anything slow is imported, and return the exit status."""
    if os.name != "posix":
        say("run requires a POSIX system, such as Linux, macOS or WSL")
        return 1
    from jobhistory.cli.wrapper.run import run  # which other systems cannot import

    return run(arguments)
