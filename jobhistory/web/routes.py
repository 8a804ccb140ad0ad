"""The views, by path."""

from __future__ import annotations

from collections.abc import Callable

from jobhistory.web.asking import Steps
from jobhistory.web.context import Context
from jobhistory.web.views.execution import execution, execution_json
from jobhistory.web.views.executions import executions
from jobhistory.web.views.expectations import expectations
from jobhistory.web.views.exports import export_csv, export_json
from jobhistory.web.views.failures import failures
from jobhistory.web.views.grid import grid
from jobhistory.web.views.metrics import metrics
from jobhistory.web.views.news import news
from jobhistory.web.views.preferences import preferences
from jobhistory.web.views.running import running
from jobhistory.web.views.suggest import suggest
from jobhistory.web.views.task import task
from jobhistory.web.views.tasks import tasks
from jobhistory.web.views.workers import workers

VIEWS: dict[str, Callable[[Context], Steps]] = {
    "": executions,
    "executions.csv": export_csv,
    "executions.jsonl": export_json,
    "execution": execution,
    "execution.json": execution_json,
    "news": news,
    "suggest": suggest,
    "tasks": tasks,
    "task": task,
    "failures": failures,
    "running": running,
    "expectations": expectations,
    "grid": grid,
    "workers": workers,
    "metrics": metrics,
    "preferences": preferences,
}
"""For each path below the place where the page is mounted, the view that answers."""
