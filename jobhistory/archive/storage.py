"""Where the files of an archive are: in a local folder, or in what fsspec reaches.

A file is written in `_pending/` and then published in `day=YYYY-MM-DD/`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from jobhistory.archive.location import EXAMPLE, RemotePlace, place_of
from jobhistory.errors import ArchiveError, InvalidInput

PENDING = "_pending"


class Storage(Protocol):
    """The files of an archive. Paths are relative, with slashes.

    Errors are those of the operating system, or of fsspec.
    """

    @property
    def location(self) -> str:
        """The URL, without credentials and query."""
        ...

    @property
    def root(self) -> str:
        """The folder, or the URL as the file system has it."""
        ...

    @property
    def filesystem(self) -> Any:
        """The file system of fsspec; `None` for a local folder."""
        ...

    def exists(self) -> bool:
        """Return whether there is such a folder, which may be empty."""
        ...

    def write(self, name: str, data: memoryview) -> None:
        """Write a file in `_pending/`. When this returns, it survives a power cut."""
        ...

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        ...

    def publish(self, name: str, file: str) -> None:
        """Move a file from `_pending/` to its final path, and replace what is there.

        Raises:
            FileNotFoundError: if it is not in `_pending/`, where another call may have moved it.
        """
        ...

    def pending(self) -> list[str]:
        """Return the names in `_pending/`."""
        ...

    def files(self) -> list[str]:
        """Return the paths of the published files, sorted."""
        ...

    def delete(self, path: str) -> None:
        """Delete a file, if it exists."""
        ...


def storage_at(url: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Storage:
    """Return the storage at a URL, or in a local folder.

    Args:
        options: passed to the file system of fsspec.

    Raises:
        InvalidInput: if the URL cannot be used.
    """
    place = place_of(url)
    return LocalFolder(place) if isinstance(place, Path) else ObjectStore(place, options or {})


class LocalFolder:
    """An archive in a local folder, which only its user may read."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(os.path.abspath(folder))  # a symlink may get another target
        self.location = self._folder.as_uri()
        self.root = str(self._folder)
        self.filesystem = None

    def exists(self) -> bool:
        """Return whether there is such a folder, which may be empty."""
        return self._folder.is_dir()

    def write(self, name: str, data: memoryview) -> None:
        """Write a file in `_pending/`, and flush it and the folder to the disk."""
        path = self._pending(name)
        self._make(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            _flush(path.parent)
        except BaseException:
            path.unlink(missing_ok=True)  # on a full disk, above all
            raise

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        return (self._folder / path).read_bytes()

    def publish(self, name: str, file: str) -> None:
        """Rename a file, and flush both folders to the disk."""
        source, target = self._pending(name), self._folder / file
        self._make(target.parent)
        os.replace(source, target)
        _flush(target.parent)
        _flush(source.parent)

    def pending(self) -> list[str]:
        """Return the names in `_pending/`.

        Raises:
            ArchiveError: if this is no folder, so that a mistake shows before something expires.
        """
        if os.path.exists(self._folder) and not self.exists():  # unlike Path.exists, no error
            raise ArchiveError(self.location, "is not a folder; name one")
        return sorted(each.name for each in self._entries(self._folder / PENDING))

    def files(self) -> list[str]:
        """Return the paths of the published files, sorted.

        Raises:
            ArchiveError: if this user may not list a folder, whose files a pattern would leave out.
        """
        days = [day for day in self._entries(self._folder) if day.name.startswith("day=")]
        return sorted(
            f"{day.name}/{each.name}"
            for day in days
            if day.is_dir()
            for each in self._entries(day.path)
            if each.name.endswith(".parquet")
        )

    def delete(self, path: str) -> None:
        """Delete a file, if it exists, and flush its folder to the disk."""
        target = self._folder / path
        with suppress(FileNotFoundError):
            target.unlink()
            _flush(target.parent)

    def _entries(self, folder: str | Path) -> list[os.DirEntry[str]]:
        """Return what is in a folder; nothing if there is none."""
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise ArchiveError(self.location, f"cannot be listed: {error.strerror}") from error

    def _pending(self, name: str) -> Path:
        return self._folder / PENDING / name

    def _make(self, folder: Path) -> None:
        """Make a folder, and flush the entry of each new folder to the disk."""
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
            _flush(each.parent)


class ObjectStore:
    """An archive in an object store, or anything else that fsspec reaches."""

    def __init__(self, place: RemotePlace, options: Mapping[str, Any]) -> None:
        self.location = place.location
        self._fs, root = self._open(place.opened, options)
        self._query = place.query if root.endswith(place.query) else ""
        self._root = root.removesuffix(self._query).rstrip("/")
        self.root = self._fs.unstrip_protocol(self._root)
        self.filesystem = self._fs

    def _open(self, url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        try:
            fs, root = url_to_fs(url, **options)
        except ImportError as error:
            raise InvalidInput(
                "archive", self.location, f"needs another package: {error}"
            ) from None
        except (TypeError, ValueError) as error:
            if str(error).startswith("Protocol not known"):
                remedy = f"has a scheme that fsspec does not know; {EXAMPLE}"
                raise InvalidInput("archive", self.location, remedy) from None
            remedy = f"cannot be opened ({type(error).__name__}); {EXAMPLE}"
            raise InvalidInput("archive", self.location, remedy) from None
        except Exception as error:  # some file systems connect at once
            raise self._failed("opened", error) from None
        return fs, root

    def exists(self) -> bool:
        """Return whether there is such a folder, which may be empty."""
        found: bool = self._fs.exists(self._path(""))
        return found

    def write(self, name: str, data: memoryview) -> None:
        """Write a file in `_pending/`."""
        path = self._path(f"{PENDING}/{name}")
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(path, bytes(data))

    def read(self, path: str) -> bytes:
        """Return the content of a file."""
        data: bytes = self._fs.cat_file(self._path(path))
        return data

    def publish(self, name: str, file: str) -> None:
        """Copy a file within the store, and delete the one in `_pending/`."""
        source, target = self._path(f"{PENDING}/{name}"), self._path(file)
        self._fs.invalidate_cache()
        self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._fs.cp_file(source, target)
        self.delete(f"{PENDING}/{name}")

    def pending(self) -> list[str]:
        """Return the names in `_pending/`."""
        return sorted(path.rpartition("/")[2] for path in self._found(PENDING))

    def files(self) -> list[str]:
        """Return the paths of the published files, sorted."""
        paths = (path[len(self._root) :].lstrip("/") for path in self._found(""))
        return sorted(path for path in paths if re.fullmatch(r"day=[^/]+/[^/]+\.parquet", path))

    def delete(self, path: str) -> None:
        """Delete a file, if it exists."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(path))

    def _found(self, folder: str) -> list[str]:
        self._fs.invalidate_cache()
        path = self._path(folder)
        try:
            found: list[str] = self._fs.find(path)
            if not found:  # `find` takes a store that does not answer for an empty one
                self._fs.ls(path, detail=False)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise self._failed("listed", error) from None
        return found

    def _failed(self, done: str, error: Exception) -> ArchiveError:
        """Return an error without the message of another, which may have credentials."""
        said = getattr(error, "strerror", None) or type(error).__name__
        return ArchiveError(self.location, f"cannot be {done}: {said}")

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/") + self._query


def _flush(folder: Path) -> None:
    """Flush the entries of a folder to the disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):  # not on Windows
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
