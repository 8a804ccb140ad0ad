"""Fit text into a number of cells, which wide characters take two of."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size


def padded(text: str, width: int, *, right: bool) -> str:
    """Return the text with spaces before or after it, so that it fills the width."""
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def cut_end(text: str, width: int, ellipsis: str) -> str:
    """Return the text, without its end if it is too long: for prose and for names."""
    if cell_len(text) <= width:
        return text
    if width <= len(ellipsis):
        return ellipsis[: max(0, width)]
    return set_cell_size(text, width - len(ellipsis)).rstrip() + ellipsis


def cut_middle(text: str, width: int, ellipsis: str) -> str:
    """Return the text, without its middle if it is too long: for ids, which begin or end alike."""
    room = width - len(ellipsis)
    if cell_len(text) <= width or room < 2:
        return cut_end(text, width, ellipsis)
    end = room // 2
    return set_cell_size(text, room - end).rstrip() + ellipsis + _end_of(text, end)


def _end_of(text: str, width: int) -> str:
    """Return the end of a text, in no more than so many cells."""
    kept = text[-width:]  # no character takes less than a cell, but those that join one
    while kept and (cell_len(kept) > width or cell_len(kept[0]) == 0):
        kept = kept[1:]
    return kept
