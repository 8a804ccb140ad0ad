"""What an app says about its page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from jobhistory._runtime.clock import utc_now
from jobhistory.statistics.prometheus import OperationCounter
from jobhistory.typing import Clock
from jobhistory.web.access import AccessCallback
from jobhistory.web.http import Request
from jobhistory.web.links import Links
from jobhistory.web.usual import UsualTimes

Present: TypeAlias = Callable[[str, Any, Request], Any]
"""Takes a name, the value under it, and the request; returns the value to show."""


@dataclass(frozen=True)
class Settings:
    """What an app says about its page; `asgi_app` describes it.

    Attributes:
        usual_times: what the page has found out about tasks.
    """

    access: AccessCallback
    present: Present | None = None
    links: Links = field(default_factory=Links)
    title: str = "Job history"
    clock: Clock = utc_now
    recorder: OperationCounter | None = None
    usual_times: UsualTimes = field(default_factory=UsualTimes)
