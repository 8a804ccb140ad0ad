"""A browser, and a site with a history for it. Both last for one module."""

import pytest

from tests.web.browsing import find_chromium, path_of, running_browser
from tests.web.histories import fill
from tests.web.serving import in_starlette


@pytest.fixture(scope="module")
def browser():
    try:
        find_chromium()
    except LookupError as error:
        pytest.skip(str(error))
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    url = f"sqlite:///{tmp_path_factory.mktemp('history')}/history.db"
    return url, fill(url)


@pytest.fixture(scope="module")
def site(history):
    """Returns the URL of a view below a prefix."""
    url, ids = history
    with in_starlette(url) as base:
        yield lambda view: base + path_of(view, ids)
