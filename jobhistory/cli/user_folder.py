"""The folder of the user's own files."""

from __future__ import annotations

from pathlib import Path


def user_folder() -> Path:
    """Return the folder of the user's own history and of what belongs to it. It may not exist.

    Raises:
        ModuleNotFoundError: if the extra `cli` is not installed.
    """
    try:
        from platformdirs import user_data_path  # not needed with the URL of a database
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the user's history file requires pip install 'jobhistory[cli]'; or pass --url",
            name=error.name,
        ) from None
    return user_data_path("jobhistory", appauthor=False)
