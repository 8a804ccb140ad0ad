"""Brokers for the tests of adapters. What a machine lacks is skipped, with the reason."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

REDIS_VARIABLE = "JOBHISTORY_TEST_REDIS_URL"
RABBITMQ_VARIABLE = "JOBHISTORY_TEST_RABBITMQ_URL"
FIRST_DATABASE = 8
"""The first of Redis's 16 databases that tests use. Each process of pytest-xdist uses another."""


@pytest.fixture
def redis_url(worker_id: str) -> Iterator[str]:
    """The URL of a Redis database that is empty, and is emptied after the test."""
    redis = pytest.importorskip("redis")
    server = os.environ.get(REDIS_VARIABLE, "redis://127.0.0.1:6379")
    number = int(worker_id.removeprefix("gw")) if worker_id.startswith("gw") else 7
    url = f"{server}/{FIRST_DATABASE + number % 8}"
    client = redis.Redis.from_url(url)
    try:
        size = client.dbsize()
    except redis.ConnectionError as error:
        pytest.skip(f"no Redis: {error}; set {REDIS_VARIABLE}")
    assert size == 0, f"{url} has data, which the tests would remove; set {REDIS_VARIABLE}"
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


@pytest.fixture
def unique() -> str:
    """A name that no other test uses, for queues and jobs."""
    return f"jobhistory_{uuid.uuid4().hex[:12]}"
