"""What a script adds to the page: keys, times that keep going, names of zones; themes and paper."""

from datetime import UTC, datetime, timedelta

import pytest

from jobhistory._runtime.ages import relative
from tests.web.browsing import background, follow, visiting

pytestmark = pytest.mark.browser

LIGHT, DARK = "rgb(246, 247, 249)", "rgb(18, 21, 27)"


@pytest.fixture
def page(browser, site):
    with visiting(browser, site("")) as visit:
        yield visit.page
        assert visit.complaints == []


def focused(page):
    """Return the row that has the focus, from 0, and where its link leads."""
    return page.evaluate(
        """() => {
          const { activeElement: link } = document;
          return [link.closest("tr")?.sectionRowIndex, link.getAttribute("href")];
        }"""
    )


def test_keys_move_between_rows_and_open_one(page):
    page.keyboard.press("j")
    assert focused(page)[0] == 0
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    row, url = focused(page)
    assert row == 1
    page.keyboard.press("o")
    page.wait_for_url(f"**/{url}")


def test_rows_end_where_the_table_does(page):
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert focused(page)[0] == 0


def test_a_key_goes_to_the_search_box_where_keys_are_text(page):
    page.keyboard.press("/")
    page.keyboard.type("/jr?t")
    assert page.locator("main [type=search]").input_value() == "/jr?t"


def test_suggestions_of_a_slow_server_are_those_of_the_last_text(browser, site):
    with visiting(browser, site(""), prepare=lambda page: page.clock.install()) as visit:
        page, first = visit.page, []
        page.route("**/suggest*", lambda each: each.continue_() if first else first.append(each))
        with page.expect_request("**/suggest*"):
            page.keyboard.press("/")
        page.keyboard.type("status:")
        page.clock.run_for(1_000)
        first[0].continue_()
        page.get_by_role("option", name="status:failed").wait_for()
        assert page.get_by_role("option", name="task:", exact=True).count() == 0
        assert visit.complaints == []


def test_suggestions_that_come_after_the_viewer_typed_on_are_not_offered(browser, site):
    """They would replace what the viewer has typed since."""
    with visiting(browser, site(""), prepare=lambda page: page.clock.install()) as visit:
        page, held = visit.page, []
        page.route("**/suggest*", lambda each: held.append(each))
        with page.expect_request("**/suggest*"):
            page.keyboard.press("/")
        page.keyboard.type("status:")
        page.clock.run_for(1_000)
        with page.expect_request("**/suggest*"):  # once the first one is answered
            held[0].continue_()
        page.clock.run_for(1_000)
        assert page.get_by_role("option").count() == 0
        held[1].continue_()
        page.get_by_role("option", name="status:failed").wait_for()
        assert visit.complaints == []


def test_keys_turn_pages(page):
    first = page.url
    page.keyboard.press("[")
    page.keyboard.press("]")
    page.wait_for_url("**after=*")
    page.keyboard.press("[")
    page.wait_for_url(first)


def test_a_key_reloads_the_page(page):
    with page.expect_navigation():
        page.keyboard.press("r")


def test_a_key_chooses_the_next_theme(page):
    seen = []
    for _ in range(3):
        with page.expect_navigation():
            page.keyboard.press("t")
        seen.append(page.locator("html").get_attribute("data-theme"))
    assert seen == ["light", "dark", "system"]


def test_a_key_shows_the_keys_and_others_rest_until_the_dialog_closes(page):
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    assert dialog.is_visible()
    page.keyboard.press("j")
    assert focused(page)[0] is None
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    page.get_by_text("Display", exact=True).click()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible()


@pytest.mark.parametrize("keys", ["Control+/", "Alt+j", "Meta+j", "Shift+J"])
def test_keys_with_modifiers_are_those_of_the_browser(page, keys):
    page.keyboard.press(keys)
    assert focused(page) == [None, None]


def test_menus_close_by_escape_and_by_a_click_elsewhere(page):
    menu = page.locator("details.menu", has_text="Display")
    for close in (lambda: page.keyboard.press("Escape"), lambda: page.locator("h1").click()):
        menu.locator("summary").click()
        assert menu.get_attribute("open") is not None
        close()
        assert menu.get_attribute("open") is None


def test_relative_times_keep_going(browser, site):
    wrong = datetime(2020, 1, 1, tzinfo=UTC)
    prepare = lambda page: page.clock.install(time=wrong)  # noqa: E731
    with visiting(browser, site(""), prepare=prepare) as visit:
        shown = visit.page.locator("main td time[data-relative]").first
        before = shown.inner_text()
        visit.page.clock.run_for(600_000)
        after = shown.inner_text()
        assert before == "just now" or before.endswith(" s ago")
        assert after in ("10 min ago", "11 min ago", "12 min ago")


def test_the_script_writes_relative_times_as_the_server_does(page):
    ends = [0, 0.5, 1, 59, 60, 90, 119, 120, 3599, 3600, 3660, 7199, 7200, 86_400, 90_000, 172_800]
    lengths = [*ends, *(-each for each in ends)]
    now = datetime(2026, 11, 1, tzinfo=UTC)
    expected = [relative(now - timedelta(seconds=each), now) for each in lengths]
    assert page.evaluate("all => all.map(each => relative(each * 1000))", lengths) == expected


def test_the_browser_suggests_time_zones_and_knows_its_own(browser, site):
    with visiting(browser, site(""), timezone_id="Asia/Tokyo") as visit:
        page = visit.page
        page.get_by_text("Display", exact=True).click()
        page.get_by_label("Named zone").focus()
        assert page.locator("#zones option", has_text="Europe/Berlin").count() == 1
        follow(page.get_by_role("link", name="local", exact=True))
        assert "JST" in page.locator("main time").first.get_attribute("title")


@pytest.mark.parametrize("scripts", [True, False])
@pytest.mark.parametrize(("system", "color"), [("light", LIGHT), ("dark", DARK)])
def test_the_theme_is_that_of_the_system_unless_one_is_chosen(
    browser, site, system, color, scripts
):
    options = {"color_scheme": system, "java_script_enabled": scripts}
    with visiting(browser, site(""), **options) as visit:
        assert background(visit.page) == color
    for chosen, always in (("light", LIGHT), ("dark", DARK)):
        with visiting(browser, site(""), theme=chosen, **options) as visit:
            assert background(visit.page) == always


def test_paper_has_the_light_theme_and_no_menus(browser, site):
    with visiting(browser, site(""), theme="dark") as visit:
        visit.page.emulate_media(media="print")
        assert visit.page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 34, 48)"
        assert visit.page.locator("table.list").is_visible()
        assert not visit.page.locator("nav, form").locator("visible=true").count()


def test_nothing_moves():
    from importlib.resources import files

    static = files("jobhistory.web").joinpath("static")
    styles = [each.read_text() for each in static.iterdir() if each.name.endswith(".css")]
    assert not any("transition" in style or "animation" in style for style in styles)
