"""HTML from templates. All values are escaped."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from jobhistory._runtime.durations import took
from jobhistory.execution.status import Status
from jobhistory.web.search import term
from jobhistory.web.window import CHOICES

STATUS_WORDS = {
    Status.STARTED: "running",
    Status.COMPLETED: "completed",
    Status.FAILED: "failed",
    Status.PARTIAL_SUCCESS: "partial success",
    Status.CANCELLED: "cancelled",
}
"""The words for statuses that people read."""


MENU = (
    ("", "Executions"),
    ("tasks", "Tasks"),
    ("failures", "Failures"),
    ("running", "Running"),
    ("grid", "Grid"),
    ("expectations", "Expectations"),
    ("workers", "Workers"),
)
"""The views in the menu: the path of each, and its name."""


def render(template: str, **values: Any) -> bytes:
    """Return the HTML of a template."""
    return _environment().get_template(template).render(values).encode(errors="replace")


@cache
def static_file(name: str) -> bytes | None:
    """Return the content of a static file; `None` if there is none."""
    if name not in STATIC_FILES:
        return None
    return files("jobhistory.web").joinpath("static", *name.split("/")).read_bytes()


STATIC_FILES = {
    "page.css": "text/css; charset=utf-8",
    "charts.css": "text/css; charset=utf-8",
    "executions.css": "text/css; charset=utf-8",
    "execution.css": "text/css; charset=utf-8",
    "expectations.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "vendor/htmx-2.0.11.min.js": "text/javascript; charset=utf-8",
    "vendor/htmx-ext-sse-2.2.4.min.js": "text/javascript; charset=utf-8",
}
"""The static files, and the media type of each."""


@cache
def static_url(name: str) -> str:
    """Return the relative URL of a static file, which changes with its content."""
    content = static_file(name)
    if content is None:
        raise ValueError(f"there is no static file {name!r}")
    return f"static/{name}?v={sha256(content).hexdigest()[:12]}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("jobhistory.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"took": took, "milliseconds": _milliseconds, "percent": _percent}
    environment.globals |= {
        "static": static_url,
        "term": term,
        "views": MENU,
        "status_words": STATUS_WORDS,
        "window_choices": CHOICES,
    }
    return environment


def _milliseconds(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)


def _percent(share: float | None) -> str:
    """Return a share as a percentage; small ones keep a digit, so that only 0 is 0 %."""
    if share is None:
        return "-"
    return f"{share:.0%}" if share == 0 or share >= 0.1 else f"{share:.1%}"
