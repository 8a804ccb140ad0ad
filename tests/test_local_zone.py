"""The name of the local time zone."""

from __future__ import annotations

import pytest

from jobhistory._runtime.local_zone import local_timezone


@pytest.mark.parametrize(
    ("variable", "link", "file", "expected"),
    [
        ("Asia/Tokyo", "/usr/share/zoneinfo/Europe/Berlin", "Europe/Rome", "Asia/Tokyo"),
        (":/usr/share/zoneinfo/Asia/Tokyo", None, "", "Asia/Tokyo"),
        ("CET-1CEST,M3.5.0", "/usr/share/zoneinfo/Europe/Berlin", "", "Europe/Berlin"),
        ("../../etc/passwd", "/usr/share/zoneinfo/posix/Europe/Berlin", "", "Europe/Berlin"),
        ("", "/usr/share/zoneinfo/Etc/UTC", "Europe/Rome", "UTC"),
        ("", "/srv/copy", "Europe/Rome\n", "Europe/Rome"),
        ("", None, "Mars/Olympus", None),
        ("", None, None, None),
    ],
)
def test_it_comes_from_the_environment_or_the_files_of_the_system(
    monkeypatch, tmp_path, variable, link, file, expected
):
    monkeypatch.setenv("TZ", variable)
    localtime, timezone = tmp_path / "localtime", tmp_path / "timezone"
    if link is not None:
        localtime.symlink_to(link)
    if file is not None:
        timezone.write_text(file)
    assert local_timezone(localtime, timezone) == expected
