"""Create files and folders that only their owner can read, regardless of the umask."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def create_private_file(path: Path) -> bool:
    """Create an empty file with mode 0600, and return whether it was missing.

    A symbolic link counts as an existing file, whatever its target is.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        return False
    try:
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)
    return True


def create_private_folder(path: Path) -> None:
    """Create a folder and its missing parents, all with mode 0700."""
    missing = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    for folder in reversed(missing):
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            folder.chmod(0o700)
