"""The method of stores that sends alerts."""

from __future__ import annotations

from jobhistory.alerts.alert import Sender
from jobhistory.alerts.sending import AlertCounts, History, Round
from jobhistory.execution.rows import RowBuilder
from jobhistory.typing import Duration


class AlertMethods:
    """Sends alerts.

    Args:
        alerted_of: the history.
    """

    def __init__(self, rows: RowBuilder, alerted_of: History) -> None:
        self._rows = rows
        self._alerted_of = alerted_of

    def send_alerts(
        self,
        *senders: Sender,
        page_url: str | None = None,
        limit: int = 20,
        time_limit: Duration = "10s",
    ) -> AlertCounts:
        """Send what is new about incidents to all receivers, and return what was sent.

        Call it after `check`, which finds incidents. There is an alert when an incident opens, and
        another when it closes; if both happened before anybody was told, there is one for both.
        What ended more than a day ago gives none, nor does what `remove_expectation` closed.

        Any number of programs can check and send at the same time: each alert is sent by one of
        them, once. It counts as sent when at least one receiver accepts it. A receiver that does
        not is named in a warning in the log, and does not get it again. If no receiver accepts it,
        a call after a minute tries again; so does one after a sender was killed. A receiver that
        accepts an alert too late, or whose sender was killed, can get it twice.

        Each receiver has its own thread, so they work at the same time. The call waits for them no
        longer than the time limit, and runs no transaction meanwhile.

        Args:
            senders: functions that take an `Alert` and raise an exception if it is not accepted,
                such as `print_alert`, `CommandAlert(...)`, `WebhookAlert(...)`, `EmailAlert(...)`,
                or your own. `read_alert_target` makes one from text.
            page_url: where the web page is mounted, such as `"https://app.example.org/history"`.
                Alerts then have a link to the execution or the task.
            limit: the maximum number of alerts in an hour. The last one sums up the rest, and from
                then on there is one such alert every ten minutes.
            time_limit: the longest time to wait for receivers, such as `"10s"`.

        Raises:
            InvalidInput: if an argument cannot be used.
        """
        round_ = Round(self._alerted_of, self._rows.now, senders, page_url, limit, time_limit)
        round_.claim()
        round_.send()
        return round_.settle()
