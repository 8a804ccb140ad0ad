"""Check the page as URLs of Django, as a program: `python -m tests.web.django_urls`."""

from __future__ import annotations

import asyncio
import tempfile

import django
from django.conf import settings

from jobhistory import InvalidInput, Job, create_async_store, create_store
from tests.web.serving import PREFIX

folder = tempfile.TemporaryDirectory()
settings.configure(
    SECRET_KEY="x",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder.name}/a.db"}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402 - Django is set up before
from django.core.management import call_command  # noqa: E402
from django.test import AsyncClient, Client  # noqa: E402
from django.urls import include, path  # noqa: E402

from jobhistory.web.django import history_urls  # noqa: E402

store = create_store()
patterns = history_urls(store, access=lambda request: request.native.user.is_staff)
urlpatterns = [path(f"{PREFIX[1:]}/", include(patterns))]
BASE = f"{PREFIX}/"


def check_users(client):
    assert client.get(BASE).status_code == 403
    client.force_login(User.objects.create_user("bob"))
    assert client.get(BASE).status_code == 403
    client.force_login(User.objects.create_user("ann", is_staff=True))
    answer = client.get(BASE)
    assert answer.status_code == 200
    assert b"send_email" in answer.content
    assert answer["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert answer["Referrer-Policy"] == "no-referrer"


def check_http(client):
    assert client.get(f"{BASE}static/page.css").status_code == 200
    assert client.get(f"{BASE}%ff%0a").status_code == 404
    assert client.get(f"{BASE}?q=colour:red").status_code == 400
    head = client.head(BASE)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head["Content-Length"]) > 1000
    assert client.get(PREFIX, follow=False)["Location"] == BASE
    answer = client.get(f"{BASE}preferences?theme=dark&zone=UTC&view=tasks")
    assert (answer.status_code, answer["Location"]) == (303, "tasks")
    assert answer.cookies["jobhistory_theme"].value == "dark"
    assert answer.cookies["jobhistory_zone"].value == "UTC"
    assert b'data-theme="dark"' in client.get(f"{BASE}tasks").content
    answer = client.get(f"{BASE}executions.csv")
    assert answer["Content-Disposition"].startswith("attachment")
    assert b"send_email" in b"".join(answer)


async def check_asgi(cookies):
    client = AsyncClient()
    client.cookies = cookies
    assert (await client.get(BASE)).status_code == 200
    answer = await client.get(f"{BASE}executions.csv")
    assert answer.is_async
    assert b"send_email" in b"".join([part async for part in answer.streaming_content])


if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    store.begin(Job("42", "send_email"), "worker-1").end()
    client = Client()
    check_users(client)
    check_http(client)
    asyncio.run(check_asgi(client.cookies))
    try:
        history_urls(create_async_store())
    except InvalidInput as error:
        assert "is for asyncio" in str(error)
    folder.cleanup()
