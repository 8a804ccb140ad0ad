"""What the URL of an archive names: a local folder, or a place that fsspec opens."""

from __future__ import annotations

import os
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import url2pathname

from jobhistory.errors import InvalidInput

EXAMPLE = "write it like '/var/lib/app/archive' or 's3://bucket/archive'"

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LIKE_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # C:\archive has a drive, not a scheme
_LOCAL = ("file", "local")
_ALIASES = {"s3a": "s3", "gcs": "gs"}
_WITH_CONTAINER = ("abfs", "abfss")  # abfs://container@account.dfs.core.windows.net/archive


@dataclass(frozen=True)
class RemotePlace:
    """A place that fsspec opens.

    Attributes:
        location: the URL without credentials and query, the same for all ways to write it.
        opened: the URL with them, for fsspec.
        query: for HTTP, the query with its question mark: each file needs it, at its end.
    """

    location: str
    opened: str
    query: str


def place_of(url: str | os.PathLike[str]) -> Path | RemotePlace:
    """Return the local folder that a URL or path names, or the place that fsspec opens.

    Raises:
        InvalidInput: if it names neither. The error quotes no more than the scheme.
    """
    text = os.fspath(url)
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise InvalidInput("archive", text, f"is not a folder or URL; {EXAMPLE}")
    if not _SCHEME.match(text):
        return _folder(text)
    if "::" in text:
        raise _refused(text, "is a chain of URLs, which cannot be an archive")
    parts = _split(text)
    return _local(text, parts) if parts.scheme in _LOCAL else _remote(text, parts)


def _folder(text: str) -> Path:
    if "://" in text or _LIKE_SCHEME.match(text):
        raise _refused(text, "is neither a folder nor a URL with 'scheme://'")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise _refused(text, "begins with ~ and names the folder of no user") from None


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port  # a password with a slash or the like ends up here
    except ValueError:
        raise _refused(text, "is not a URL; in credentials, write / as %2F and # as %23") from None
    is_cut = ":" in parts.netloc and "@" not in parts.netloc
    if parts.fragment or (is_cut and "@" in parts.path + parts.query):
        remedy = "has a # or credentials that are not encoded; write / as %2F and # as %23"
        raise _refused(text, remedy)
    return parts


def _local(text: str, parts: SplitResult) -> Path:
    if parts.netloc not in ("", "localhost"):
        raise _refused(text, "names another machine")
    if not parts.path:
        raise _refused(text, "names no folder")
    return Path(url2pathname(parts.path))


def _remote(text: str, parts: SplitResult) -> RemotePlace:
    user, at, host = parts.netloc.rpartition("@")
    if parts.scheme in _WITH_CONTAINER and user and ":" not in user:
        user, at, host = "", "", parts.netloc
    place = _normal(parts.path)
    if parts.scheme == "memory":  # which has no hosts
        host, _, place = _normal(f"{host}/{parts.path}")[1:].partition("/")
        place = f"/{place}" if place else ""
    if not host and not place:
        raise _refused(text, "names no place")
    scheme = _ALIASES.get(parts.scheme, parts.scheme)
    query = f"?{parts.query}" if parts.query else ""
    return RemotePlace(
        location=f"{scheme}://{host}{place}",
        opened=f"{parts.scheme}://{user}{at}{host}{place}{query}",
        query=query if parts.scheme in ("http", "https") else "",
    )


def _normal(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/")).rstrip("/")


def _refused(text: str, why: str) -> InvalidInput:
    """Return an error that quotes only what cannot be secret."""
    scheme = _LIKE_SCHEME.match(text)
    return InvalidInput("archive", f"{scheme[0] if scheme else ''}...", f"{why}; {EXAMPLE}")
