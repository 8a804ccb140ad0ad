"""Questions that views ask of a store, and how they are answered with and without asyncio.

A view is a generator: it yields questions, and gets their answers. So the same view works on a
store for threads and on one for asyncio.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from jobhistory.query.criteria import HistoryQuery
from jobhistory.web.http import Answer


@dataclass(frozen=True)
class Ask:
    """A call of a method of the store.

    Attributes:
        method: the name of the method.
        arguments: its positional arguments, most often one `HistoryQuery`.
        options: its keyword arguments.
        reads: what the database reads for it, in a few words; viewers see it.
    """

    method: str
    arguments: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    reads: str = ""

    @property
    def query(self) -> HistoryQuery | None:
        """The criteria; `None` if the question has none."""
        first = self.arguments[0] if self.arguments else None
        return first if isinstance(first, HistoryQuery) else None


@dataclass(frozen=True)
class Asked:
    """A question that was answered, and the time that took."""

    ask: Ask
    milliseconds: float


Steps: TypeAlias = Generator[Ask, Any, Answer]
"""A view at work: it yields questions, gets their answers, and returns what answers the request."""

Receive: TypeAlias = Callable[[Ask, Any, float], Any]
"""Gets a question, its answer and the time in milliseconds; returns what the view gets."""


def ask(method: str, *arguments: Any, reads: str = "", **options: Any) -> Ask:
    """Return a call of a method of the store, for a view to yield."""
    return Ask(method, arguments, options, reads)


def run(store: Any, steps: Steps, receive: Receive) -> Answer:
    """Run a view on a store for threads."""
    try:
        question = next(steps)
        while True:
            started = time.perf_counter()
            try:
                value = _call(store, question)
            except Exception as error:
                question = steps.throw(error)
                continue
            question = steps.send(receive(question, value, _since(started)))
    except StopIteration as stop:
        answer: Answer = stop.value
        return answer


async def run_async(store: Any, steps: Steps, receive: Receive) -> Answer:
    """Run a view on a store for asyncio."""
    try:
        question = next(steps)
        while True:
            started = time.perf_counter()
            try:
                value = _call(store, question)
                if isinstance(value, Awaitable):
                    value = await value
            except Exception as error:
                question = steps.throw(error)
                continue
            question = steps.send(receive(question, value, _since(started)))
    except StopIteration as stop:
        answer: Answer = stop.value
        return answer


def _call(store: Any, question: Ask) -> Any:
    return getattr(store, question.method)(*question.arguments, **question.options)


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
