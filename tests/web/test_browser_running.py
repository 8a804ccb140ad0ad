"""What runs now, in a browser: it refreshes itself in place."""

from __future__ import annotations

import pytest

from tests.web.browsing import visiting
from tests.web.histories import fill
from tests.web.serving import PLACES

pytestmark = pytest.mark.browser


def test_a_refresh_moves_neither_the_focus_nor_the_page(browser, tmp_path):
    url = f"sqlite:///{tmp_path}/history.db"
    fill(url)
    with PLACES["flask"](url) as base, visiting(browser, f"{base}running") as visit:
        page = visit.page
        link = page.locator("#running-now td a").last
        link.focus()
        page.evaluate("window.old = document.querySelector('#running-now table')")
        page.evaluate("scrollTo(0, 40)")
        place = page.evaluate("scrollY")
        focused = page.evaluate("document.activeElement.id")
        assert focused.startswith("worker-")
        while page.evaluate("old.isConnected"):
            page.wait_for_timeout(50)
        assert page.evaluate("document.activeElement.id") == focused
        assert page.evaluate("scrollY") == place
        assert visit.complaints == []


def test_without_an_answer_a_line_says_how_old_the_list_is(browser, tmp_path):
    url = f"sqlite:///{tmp_path}/history.db"
    fill(url)
    with PLACES["flask"](url) as base, visiting(browser, f"{base}running") as visit:
        page = visit.page
        rows = page.locator("#running-now tbody tr").count()
        page.route("**/running", lambda route: route.fulfill(status=503, body="unavailable"))
        line = page.get_by_text("The history does not answer. What you see is from")
        line.wait_for()
        assert page.locator("#running-now tbody tr").count() == rows
        page.unroute("**/running")
        line.wait_for(state="hidden")
