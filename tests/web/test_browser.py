"""The whole page in a browser, as people use it.

Each view is tested below a prefix. The frameworks and the program only need to show that what they
serve is the same.
"""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from jobhistory.web.routes import VIEWS
from tests.web.browsing import background, follow, path_of, visiting
from tests.web.serving import PLACES

pytestmark = pytest.mark.browser

NO_PAGES = {"metrics", "news", "preferences", "suggest"}
"""The views that send data, or a part of a page, as do those whose names have an extension."""

PAGES = sorted(view for view in VIEWS.keys() - NO_PAGES if "." not in view)


def findings(page):
    """Return what axe-core finds, each with the first element."""
    found = Axe().run(page).response["violations"]
    return [(each["id"], each["help"], each["nodes"][0]["html"][:200]) for each in found]


def sticks_out(page):
    """Return elements that make the page wider than the window."""
    return page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] :
          [...document.querySelectorAll("body *")]
            .filter(each => each.getBoundingClientRect().right > innerWidth + 0.5)
            .map(each => each.outerHTML.slice(0, 100)).slice(0, 3)"""
    )


def spills_over(page):
    """Return elements whose text, if it runs from right to left, turns the text next to it."""
    return page.evaluate(
        """() => [...document.querySelectorAll("main *, footer *")]
          .filter(each => getComputedStyle(each).unicodeBidi === "normal")
          .filter(each => [...each.childNodes].some(child =>
            child.nodeType === Node.TEXT_NODE && child.data.includes("\u202e")))
          .map(each => each.outerHTML.slice(0, 100))"""
    )


def by_keyboard(page):
    """Press Tab until the focus leaves the page.

    Return what should get the focus, what gets it, and what gets it without showing that.
    """
    expected = page.evaluate(
        """() => {
          window.reached = [];
          const of = "a[href], button, input:not([type=hidden]), select, summary, [tabindex='0']";
          // Bars of charts repeat links of the table behind the chart.
          const href = each => each.getAttribute("href");
          const inTables = new Set([...document.querySelectorAll("table a")].map(href));
          const repeats = each => each.tabIndex < 0 && inTables.has(href(each));
          const all = [...document.querySelectorAll(of)]
            .filter(each => each.checkVisibility() && !repeats(each));
          const names = all.map((each, number) =>
            each.dataset.name = `${number} ${each.outerHTML.slice(0, 150)}`);
          // A part that refreshes itself has other elements then, with the same ids.
          const byId = new Map(all.map(each => [each.id, each.dataset.name]));
          document.addEventListener("focusin", ({ target }) => {
            const { outlineStyle, outlineWidth } = getComputedStyle(target);
            const box = target.getBoundingClientRect();
            const hasOutline = outlineStyle !== "none" && parseFloat(outlineWidth) >= 1;
            reached.push([target.dataset.name ?? byId.get(target.id), hasOutline && box.right > 0]);
          });
          return names;
        }"""
    )
    for _ in range(len(expected) + 1):
        page.keyboard.press("Tab")
    reached = page.evaluate("reached")
    unseen = [name for name, is_seen in reached if not is_seen]
    return set(expected), {name for name, _ in reached}, unseen


@pytest.mark.parametrize(("theme", "width"), [("light", 360), ("dark", 1400)])
@pytest.mark.parametrize("view", PAGES)
def test_each_page_is_sound(browser, site, view, theme, width):
    with visiting(browser, site(view), theme=theme, width=width) as visit:
        assert visit.page.locator("h1").count() == 1
        assert findings(visit.page) == []
        assert sticks_out(visit.page) == []
        assert spills_over(visit.page) == []
        assert visit.complaints == []


@pytest.mark.parametrize("view", PAGES)
def test_each_page_fits_any_width(browser, site, view):
    with visiting(browser, site(view)) as visit:
        for width in (320, 480, 701, 768, 1000, 1001, 1920):
            visit.page.set_viewport_size({"width": width, "height": 800})
            assert sticks_out(visit.page) == [], width


@pytest.mark.parametrize("view", PAGES)
def test_each_page_works_without_a_script(browser, site, view):
    with visiting(browser, site(view), java_script_enabled=False) as visit:
        page = visit.page
        assert page.locator("h1").is_visible()
        page.get_by_text("Display", exact=True).click()
        assert page.get_by_text("Only a script knows your local time zone").is_visible()
        assert page.get_by_role("button", name="Keyboard shortcuts").count() == 0
        follow(page.get_by_role("link", name="dark"))
        assert background(page) == "rgb(18, 21, 27)"
        assert page.url.partition("?")[0] == site(view).partition("?")[0]
        follow(page.get_by_role("link", name="Executions", exact=True).first)
        assert page.get_by_role("heading", level=1).inner_text() == "Executions"
        assert visit.complaints == []


@pytest.mark.parametrize("view", PAGES)
def test_each_page_works_by_keyboard_alone(browser, site, view):
    with visiting(browser, site(view)) as visit:
        expected, reached, unseen = by_keyboard(visit.page)
        assert expected - reached == set()
        assert unseen == []


@pytest.mark.parametrize("place", PLACES)
def test_frameworks_serve_the_same(browser, history, place):
    url, ids = history
    with PLACES[place](url) as base:
        for view in ("", "task", "execution"):
            with visiting(browser, base + path_of(view, ids)) as visit:
                assert findings(visit.page) == []
                assert visit.complaints == []


@pytest.mark.parametrize("which", ["completed", "running"])
def test_an_execution_is_sound_whatever_its_outcome(browser, history, site, which):
    with visiting(
        browser, f"{site('execution').partition('?')[0]}?id={history[1][which]}"
    ) as visit:
        assert findings(visit.page) == []
        assert visit.complaints == []


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("menu", [".top summary", ".window summary", ".reading summary"])
def test_menus_are_sound_when_they_are_open(browser, site, menu, width):
    with visiting(browser, site(""), width=width) as visit:
        visit.page.locator(menu).click()
        assert findings(visit.page) == []
        assert sticks_out(visit.page) == []
        assert visit.complaints == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_refusals_are_sound(browser, site, theme):
    with visiting(browser, site("") + "nonsense", theme=theme, width=360) as visit:
        assert visit.page.get_by_text("There is no view named").is_visible()
        assert findings(visit.page) == []
        assert sticks_out(visit.page) == []
