"""Files for the textfile collector of node_exporter."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import mkstemp
from typing import Annotated

import typer

from jobhistory.errors import InvalidInput

Textfile = Annotated[
    str | None,
    typer.Option(
        help="Write to this file, for node_exporter's textfile collector.",
        metavar="PATH",
        show_default=False,
    ),
]


def check_textfile(textfile: str | None) -> None:
    """Refuse the name of a file that node_exporter does not read."""
    if textfile is not None and not textfile.endswith(".prom"):
        raise InvalidInput(
            "--textfile",
            textfile,
            "is not a file that node_exporter reads; "
            "write it like '/var/lib/node_exporter/jobhistory.prom'",
        )


def write_whole(path: Path, text: str) -> None:
    """Write a file that everybody may read, so that no reader ever sees a part of it.

    Raises:
        OSError: if that fails. The message names the option and the file.
    """
    try:
        _replace(path, text)
    except OSError as error:  # which names the temporary file
        remedy = "name a file in a folder that exists and that you may write to"
        message = f"--textfile {str(path)!r} cannot be written: {error.strerror}; {remedy}"
        raise OSError(message) from error


def _replace(path: Path, text: str) -> None:
    # The collector reads only *.prom.
    descriptor, name = mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with open(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
