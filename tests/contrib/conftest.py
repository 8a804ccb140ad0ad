"""Brokers for the tests of adapters. What a machine lacks is skipped, with the reason."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from tests.servers import running_redis

RABBITMQ_VARIABLE = "JOBHISTORY_TEST_RABBITMQ_URL"
FIRST_DATABASE = 8
"""The first of Redis's 16 databases that tests use. Each process of pytest-xdist uses another."""


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    with ExitStack() as stack:
        try:
            url = stack.enter_context(running_redis())
        except LookupError as error:
            pytest.skip(f"no Redis: {error}")
        yield url


@pytest.fixture
def redis_url(redis_server: str, worker_id: str) -> Iterator[str]:
    """The URL of a Redis database that is empty, and is emptied after the test."""
    redis = pytest.importorskip("redis")
    number = int(worker_id.removeprefix("gw")) if worker_id.startswith("gw") else 7
    url = f"{redis_server}/{FIRST_DATABASE + number % 8}"
    client = redis.Redis.from_url(url)
    assert client.dbsize() == 0, f"{url} has data, which the tests would remove"
    yield url
    client.flushdb()
    client.close()


@pytest.fixture(scope="session")
def rabbitmq_url() -> str:
    """The URL of a RabbitMQ. Tests use queues whose names contain `unique`, and delete them."""
    url = os.environ.get(RABBITMQ_VARIABLE, "amqp://guest:guest@127.0.0.1:5672//")
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 5672), timeout=3).close()
    except OSError as error:
        pytest.skip(f"no RabbitMQ: {error}; set {RABBITMQ_VARIABLE}")
    return url


@pytest.fixture(autouse=True)
def celery_shares_no_tasks() -> Iterator[None]:
    """Celery adds the tasks of an app to all apps of the process, also to those of later tests."""
    if "celery" not in sys.modules:
        yield
        return
    from celery import _state
    from celery.app import builtins  # noqa: F401 - it adds the tasks that all apps need

    shared = set(_state._on_app_finalizers)
    yield
    _state._on_app_finalizers.clear()
    _state._on_app_finalizers.update(shared)


@pytest.fixture
def unique() -> str:
    """A name that no other test uses, for queues and jobs."""
    return f"jobhistory_{uuid.uuid4().hex[:12]}"
