"""One round of alerts: claim news, send it, and note what was sent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from jobhistory._runtime.durations import parse_duration
from jobhistory.alerts.alert import Alert, Sender
from jobhistory.alerts.composing import alert_of, read_page_url, summary_of
from jobhistory.alerts.delivery import Delivery, deliver, logger
from jobhistory.errors import InvalidInput, check_count
from jobhistory.expectations.declarations import DeclaredExpectation
from jobhistory.expectations.incidents import News
from jobhistory.schema import HistoryRecord
from jobhistory.typing import Duration

OLDEST_NEWS = timedelta(days=1)
"""What ended earlier is no news, as when alerts are switched on for the first time."""

LIMITED_PER = timedelta(hours=1)
"""The time to which the limit applies."""

SUMMARY_EVERY = timedelta(minutes=10)
"""Above the limit, the time from one alert to the next."""

_MARGIN = timedelta(minutes=1)
_MOST_NEWS = 1000


class History(Protocol):
    """What a round needs of the history."""

    def get(self, id_: UUID) -> HistoryRecord | None:
        """Return an execution."""
        ...

    def declared_expectations(self) -> list[DeclaredExpectation]:
        """Return the declared expectations."""
        ...

    def claim_news(self, since: datetime, now: datetime, until: datetime, most: int) -> list[News]:
        """Return news that no other sender gets before `until`."""
        ...

    def settle_news(self, sent: list[News], at: datetime) -> None:
        """Note that news was sent."""
        ...

    def number_sent(self, since: datetime) -> int:
        """Return the number of incidents of which news was sent."""
        ...


@dataclass(frozen=True)
class AlertCounts:
    """What `send_alerts` did.

    Attributes:
        sent: the number of alerts that at least one receiver accepted.
        failed: the number of alerts that no receiver accepted. They are sent again later.
        summarized: the number of incidents of which one alert told together, because of the limit.
        errors: for each receiver that did not accept everything, a sentence without secrets.
    """

    sent: int = 0
    failed: int = 0
    summarized: int = 0
    errors: tuple[str, ...] = ()


@dataclass
class Round:
    """Sends what is new, in three steps: only the second one waits for receivers.

    Raises:
        InvalidInput: if an argument cannot be used.
    """

    history: History
    now: Callable[[], datetime]
    senders: Sequence[Sender]
    page_url: str | None
    limit: int
    time_limit: Duration
    _claimed: list[tuple[Alert, list[News]]] = field(default_factory=list, init=False)
    _deliveries: list[Delivery] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        for sender in self.senders:
            if not callable(sender) or inspect.iscoroutinefunction(sender):
                raise InvalidInput(
                    "senders",
                    sender,
                    "is not a plain function of an alert; pass one like print_alert",
                )
        if not self.senders:
            raise InvalidInput("senders", self.senders, "are missing; pass one like print_alert")
        self.page_url = read_page_url(self.page_url)
        check_count(self.limit, "limit", example=20)
        self._time_limit = parse_duration(self.time_limit, "time_limit")

    def claim(self) -> None:
        """Claim news, and make alerts of it."""
        now = self.now()
        room = max(0, self.limit - self.history.number_sent(now - LIMITED_PER))
        if not room and self.history.number_sent(now - SUMMARY_EVERY):
            return
        until = now + self._time_limit + _MARGIN
        news = self.history.claim_news(now - OLDEST_NEWS, now, until, _MOST_NEWS)
        news.sort(key=lambda each: each.kind == "closed")  # what is wrong comes first
        if not news:
            return
        # The last alert sums up the rest, unless the rest is one incident.
        alone = len(news) if len(news) <= max(room, 1) else max(room - 1, 0)
        declared = {
            each.expectation.name: each.expectation for each in self.history.declared_expectations()
        }
        for each in news[:alone]:
            expectation = declared.get(each.incident.expectation)
            alert = alert_of(each, expectation, self._evidence(each), self.page_url)
            self._claimed.append((alert, [each]))
        if rest := news[alone:]:
            self._claimed.append((summary_of(rest, self.page_url), rest))

    def _evidence(self, news: News) -> HistoryRecord | None:
        ids = news.incident.executions
        return self.history.get(ids[0]) if ids and not news.is_known else None

    def send(self) -> None:
        """Send the alerts, and wait for receivers up to the time limit."""
        if self._claimed:
            alerts = [alert for alert, _ in self._claimed]
            self._deliveries = deliver(alerts, self.senders, self._time_limit)

    def settle(self) -> AlertCounts:
        """Note which news was sent. The rest waits until its claim ends."""
        errors = tuple(each.error for each in self._deliveries if each.error is not None)
        for error in errors:
            logger.warning("an alert was not sent: %s", error)
        accepted = {number for each in self._deliveries for number in each.accepted}
        if accepted:
            sent = [news for number in accepted for news in self._claimed[number][1]]
            self.history.settle_news(sent, self.now())
        return AlertCounts(
            sent=len(accepted),
            failed=len(self._claimed) - len(accepted),
            summarized=sum(
                len(self._claimed[number][1])
                for number in accepted
                if self._claimed[number][0].news == "more"
            ),
            errors=errors,
        )
