"""A small Django app with tasks, for the tests of the adapter."""

from __future__ import annotations

import django

HAS_TASKS = django.VERSION[0] >= 6
PACKAGE = "django.tasks" if HAS_TASKS else "django_tasks"
IMMEDIATE = f"{PACKAGE}.backends.immediate.ImmediateBackend"
APPS = ["shop", *([] if HAS_TASKS else ["django_tasks"]), "jobhistory.contrib.django"]

TASKS = (
    f"from {PACKAGE} import task\n"
    + """
import asyncio, os, sys, threading, time
from jobhistory import Cancelled, current_execution
from jobhistory.contrib.django import link

class Unprintable(Exception):
    def __init__(self, lock):
        self.lock = lock
    def __str__(self):
        raise RuntimeError("no text")
    __reduce__ = __repr__ = __str__

@task
def add(a, b=1):
    return a + b

@task
def fail(text="no such order"):
    raise LookupError(text)

@task
def leave():
    sys.exit(3)

@task
def interrupt():
    raise KeyboardInterrupt

@task
def unprintable():
    raise Unprintable(threading.Lock())

@task
def cancel():
    raise Cancelled("sold out")

@task
async def wait(seconds=0):
    await asyncio.sleep(seconds)
    return str(current_execution().correlation_id)

@task(takes_context=True)
def attempt(context):
    return context.attempt

@task
def sleep(seconds):
    time.sleep(seconds)

@task
def order(number):
    ship.enqueue(number)

@task
def order_linked(number):
    ship.enqueue(number, **link())

@task
def ship(number):
    pass
"""
)


def write_package(folder):
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "tasks.py").write_text(TASKS)
    return folder
