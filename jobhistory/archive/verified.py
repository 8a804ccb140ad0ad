"""The result of comparing an archive with its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ArchiveProblem:
    """What is wrong with a file of an archive.

    Attributes:
        file: the path of the file in the archive.
        kind: what is wrong: `"missing"`, `"unreadable"`, `"size"`, `"bytes"`, `"rows"`, `"digest"`,
            `"day"`, or `"unknown"` for a file that the manifest does not name.
        detail: a sentence about it.
    """

    file: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.file}: {self.detail}"

    def to_dict(self) -> dict[str, str]:
        """Return the attributes, for JSON."""
        return {"file": self.file, "kind": self.kind, "detail": self.detail}


@dataclass(frozen=True)
class VerifiedArchive:
    """The result of `Archive.verify`.

    Attributes:
        files: the number of published files that the manifest names.
        rows: the number of executions in these, as the manifest has it.
        bytes: the size of these, likewise.
        pending: the published or pending files that the next `expire --archive` publishes, replaces
            or deletes, because a process was interrupted or still works. They are no problem.
        problems: what is wrong, ordered by file.
    """

    files: int
    rows: int
    bytes: int
    pending: tuple[str, ...]
    problems: tuple[ArchiveProblem, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, for JSON."""
        return vars(self) | {"problems": [each.to_dict() for each in self.problems]}
