"""The window of time that a view shows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from jobhistory.errors import InvalidInput
from jobhistory.query.terms import read_moment

CHOICES = ("15m", "1h", "24h", "7d", "30d", "90d")
"""The windows that the page offers."""

ALL = "all"
"""The `since` of all of history, for views that would otherwise show less."""


@dataclass(frozen=True)
class Window:
    """The window of time that a view shows.

    Attributes:
        since, until: how the URL names the ends: a duration before now, or a time; an `until` of
            `None` stands for now, and a `since` of `None` or `"all"` for all of history.
        from_, to: the ends.
        now: the time of the request.
    """

    since: str | None
    until: str | None
    from_: datetime | None
    to: datetime | None
    now: datetime

    @classmethod
    def read(
        cls,
        since: str | None,
        until: str | None,
        now: datetime,
        default: str | None = None,
        zone: tzinfo = UTC,
    ) -> Window:
        """Return the window that a URL names.

        Args:
            since, until, now: see above.
            default: the length of the window if `since` is `None`; `None` for all of history.
            zone: the time zone of days such as `"today"`, and of times without an offset.

        Raises:
            InvalidInput: if an end cannot be read, or the window ends before it starts.
        """
        whole = now.replace(microsecond=0)
        to = read_moment(until, "until", whole, zone)
        if since is None and default is not None:
            since = default if to is None else _text(read_moment(default, "since", to) or to)
        from_ = read_moment(None if since == ALL else since, "since", whole, zone)
        if from_ and to and from_ > to:
            raise InvalidInput("since", since, f"is after {until!r}, the end of the window")
        return cls(since, until, from_, to, now)

    @property
    def length(self) -> timedelta | None:
        """The length; `None` for all of history."""
        return None if self.from_ is None else (self.to or self.now) - self.from_

    @property
    def is_live(self) -> bool:
        """Whether new executions appear in it."""
        return self.to is None

    def parameters(self) -> dict[str, str | None]:
        """Return the parameters that name this window in a URL."""
        return {"since": self.since, "until": self.until}

    def fixed(self) -> dict[str, str | None]:
        """Return parameters that name the same window at any later time, as cursors need it."""
        return {
            "since": self.since if self.from_ is None else _text(self.from_),
            "until": None if self.to is None else _text(self.to),
        }


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
