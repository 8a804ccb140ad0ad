"""Link the types in signatures under the names that people import them by.

Annotations name a class by the module that defines it, such as `sqlalchemy.orm.session.Session` or
`jobhistory.query.reports.TaskStats`. The documentation describes it as `sqlalchemy.orm.Session` and
`jobhistory.TaskStats`.
"""

from __future__ import annotations

import importlib
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext import intersphinx

PUBLIC_MODULES = (
    "jobhistory",
    "jobhistory.contrib.adapter",
    "jobhistory.contrib.replay",
    "jobhistory.web",
    "sqlalchemy.orm",
    "sqlalchemy.engine",
    "sqlalchemy.ext.asyncio",
)


def public_name(name: str) -> str | None:
    """Return the name under which a public module exports a class; `None` if none does."""
    module_name, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError):
        return None
    for name in PUBLIC_MODULES:
        module = importlib.import_module(name)
        is_exported = attribute in getattr(module, "__all__", [attribute])
        if is_exported and getattr(module, attribute, None) is found:
            return f"{name}.{attribute}"
    return None


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> Any:
    """Resolve a reference under the public name, here or in another project's inventory."""
    if node.get("refdomain") != "py":
        return None
    name = public_name(node["reftarget"])
    if name is None or name == node["reftarget"]:
        return None
    node["reftarget"], kind = name, node["reftype"]
    ours = env.domains["py"].resolve_xref(
        env, node["refdoc"], app.builder, kind, name, node, text
    )
    return ours or intersphinx.missing_reference(app, env, node, text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the resolver."""
    app.connect("missing-reference", resolve, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
