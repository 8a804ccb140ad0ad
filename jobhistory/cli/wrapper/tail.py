"""The end of what a command wrote."""

from __future__ import annotations

import re
from threading import Lock

_ESCAPES = r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[ -/]*[0-Z\\^-~])"
"""Control sequences, operating system commands and other escapes of ECMA-48."""


class Tail:
    """The last bytes that were appended. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self._is_cut = False
        self._lock = Lock()

    def append(self, chunk: bytes) -> None:
        """Append bytes, and drop the oldest ones that are too many."""
        with self._lock:
            self._bytes += chunk
            if len(self._bytes) > self._limit:
                del self._bytes[: -self._limit]
                self._is_cut = True

    def text(self) -> str:
        """Return the bytes as text, as a terminal shows it: without colors and the like.

        If earlier bytes are missing, the text begins with a whole line, or at least a whole word:
        part of a secret would not be recognized as one.
        """
        with self._lock:
            text = self._bytes.decode(errors="replace")
        if self._is_cut:
            beginnings = (text.partition(separator) for separator in ("\n", " "))
            text = next((rest for _, found, rest in beginnings if found), text)
        return re.sub(_ESCAPES, "", text).replace("\r\n", "\n")
