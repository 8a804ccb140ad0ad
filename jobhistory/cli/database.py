"""The database that a command uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from platformdirs import user_data_path
from sqlalchemy import URL, Engine

from jobhistory import migrate
from jobhistory._runtime.private_files import create_private_file, create_private_folder
from jobhistory.database.engines import engine_from_url
from jobhistory.store import HistoryStore, create_store


@contextmanager
def open_engine(url: str | None) -> Iterator[Engine]:
    """Open an engine for a URL, or for the user's own history file, and upgrade that file."""
    engine = engine_from_url(_default_url() if url is None else url)
    try:
        if url is None and (migrate.current(engine) or "") < migrate.HEAD:
            migrate.upgrade(engine)
        yield engine
    finally:
        engine.dispose()


@contextmanager
def open_store(url: str | None, schema: str | None, **options: Any) -> Iterator[HistoryStore]:
    """Open a store on the database of a URL, or on the user's own history file."""
    with open_engine(url) as engine:
        yield create_store(engine, schema=schema, **options)


def _default_url() -> URL:
    """Return the URL of the user's own history file, which nobody else can read."""
    folder = user_data_path("jobhistory", appauthor=False)
    create_private_folder(folder)
    _make_private(folder, 0o700)
    path = folder / "history.db"
    create_private_file(path)
    _make_private(path, 0o600)
    return URL.create("sqlite", database=str(path))


def _make_private(path: Path, mode: int) -> None:
    """Restrict a file or folder that existed before to its owner."""
    if path.is_symlink():
        raise OSError(f"{path} is a symbolic link; give the file that it points to with --url")
    if os.name == "posix" and path.stat().st_mode & 0o777 != mode:
        path.chmod(mode)
