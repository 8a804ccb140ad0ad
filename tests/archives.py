"""What an archive and the table hold, read independently of the library's protocol."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname
from uuid import UUID

import pyarrow
import pyarrow.parquet as pq
from sqlalchemy import Engine, select

from jobhistory.archive_schema import ARCHIVE
from jobhistory.schema import COLUMNS

# Other tests fork this process, and a child that closes all files would end Arrow's handlers badly.
pyarrow.enable_signal_handlers(False)


def manifest(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(ARCHIVE).order_by(ARCHIVE.c.file)))


def folder_of(location: str) -> Path:
    return Path(url2pathname(urlsplit(location).path))


def ids_in(path: Path) -> list[UUID]:
    return [UUID(bytes=each) for each in pq.read_table(path).column("id").to_pylist()]


def published(folder: Path) -> list[Path]:
    return sorted(folder.glob("day=*/*.parquet"))


def archived(engine: Engine, folder: Path) -> list[UUID]:
    """The ids in published files, and in files that the manifest says are still to be published."""
    waiting = [folder / "_pending" / row.pending for row in manifest(engine) if row.pending]
    waiting = [path for path in waiting if path.exists()]  # else it was published already
    return [id_ for path in (*published(folder), *waiting) for id_ in ids_in(path)]


def stored(engine: Engine) -> list[UUID]:
    with engine.connect() as connection:
        return list(connection.execute(select(COLUMNS.id).order_by(COLUMNS.id)).scalars())


def check_each_is_somewhere_once(engine: Engine, folder: Path, recorded: set[UUID]) -> None:
    found = Counter(archived(engine, folder))
    found.update(stored(engine))
    assert {id_: count for id_, count in found.items() if count > 1} == {}
    assert set(found) == recorded
    for row in manifest(engine):
        if row.pending is None:
            assert len(ids_in(folder / row.file)) == row.row_count
