"""Retention rules from a TOML file."""

from __future__ import annotations

import os

from jobhistory._runtime.toml_tables import load_tables
from jobhistory.execution.retention import RetentionRule

_EXAMPLE = "write tables such as [[retention]] with status = 'failed' and keep = '365 days'"


def load_retention_rules(path: str | os.PathLike[str]) -> list[RetentionRule]:
    """Return the rules of a TOML file, in order: one for each of its tables `[[retention]]`.

    The keys of a table are the arguments of `RetentionRule`.

    Raises:
        InvalidInput: if the file is not TOML, or has an unknown key or a value that cannot be used.
            The message names the file, the number of the table, the key and the value.
        OSError: if the file cannot be read.
    """
    return load_tables(path, "retention", _EXAMPLE, RetentionRule.of)
