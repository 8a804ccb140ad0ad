"""All kinds of stores, with the methods of a `HistoryStore`, for the contract suite."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from jobhistory import AsyncExecution, BaseStore

IN_SESSION = {name for name in dir(BaseStore) if not name.startswith("_")} - {"begin", "track"}


class Committing:
    """A begun execution of a store in a session, whose transaction commits after each call."""

    def __init__(self, execution, session):
        self._execution = execution
        self._session = session

    def __getattr__(self, name):
        return getattr(self._execution, name)

    def end(self, *args, **named):
        with self._session, self._session.begin():
            self._execution.end(*args, **named)

    def heartbeat(self):
        with self._session, self._session.begin():
            self._execution.heartbeat()

    def progress(self, share):
        with self._session, self._session.begin():
            self._execution.progress(share)


class AsyncCommitting(Committing):
    """The same for asyncio."""

    async def end(self, *args, **named):
        async with self._session, self._session.begin():
            await self._execution.end(*args, **named)

    async def heartbeat(self):
        async with self._session, self._session.begin():
            await self._execution.heartbeat()

    async def progress(self, share):
        async with self._session, self._session.begin():
            await self._execution.progress(share)


class InSession:
    """A store that runs each call in a caller's transaction, which commits at once."""

    def __init__(self, store, session_factory=Session):
        self._store = store
        self._session_factory = session_factory

    def begin(self, *args, **named):
        with self._session_factory() as session, session.begin():
            execution = self._store.in_session(session).begin(*args, **named)
        return Committing(execution, session)

    def __getattr__(self, name):
        if name not in IN_SESSION:
            return getattr(self._store, name)

        def in_session(*args, **named):
            with self._session_factory() as session, session.begin():
                result = getattr(self._store.in_session(session), name)(*args, **named)
                # While the session lasts.
                return iter(list(result)) if isinstance(result, Iterator) else result

        return in_session


class AsyncInSession:
    """The same for a store for asyncio."""

    def __init__(self, store, session_factory=AsyncSession):
        self._store = store
        self._session_factory = session_factory

    async def begin(self, *args, **named):
        async with self._session_factory() as session, session.begin():
            execution = await self._store.in_session(session).begin(*args, **named)
        return AsyncCommitting(execution, session)

    def __getattr__(self, name):
        if name not in IN_SESSION:
            return getattr(self._store, name)

        async def in_session(*args, **named):
            async with self._session_factory() as session, session.begin():
                return await _result(getattr(self._store.in_session(session), name)(*args, **named))

        return in_session


async def _result(result):
    """Await what a method of a store for asyncio returned, whatever that is."""
    if isinstance(result, AsyncIterator):
        return iter([each async for each in result])
    return await result if inspect.isawaitable(result) else result


class EventLoop:
    """An event loop in its own thread."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self):
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Synchronous:
    """An object for asyncio whose methods are called without `await`, from any thread."""

    def __init__(self, store, loop):
        self._store = store
        self._loop = loop

    def __getattr__(self, name):
        method = getattr(self._store, name)
        if not callable(method):
            return method

        def call(*args, **named):
            async def awaited():
                return await _result(method(*args, **named))

            result = self._loop.run(awaited())
            has_end = isinstance(result, (AsyncExecution, AsyncCommitting))
            return Synchronous(result, self._loop) if has_end else result

        return call
