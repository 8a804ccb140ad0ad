"""The receivers of alerts that a command line names."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable

from jobhistory.errors import InvalidInput
from jobhistory.store import HistoryStore

VARIABLE = "JOBHISTORY_ALERT"
"""The variable that names receivers if no option does."""


def read_alerts(
    targets: list[str] | None, page_url: str | None, *, may_print: bool
) -> Callable[[HistoryStore], None]:
    """Return a function that sends what is new to the receivers of `--alert`, or of the variable.

    Args:
        page_url: where the web page is.
        may_print: whether standard output can be a receiver.

    Raises:
        InvalidInput: if there is no such receiver.
    """
    argument = "--alert" if targets else VARIABLE
    named = targets or _split(os.environ.get(VARIABLE, ""))
    if not named and page_url is None:
        return lambda _: None
    # Here, because a check without receivers needs neither mail nor webhooks.
    from jobhistory.alerts.composing import read_page_url
    from jobhistory.alerts.targets import read_alert_target

    if "stdout" in named and not may_print:
        raise InvalidInput(argument, "stdout", "goes neither with JSON or metrics nor with --watch")
    read_page_url(page_url)
    senders = [read_alert_target(each, argument=argument) for each in named]

    def send(store: HistoryStore) -> None:
        if senders:
            store.send_alerts(*senders, page_url=page_url)

    return send


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        example = "write it like 'https://example.org/hook \"command:/usr/local/bin/page --now\"'"
        raise InvalidInput(VARIABLE, "...", f"has an open quote; {example}") from None
