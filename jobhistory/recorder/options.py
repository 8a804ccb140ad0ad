"""The options of a `Recorder`, validated."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self
from urllib.parse import unquote

from sqlalchemy.orm import Session

from jobhistory.database import binds
from jobhistory.errors import InvalidInput, check_count

MIB = 1024 * 1024


@dataclass(frozen=True)
class RecorderOptions:
    """The options of a `Recorder`.

    Attributes:
        spool: the absolute path of the spool, because the current folder may change.
        avoid: files that the spool must not be.
    """

    batch_size: int
    batch_bytes: int
    max_delay: float
    queue_size: int
    queue_bytes: int
    when_full: Literal["block", "raise"]
    spool: Path | None
    avoid: Collection[Path]

    @classmethod
    def checked(
        cls,
        session_factory: Callable[[], Session] | None,
        *,
        batch_size: int,
        batch_bytes: int,
        max_delay: float,
        queue_size: int,
        queue_bytes: int,
        when_full: Literal["block", "raise"],
        spool: str | os.PathLike[str] | None,
    ) -> Self:
        """Return the options, for a store with these sessions.

        Raises:
            InvalidInput: if one of them is invalid.
        """
        check_count(batch_size, "batch_size", example=500)
        check_count(batch_bytes, "batch_bytes", example=8 * MIB)
        check_count(queue_size, "queue_size", example=10_000)
        check_count(queue_bytes, "queue_bytes", example=64 * MIB)
        if isinstance(max_delay, bool) or not isinstance(max_delay, (int, float)) or max_delay < 0:
            raise InvalidInput(
                "max_delay", max_delay, "is not a duration in seconds; write it like 0.2"
            )
        if when_full not in ("block", "raise"):
            raise InvalidInput("when_full", when_full, "is neither 'block' nor 'raise'")
        path = None if spool is None else Path(os.path.abspath(spool))
        avoid = () if path is None else _database_files(session_factory)
        if path is not None and Path(os.path.realpath(path)) in map(_real, avoid):
            raise InvalidInput("spool", str(spool), "is the store's own database; name a new file")
        return cls(
            batch_size,
            batch_bytes,
            max_delay,
            queue_size,
            queue_bytes,
            when_full,
            path,
            avoid,
        )


def _database_files(session_factory: Callable[[], Session] | None) -> Collection[Path]:
    """Return the files of an SQLite database; none for other databases."""
    if session_factory is None:
        return ()
    with session_factory() as session:
        engine = session.get_bind(**binds.WRITING).engine
    if engine.dialect.name != "sqlite":
        return ()
    (name, *_), _ = engine.dialect.create_connect_args(engine.url)
    if name.startswith("file:"):
        name = unquote(name.removeprefix("file:").partition("?")[0])
        name = name.removeprefix("//localhost").removeprefix("//")
    if name in ("", ":memory:"):
        return ()
    file = os.path.abspath(name)
    return [Path(f"{file}{suffix}") for suffix in ("", "-journal", "-wal", "-shm")]


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
