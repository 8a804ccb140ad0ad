"""A browser, and what it complains about."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, Locator, Page, sync_playwright

_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

PARAMETERS = {"task": "task=sync_orders", "execution": "id={failed}"}
"""What a view needs in its URL, with the ids that `fill` returns."""


def path_of(view: str, ids: dict[str, str]) -> str:
    """Return the path of a view, with what it needs."""
    return f"{view}?{PARAMETERS[view].format(**ids)}" if view in PARAMETERS else view


def find_chromium() -> str:
    """Return the path of a Chromium.

    Raises:
        LookupError: if there is none; the message says how to install one.
    """
    named = os.environ.get("CHROMIUM")
    for name in (named, "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if name and (path := shutil.which(name)):
            return path
    raise LookupError("Chromium is not installed; install it with: apt-get install chromium")


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Start a browser, and yield it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A tab of a browser, with all that went wrong in it since it was opened."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        self.page.on("dialog", self._on_dialog)
        self.page.on("response", self._on_response)
        self.page.on("requestfailed", self._on_failed)

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type} in the console: {message.text}")

    def _on_dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _on_response(self, response: Any) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")

    def _on_failed(self, request: Any) -> None:
        if request.failure == "net::ERR_ABORTED":  # the browser went to another page
            return
        self.complaints.append(f"failed: {request.url}: {request.failure}")


@contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """Open a URL in a new tab with no cookies, and yield the visit.

    Args:
        options: those of Playwright's `new_context`; `theme`, `width`, and `prepare`, which is
            called with the tab before it opens the URL.
    """
    prepare = options.pop("prepare", None)
    theme = options.pop("theme", "system")
    width = options.pop("width", 1400)
    with browser.new_context(viewport={"width": width, "height": 800}, **options) as context:
        context.set_default_timeout(20_000)
        context.add_cookies([{"name": "jobhistory_theme", "value": theme, "url": url}])
        visit = Visit(context.new_page())
        if prepare is not None:
            prepare(visit.page)
        visit.page.goto(url)
        yield visit


def follow(link: Locator) -> None:
    """Click a link, and wait until its page is there: a click alone does not."""
    with link.page.expect_navigation():
        link.click()


def background(page: Page) -> str:
    """Return the color of the background."""
    color: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return color
