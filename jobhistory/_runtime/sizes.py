"""Read sizes that people write, such as `"16 KiB"`."""

from __future__ import annotations

import re

from jobhistory.errors import InvalidInput

_SIZE = re.compile(r"(\d{1,12}) ?(B|KiB|MiB|[Kk]|M)")
_BYTES = {"B": 1, "KiB": 1024, "K": 1024, "k": 1024, "MiB": 1024**2, "M": 1024**2}
_LEAST = 1024
_MOST = 16 * 1024**2


def parse_size(value: int | str, argument: str) -> int:
    """Return a size in bytes.

    Raises:
        InvalidInput: if it is unreadable, or not from 1 KiB to 16 MiB.
    """
    size = value
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        size = int(match[1]) * _BYTES[match[2]] if match else 0
    if isinstance(size, bool) or not isinstance(size, int) or not _LEAST <= size <= _MOST:
        raise InvalidInput(
            argument, value, "is not a size from 1 KiB to 16 MiB; write it like '16 KiB' or 16384"
        )
    return size
