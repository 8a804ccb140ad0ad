"""Bodies that are sent while they are made, so that they take little memory at any length."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TypeVar

from jobhistory.web.http import Body

T = TypeVar("T")

_BATCH = 100

Encode = Callable[[list[T]], bytes]


def encoded(items: Iterable[T] | AsyncIterable[T], encode: Encode[T], header: bytes) -> Body:
    """Return a header and what `encode` makes of the items, in batches.

    It is an asynchronous iterator if the items are. An error ends it, so that a reader can tell
    that items are missing.
    """
    if isinstance(items, AsyncIterable):
        return _encoded_async(items, encode, header)
    return _encoded(iter(items), encode, header)


def _encoded(items: Iterator[T], encode: Encode[T], header: bytes) -> Iterator[bytes]:
    yield header + encode(list(islice(items, _BATCH)))
    while batch := list(islice(items, _BATCH)):
        yield encode(batch)


async def _encoded_async(
    items: AsyncIterable[T], encode: Encode[T], header: bytes
) -> AsyncIterator[bytes]:
    batch: list[T] = []
    async for item in items:
        batch.append(item)
        if len(batch) == _BATCH:
            yield header + encode(batch)
            header, batch = b"", []
    if header or batch:
        yield header + encode(batch)


def started(body: Body) -> Body:
    """Return a body whose first part is there, unless making it raises.

    Errors are then known before anything is sent.
    """
    if isinstance(body, (bytes, AsyncIterable)):
        return body
    parts = iter(body)
    return chain([next(parts, b"")], parts)


async def started_async(body: Body) -> Body:
    """Return a body whose first part is there, as `started` does."""
    if not isinstance(body, AsyncIterable):
        return started(body)
    parts = aiter(body)
    return _after(await anext(parts, b""), parts)


async def _after(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in others:
        yield part
