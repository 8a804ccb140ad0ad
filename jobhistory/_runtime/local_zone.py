"""The time zone of this machine, by its name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from zoneinfo import ZoneInfo

_LINK = Path("/etc/localtime")
_FILE = Path("/etc/timezone")
_SYNONYMS = {"Etc/UTC": "UTC", "Etc/UCT": "UTC", "Etc/Zulu": "UTC", "Universal": "UTC"}


def local_timezone(link: Path = _LINK, file: Path = _FILE) -> str | None:
    """Return the IANA name of the local time zone, such as `"Europe/Berlin"`.

    It comes from the variable `TZ`, from where `/etc/localtime` points to, or from Debian's
    `/etc/timezone`. Return `None` if none of them has the name of a time zone.
    """
    for name in _candidates(link, file):
        with suppress(Exception):  # such as a rule in place of a name: CET-1CEST
            return _SYNONYMS.get(name, ZoneInfo(name).key)
    return None


def _candidates(link: Path, file: Path) -> Iterator[str]:
    yield os.environ.get("TZ", "").removeprefix(":").rpartition("zoneinfo/")[2]
    with suppress(OSError):
        name = os.fspath(link.resolve()).partition("zoneinfo/")[2]
        yield name.removeprefix("posix/").removeprefix("right/")
    with suppress(OSError, ValueError):
        yield file.read_text(encoding="utf-8").strip()
