"""What a request can get in place of a view: one sentence, and a status code."""

from __future__ import annotations

from http import HTTPStatus


class Refused(Exception):
    """The page does not show what was asked for.

    Attributes:
        status: the status code of HTTP.
        sentence: why, and what to do about it.
    """

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(status, sentence)
        self.status = status
        self.sentence = sentence


def not_found(sentence: str) -> Refused:
    """Return the refusal of something that does not exist."""
    return Refused(HTTPStatus.NOT_FOUND, sentence)
