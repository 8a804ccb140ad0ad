"""Output that is held back, and the end of it."""

from __future__ import annotations

import errno

from jobhistory.cli.wrapper.spool import Spool
from jobhistory.cli.wrapper.tail import Tail


def test_output_that_cannot_be_held_back_is_printed(monkeypatch):
    written = []
    spool = Spool(lambda target, chunk: written.append((target, chunk)))
    spool.append(1, b"a")

    def refuse(**_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    spool.append(2, b"b" * 2_000_000)
    spool.append(1, b"c")
    assert written == [(1, b"a"), (2, b"b" * 2_000_000), (1, b"c")]


def test_the_end_of_output_has_no_colors_and_no_part_of_a_line():
    tail = Tail(16)
    tail.append(b"password=secret\r\n\x1b[31mred")
    tail.append(b"\x1b[0m\n")
    assert tail.text() == "red\n"


def test_the_end_of_one_long_line_begins_with_a_whole_word():
    tail = Tail(10)
    tail.append(b"--password=secret and more")
    assert tail.text() == "and more"
