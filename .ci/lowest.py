"""Print the oldest version of each dependency that pyproject.toml allows, as pip's constraints.

The tools of the extra `dev` stay at their newest: users of the library never install them.
"""

import re
import tomllib
from pathlib import Path

EXTRAS_OF_USERS = (
    *("archive", "async", "cli", "postgresql"),
    *("apscheduler", "arq", "celery", "django", "dramatiq", "huey"),
    *("otel", "procrastinate", "rq", "taskiq", "web"),
)


def lowest(requirement: str) -> str:
    """Return the oldest version that a requirement allows, as a constraint with its marker."""
    found = re.fullmatch(r"([\w.-]+)(?:\[[\w,.-]+\])?>=([\d.]+)(?:,<[\d.]+)?(;.+)?", requirement)
    if found is None:
        raise SystemExit(f"{requirement!r} in pyproject.toml has no lower bound like 'name>=1.2'")
    return f"{found[1]}=={found[2]}{found[3] or ''}"


project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
requirements = list(project["dependencies"])
for extra in EXTRAS_OF_USERS:
    requirements += project["optional-dependencies"][extra]
print(*sorted({lowest(requirement) for requirement in requirements}), sep="\n")
