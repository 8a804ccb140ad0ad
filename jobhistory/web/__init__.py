"""A read-only web page of job history, which any ASGI or WSGI app can mount.

::

    from jobhistory.web import asgi_app

    app.mount("/history", asgi_app(store, access=lambda request: is_staff(request)))

It shows nothing until `access=` says who may see what.
"""

from __future__ import annotations

try:
    import jinja2  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "the web page requires pip install 'jobhistory[web]'", name=error.name
    ) from None

from jobhistory.web.access import Access, AccessCallback
from jobhistory.web.http import Answer, Request
from jobhistory.web.links import Links
from jobhistory.web.page import HistoryPage
from jobhistory.web.settings import Present
from jobhistory.web.shells import asgi_app, wsgi_app

__all__ = [
    "Access",
    "AccessCallback",
    "Answer",
    "HistoryPage",
    "Links",
    "Present",
    "Request",
    "asgi_app",
    "wsgi_app",
]
