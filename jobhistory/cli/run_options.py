"""What `jobhistory run` would record, from its options as a crontab has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobhistory.cli.wrapper.parsing import split_options
from jobhistory.expectations.importing.commands import ExpectedRun


def read_run(words: Sequence[str]) -> ExpectedRun:
    """Return what `jobhistory run` with these words would record.

    Values that do not matter here are not checked: they may be variables of the shell.

    Raises:
        InvalidInput: if an option is unknown, or there is no command.
    """
    texts, command = split_options([*words])
    labels = (text.partition("=") for text in texts.get("--label", []))
    return ExpectedRun(
        task=texts.get("--task", [Path(command[0]).name])[-1],
        labels={name: value for name, _, value in labels},
        declares="--expect" in texts,
    )
