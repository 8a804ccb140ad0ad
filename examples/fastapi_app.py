"""A FastAPI app whose background tasks are recorded, and that shows its history: JSON and a page.

Install and run it with::

    pip install 'jobhistory[async,web]' 'fastapi[standard]'
    export HISTORY_TOKEN=secret        # what a browser has to know to see the page of history
    fastapi dev fastapi_app.py         # creates fastapi_app.db, an SQLite file, in this folder

and try it from another terminal::

    curl -X POST localhost:8000/orders/1            # a background task ships order 1
    curl -X POST localhost:8000/orders/13           # this one fails
    curl localhost:8000/history                     # the newest executions
    curl 'localhost:8000/history?limit=1'           # a page, with the cursor of the next one
    curl localhost:8000/history/failures            # failures, grouped by message

and in a browser::

    http://localhost:8000/login?token=secret        # leads to the page

For another database, set ``DATABASE_URL``, for example to ``postgresql+psycopg://app@localhost/app``
(with the extra ``postgresql``).
"""

from __future__ import annotations

import asyncio
import hmac
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import uuid4

from fastapi import BackgroundTasks, FastAPI, Header, HTTPException, Query
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from jobhistory import InvalidInput, Job, create_async_store, migrate
from jobhistory.web import Request, asgi_app

engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///fastapi_app.db"))
history = create_async_store(async_sessionmaker(engine), history_retention="90 days")
WORKER = f"{socket.gethostname()}:{os.getpid()}"


class Execution(BaseModel):
    """What the app shows of a history record."""

    model_config = ConfigDict(from_attributes=True)

    job_id: str
    task_identifier: str
    status: str
    started_at: datetime
    execution_time_ms: int | None
    error_type: str | None
    error_message: str | None


class HistoryPage(BaseModel):
    """A page of executions, newest first; `next` is the cursor of the page after it."""

    executions: list[Execution]
    next: str | None


class FailureGroup(BaseModel):
    """Failures of one task whose messages differ only in numbers, ids and quoted values."""

    model_config = ConfigDict(from_attributes=True)

    task_identifier: str
    error_type: str
    message: str
    count: int
    last_seen: datetime


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the table before the first request. In production, let your deployment do that."""
    async with engine.begin() as connection:
        await connection.run_sync(migrate.upgrade)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def ship_order(order: int, job_id: str, request_id: str) -> None:
    """Ship an order in the background. The history has the outcome, whatever it is."""
    job = Job(job_id, "ship_order", {"order": order})
    async with history.track(job, WORKER, correlation_id=request_id):
        await asyncio.sleep(0.01)
        if order == 13:
            raise LookupError(f"there is no order {order}")


@app.post("/orders/{order}", status_code=202)
async def accept_order(
    order: int,
    background: BackgroundTasks,
    x_request_id: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> dict[str, str]:
    """Accept an order. The request id ties the background task to this request."""
    job_id = str(uuid4())
    background.add_task(ship_order, order, job_id, x_request_id or job_id)
    return {"job_id": job_id}


@app.get("/history")
async def list_history(
    after: str | None = None,
    task: str | None = None,
    status: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> HistoryPage:
    """Return a page of executions. Ask with the same task and status for the next one."""
    try:
        page = await history.page(task_identifier=task, status=status, limit=limit, after=after)
    except InvalidInput as error:  # a wrong cursor or status, which the message quotes
        raise HTTPException(422, str(error)) from None
    executions = [Execution.model_validate(record) for record in page.records]
    return HistoryPage(executions=executions, next=page.next_cursor)


@app.get("/history/failures")
async def list_failures(hours: Annotated[int, Query(ge=1, le=24 * 90)] = 24) -> list[FailureGroup]:
    """Return the failures of the last hours, grouped, the most frequent first."""
    groups = await history.failure_groups(from_=datetime.now(UTC) - timedelta(hours=hours))
    return [FailureGroup.model_validate(group) for group in groups]


@app.get("/login")
async def log_in(token: str) -> RedirectResponse:
    """Keep the token as a cookie, and show the page. An app with users has a login in its place."""
    answer = RedirectResponse("/page/")
    answer.set_cookie("history_token", token, httponly=True, samesite="strict")
    return answer


def may_see(request: Request) -> bool:
    """Return whether a request has the right token; nobody has one if none is set."""
    token, given = os.environ.get("HISTORY_TOKEN"), request.cookies.get("history_token", "")
    return token is not None and hmac.compare_digest(given.encode(), token.encode())


app.mount("/page", asgi_app(history, access=may_see))
