"""Alerts go to all receivers at the same time, and none of these delays the others."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from jobhistory._runtime.durations import took
from jobhistory._runtime.shown_text import one_line
from jobhistory.alerts.alert import Alert, Sender
from jobhistory.errors import JobHistoryError, reason
from jobhistory.sanitize.secrets import redact_text

logger = logging.getLogger(__name__)

_REASON_LENGTH = 300
# The path of a webhook is a secret.
_ADDRESS = re.compile(r"(\w+://[^\s/?#'\"<>]*)[^\s'\"<>]+")


@dataclass(frozen=True)
class Delivery:
    """What a receiver got.

    Attributes:
        accepted: the indexes of the alerts that it accepted.
        error: why it did not accept all of them; `None` if it did.
    """

    accepted: frozenset[int]
    error: str | None


def deliver(
    alerts: Sequence[Alert], senders: Sequence[Sender], time_limit: timedelta
) -> list[Delivery]:
    """Send alerts to all receivers, and return what each of them got.

    Each receiver has a thread. What it does not accept within the time limit counts as not sent.
    Its thread does not keep the program from exiting. A receiver that still hangs since an earlier
    call gets nothing, so that threads do not pile up.
    """
    _hanging[:] = [thread for thread in _hanging if thread.is_alive()]
    busy = [thread.sender for thread in _hanging]
    threads = [_Thread(sender, alerts) for sender in senders]
    for thread in threads:
        if thread.sender not in busy:
            thread.start()
    end = time.monotonic() + time_limit.total_seconds()
    for thread in threads:
        if thread.ident is not None:
            thread.join(max(0.0, end - time.monotonic()))
    _hanging.extend(thread for thread in threads if thread.is_alive())
    return [thread.outcome(time_limit) for thread in threads]


def name_of(sender: Sender) -> str:
    """Return how messages name a receiver, without a secret."""
    # The repr of other objects may contain a URL.
    name = getattr(sender, "receiver", None) or getattr(sender, "__qualname__", None)
    return name if isinstance(name, str) else type(sender).__qualname__


class _Thread(threading.Thread):
    def __init__(self, sender: Sender, alerts: Sequence[Alert]) -> None:
        super().__init__(name=f"jobhistory alerts: {name_of(sender)}", daemon=True)
        self.sender = sender
        self._alerts = alerts
        self._lock = threading.Lock()
        self._accepted: set[int] = set()
        self._error: str | None = None
        self._is_over = False

    def run(self) -> None:
        for number, alert in enumerate(self._alerts):
            if self._is_over:
                return
            try:
                self.sender(alert)
            except BaseException as error:  # also of sys.exit, which would end the thread silently
                self._error = _reason(error, name_of(self.sender))
            else:
                with self._lock:
                    self._accepted.add(number)

    def outcome(self, time_limit: timedelta) -> Delivery:
        """Return what was accepted, and send nothing more."""
        self._is_over = True
        with self._lock:
            accepted = frozenset(self._accepted)
        if len(accepted) == len(self._alerts):
            return Delivery(accepted, None)
        if self.ident is None:
            return Delivery(accepted, f"{name_of(self.sender)} still hangs since an earlier alert")
        limit = took(time_limit // timedelta(milliseconds=1))
        late = f"{name_of(self.sender)} did not accept everything within {limit}"
        return Delivery(accepted, self._error or late)


def _reason(error: BaseException, name: str) -> str:
    if isinstance(error, JobHistoryError):
        return str(error)
    text = _ADDRESS.sub(r"\1/[redacted]", redact_text(one_line(reason(error))))
    return f"{name} raised {type(error).__name__}: {text[:_REASON_LENGTH]}"


_hanging: list[_Thread] = []
