"""Output that is printed later, if at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import Lock
from typing import IO

Write = Callable[[int, bytes], None]

_MEMORY_BYTES = 1024 * 1024
_HEADER_BYTES = 9


class Spool:
    """Chunks of output for file descriptors, in order: in memory, and above 1 MiB in a file.

    The file is temporary, has no name, and is private. If it cannot be written, everything is
    passed on at once, now and from then on. Thread-safe.

    Args:
        write: writes a chunk to a descriptor.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._lock = Lock()
        self._chunks: list[tuple[int, bytes]] = []
        self._size = 0
        self._file: IO[bytes] | None = None
        self._is_open = True

    def append(self, target: int, chunk: bytes) -> None:
        """Keep a chunk for a descriptor."""
        with self._lock:
            if not self._is_open:
                self._write(target, chunk)
                return
            self._chunks.append((target, chunk))
            self._size += len(chunk)
            if self._size > _MEMORY_BYTES:
                try:
                    self._move_to_file()
                except OSError:
                    self._pass_on()

    def release(self) -> None:
        """Write everything to its descriptors, in order."""
        with self._lock:
            self._pass_on()

    def _move_to_file(self) -> None:
        if self._file is None:
            from tempfile import TemporaryFile

            self._file = TemporaryFile(buffering=0)  # noqa: SIM115
        frames = b"".join(
            b"%1d%8x" % (target, len(chunk)) + chunk for target, chunk in self._chunks
        )
        end = self._file.seek(0, os.SEEK_END)
        if self._file.write(frames) < len(frames):  # the disk is full
            self._file.truncate(end)
            raise OSError
        self._chunks, self._size = [], 0

    def _pass_on(self) -> None:
        self._is_open = False
        if self._file is not None:
            self._file.seek(0)
            while header := self._file.read(_HEADER_BYTES):
                self._write(int(header[:1]), self._file.read(int(header[1:], 16)))
            self._file.close()
        for target, chunk in self._chunks:
            self._write(target, chunk)
        self._chunks = []
