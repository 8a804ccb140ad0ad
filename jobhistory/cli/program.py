"""The commands other than `run`, and their errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from sqlalchemy.exc import SQLAlchemyError

from jobhistory.cli.lines import one_line
from jobhistory.errors import InvalidInput, JobHistoryError, reason


def run_program(arguments: Sequence[str]) -> None:
    """Run a command and exit.

    Raises:
        InvalidInput: if an option is invalid. It names the option.
    """
    try:
        from jobhistory.cli.app import program
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.exit("jobhistory: the command line requires pip install 'jobhistory[cli]'")
    from jobhistory.cli.options import as_typed
    from jobhistory.cli.output import log_to_stderr

    if isinstance(sys.stdout, TextIOWrapper):  # names may not fit the encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    log_to_stderr()
    try:
        program(arguments, prog_name="jobhistory")
    except InvalidInput as error:
        raise as_typed(error, arguments) from error
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - or Python would flush into the pipe
        sys.exit(1)
    except (JobHistoryError, SQLAlchemyError, ModuleNotFoundError, OSError) as error:
        notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
        print(f"jobhistory: {one_line(reason(error) + notes)}", file=sys.stderr)
        sys.exit(1)
