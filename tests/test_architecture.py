"""How the modules of the package use each other, and which names apps can rely on."""

from __future__ import annotations

import ast
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

import jobhistory
import jobhistory.typing

PACKAGE = Path(jobhistory.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

PUBLIC = {
    "Alert",
    "AlertCounts",
    "AlertNotSent",
    "Archive",
    "ArchiveError",
    "ArchiveProblem",
    "CommandAlert",
    "EmailAlert",
    "WebhookAlert",
    "print_alert",
    "read_alert_target",
    "AsyncExecution",
    "AsyncFollow",
    "AsyncTrackedExecution",
    "Cancelled",
    "Checked",
    "Count",
    "DeclaredExpectation",
    "Execution",
    "ExecutionAlreadyFinished",
    "ExecutionNotFound",
    "Expectation",
    "Failure",
    "FailureGroup",
    "Follow",
    "HistoryQuery",
    "HistoryRecord",
    "HistoryStore",
    "HistoryUnavailable",
    "Incident",
    "InvalidInput",
    "Job",
    "JobHistoryError",
    "LayoutNotChanged",
    "BaseStore",
    "Limits",
    "LogContext",
    "NotReplayable",
    "NotWritten",
    "Page",
    "PartialResults",
    "Percentiles",
    "Problem",
    "Recorder",
    "RecorderClosed",
    "RecorderCounts",
    "RecorderFull",
    "RetentionCoverage",
    "RetentionRule",
    "SchemaOutOfDate",
    "Severity",
    "StatisticsDenied",
    "Status",
    "Suggestion",
    "TaskStats",
    "TimedOut",
    "TrackedExecution",
    "UnsafeExpiry",
    "Verdict",
    "VerifiedArchive",
    "WaitingForPartition",
    "WorkerActivity",
    "WorkerLost",
    "add_log_context",
    "create_store",
    "current_execution",
    "load_expectations",
    "load_retention_rules",
    "log_context",
    "migrate",
    "new_execution_id",
    "redact_secrets",
}
PUBLIC_FOR_ASYNCIO = {
    "AsyncBaseStore",
    "AsyncHistoryStore",
    "AsyncRecorder",
    "create_async_store",
}
PUBLIC_TYPES = {
    "Clock",
    "CountCriteria",
    "Criteria",
    "Duration",
    "ErrorLike",
    "ExpectationFields",
    "GroupCriteria",
    "Id",
    "IterateCriteria",
    "JobLike",
    "Milliseconds",
    "OnHistoryError",
    "Order",
    "Random",
    "RecordFields",
    "Recorded",
    "Redact",
}

NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
"""Names that Python documents, with an underscore to keep them apart from fields."""

ALLOWED = {
    ("_runtime/commit_hooks.py", "_savepoint"): "no public attribute names open savepoints",
    ("_runtime/commit_hooks.py", "_previous_nested"): "no public attribute links open savepoints",
    ("cli/__init__.py", "_exit"): "the exit handlers of the libraries take long and do nothing",
    ("cli/wrapper/terminal.py", "_exit"): "a fork must not run the exit handlers of its parent",
    ("contrib/huey.py", "_registry"): "Huey has no public list of its tasks",
    (
        "contrib/rq/attempts.py",
        "_result",
    ): "RQ's public attributes ask Redis for the result",
    ("contrib/apscheduler/recording.py", "_executors"): "no public method lists the executors",
    ("migrate.py", "_upgrade_revs"): "Alembic's public commands need its configuration file",
    ("migrate.py", "_downgrade_revs"): "Alembic's public commands need its configuration file",
    ("sanitize/json_values.py", "_mapping"): "SQLAlchemy documents Row._mapping",
}
"""Private names of other libraries that a module uses, and why."""


def private_uses(tree: ast.Module) -> list[tuple[int, str]]:
    """Return where a module uses a private name that it does not define itself."""
    own = set(NAMED_TUPLES)
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                own.add(name)
            case ast.ClassDef(name=name):
                own.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                own.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                continue
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super"))):
                continue
            case ast.Attribute(attr=name) if is_private(name) and name not in own:
                found.append((node.lineno, name))
            case ast.ImportFrom(names=names):
                found += [(node.lineno, each.name) for each in names if is_private(each.name)]
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_uses_no_private_name_of_another(path):
    module = path.relative_to(PACKAGE).as_posix()
    used = private_uses(ast.parse(path.read_text(encoding="utf-8")))
    assert [(line, name) for line, name in used if (module, name) not in ALLOWED] == []


def test_each_exception_is_needed():
    used = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in MODULES
        for _, name in private_uses(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert used >= ALLOWED.keys()


@pytest.mark.parametrize(
    ("code", "is_private_use"),
    [
        ("store._history.write", True),
        ("from jobhistory.store import _before", True),
        ("import jobhistory.store as store\nstore._before()", True),
        ("store._owned_engine = engine", True),
        ("class A:\n    def f(self): return self._x", False),
        ("class A(B):\n    def f(self): return super()._x", False),
        ("class A:\n    def __init__(self): self._x = 1\ndef f(a: A): return a._x", False),
        ("class A:\n    def f(self): return self.store._history", True),
        ("from jobhistory._runtime.ring import RingBuffer", False),
        ("value.__class__", False),
        ("row._replace(a=1)", False),
    ],
)
def test_what_counts_as_a_private_use(code, is_private_use):
    assert bool(private_uses(ast.parse(code))) == is_private_use


def test_the_public_names():
    assert set(jobhistory.__all__) == PUBLIC
    assert all(hasattr(jobhistory, name) for name in PUBLIC | PUBLIC_FOR_ASYNCIO)


def test_names_are_imported_at_first_use_from_where_type_checkers_see_them():
    seen, tables = {}, {}
    for node in ast.walk(ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))):
        match node:
            case ast.ImportFrom(module=str(module)) if module.startswith("jobhistory."):
                names = seen.setdefault(module.removeprefix("jobhistory."), [])
                names += [each.name for each in node.names]
            case ast.Assign(targets=[ast.Name(id="_MODULES" | "_ASYNC_MODULES" as table)]):
                tables[table] = ast.literal_eval(node.value)
    named = {table: {*chain.from_iterable(names.values())} for table, names in tables.items()}
    assert named == {"_MODULES": PUBLIC - {"migrate"}, "_ASYNC_MODULES": PUBLIC_FOR_ASYNCIO}
    assert tables["_MODULES"] | tables["_ASYNC_MODULES"] == seen


def test_the_names_that_are_not_imported_yet_are_listed():
    code = "import jobhistory; print(*dir(jobhistory))"
    listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert set(listed.split()) >= PUBLIC | PUBLIC_FOR_ASYNCIO


def test_no_module_has_the_name_of_something_else_that_is_public():
    """Its first import would put the module in the place of the function."""
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert modules & (PUBLIC | PUBLIC_FOR_ASYNCIO) == {"migrate"}


def test_the_public_types():
    source = ast.parse(Path(jobhistory.typing.__file__).read_text(encoding="utf-8"))
    aliases = {node.target.id for node in source.body if isinstance(node, ast.AnnAssign)}
    classes = {node.name for node in source.body if isinstance(node, ast.ClassDef)}
    assert {name for name in aliases | classes if not is_private(name)} == PUBLIC_TYPES
