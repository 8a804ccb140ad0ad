"""Make the inventories that links to the documentation of SQLAlchemy and Python need.

They are in the repository, so the documentation builds without a network. SQLAlchemy's comes from
the HTML in its source distribution. Python's is a part of its documentation's inventory: modules,
classes, exceptions, functions and constants::

    pip download --no-deps --no-binary :all: sqlalchemy==2.1.9
    tar xf sqlalchemy-2.1.9.tar.gz
    python docs/inventories/make.py sqlalchemy-2.1.9 /usr/share/doc/python3.11/html/objects.inv
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent
OBJECT = re.compile(
    r'<dl class="py (\w+)">\s*<dt class="sig sig-object py" id="([\w.]+)">'
)
SQLALCHEMY = (
    "sqlalchemy.engine",
    "sqlalchemy.exc",
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.orm",
)
PYTHON = re.compile(r"\S+ py:(module|class|exception|function|data) ")
END_OF_HEADER = b"compressed using zlib.\n"


def sqlalchemy_objects(documentation: Path) -> list[str]:
    """Return a line of the inventory for each object that this documentation may link to."""
    lines = {}
    for page in sorted(documentation.rglob("*.html")):
        address = page.relative_to(documentation).as_posix()
        for kind, name in OBJECT.findall(page.read_text(encoding="utf-8")):
            if name.startswith(SQLALCHEMY) or name.count(".") == 1:
                lines.setdefault(name, f"{name} py:{kind} 1 {address}#$ -")
    return [lines[name] for name in sorted(lines)]


def python_objects(inventory: Path) -> list[str]:
    """Return the lines of Python's own inventory that are kept."""
    _, _, packed = inventory.read_bytes().partition(END_OF_HEADER)
    return [
        line
        for line in zlib.decompress(packed).decode().splitlines()
        if PYTHON.match(line)
    ]


def write(project: str, version: str, lines: Iterable[str]) -> None:
    """Write an inventory beside this file, in version 2 of Sphinx's format."""
    header = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: {version}\n"
    packed = zlib.compress("".join(f"{line}\n" for line in lines).encode(), 9)
    path = FOLDER / f"{project.lower()}.inv"
    path.write_bytes(
        header.encode() + b"# The remainder is " + END_OF_HEADER + packed
    )


def main(sqlalchemy: Path, python: Path) -> None:
    """Write both inventories."""
    write(
        "SQLAlchemy",
        sqlalchemy.name.rpartition("-")[2],
        sqlalchemy_objects(sqlalchemy / "doc"),
    )
    version = python.read_bytes().split(b"# Version: ")[1].split(b"\n")[0].decode()
    write("Python", version, python_objects(python))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
