"""What the URL of an archive names, and what is refused without its secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobhistory import Archive, InvalidInput
from jobhistory.archive.location import place_of


@pytest.mark.parametrize(
    "url",
    [
        "simplecache::s3://key:SECRET@bucket/x",
        "zip://a.zip::s3://key:SECRET@bucket/x",
        "a::s3://key:SECRET@bucket/x",
        "dir::file:///tmp/SECRET",
        "s3:/key:SECRET@bucket/a",
        "s3:key:SECRET@bucket",
        Path("s3://key:SECRET@bucket/a"),
        " s3://key:SECRET@bucket/a",
        "/s3://key:SECRET@bucket/a",
        "file:/tmp/SECRET",
        "file://SECRET@other/tmp",
        "file://",
        "~nosuchuser/SECRET",
        "http://u:SECRET@[bad/x",
        "s3://key:SEC/RET@bucket/x",
        "s3://key:12/SECRET@bucket/x",
        "s3://key:12?SECRET@bucket/x",
        "s3://bucket/x#SECRET",
        "s3://",
    ],
)
def test_what_is_neither_a_folder_nor_a_url_is_refused_without_secrets(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match="write it like '/var/lib/app/archive' or") as raised:
        Archive(url)
    assert "SECRET" not in f"{raised.value!r} {raised.value}"
    assert "RET@" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["C:\\archive", "C:/archive", "/srv/a::b", "./s3:", "day=1"])
def test_paths_may_have_colons(folder):
    assert place_of(folder) == Path(folder)


def test_a_tilde_is_the_folder_of_the_user(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("USERPROFILE", "/home/ada")
    assert place_of("~/archive") == Path("/home/ada/archive")
    assert place_of("~") == Path("/home/ada")


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("file:///srv/b/../a", "file:///srv/a"),
        ("local:///srv/a/", "file:///srv/a"),
        ("FILE://localhost/srv/a", "file:///srv/a"),
        ("memory://a//b/./c/../d/", "memory://a/b/d"),
        ("memory:///a/b/d", "memory://a/b/d"),
        ("memory:///", None),
        ("memory://a/b/d?token=1", "memory://a/b/d"),
    ],
)
def test_a_place_has_one_location(url, location):
    if location is None:
        with pytest.raises(InvalidInput):
            Archive(url)
    else:
        assert Archive(url).location == location


@pytest.mark.parametrize(
    ("url", "location", "opened"),
    [
        ("s3a://key:SECRET@b//a?x=1", "s3://b/a", "s3a://key:SECRET@b/a?x=1"),
        ("gcs://bucket/a/", "gs://bucket/a", "gcs://bucket/a"),
        ("https://h:8443/a?sig=TOKEN", "https://h:8443/a", "https://h:8443/a?sig=TOKEN"),
        ("abfs://files@account/a", "abfs://files@account/a", "abfs://files@account/a"),
    ],
)
def test_credentials_and_the_query_are_opened_but_not_in_the_location(url, location, opened):
    place = place_of(url)
    assert (place.location, place.opened) == (location, opened)


def test_the_query_belongs_to_each_file():
    storage = Archive("http://user:SECRET@127.0.0.1:1/a?sig=TOKEN").storage
    assert storage._path("day=2015-01-01/x.parquet") == (
        "http://user:SECRET@127.0.0.1:1/a/day=2015-01-01/x.parquet?sig=TOKEN"
    )
    assert storage.location == "http://127.0.0.1:1/a"
