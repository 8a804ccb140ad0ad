"""The report on retention rules: how many executions each of them covers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobhistory.execution.retention import Retention, RetentionRule, kept_for


@dataclass(frozen=True)
class RetentionCoverage:
    """How many executions are kept by a rule, and what `expire` would do because of it.

    Attributes:
        rule: the rule; `None` for executions that no rule covers, and for those with a retention of
            their own.
        description: the rule in words.
        covered: the number of executions that it decides about.
        to_change: the number of those whose expiry `expire` would change now.
        to_delete: the number of those that `expire` would delete now.
    """

    rule: RetentionRule | None
    description: str
    covered: int
    to_change: int
    to_delete: int

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, for JSON."""
        return vars(self) | {"rule": None if self.rule is None else self.rule.to_dict()}


OWN = -1
"""The number that stands for executions with a retention of their own."""


def coverages(
    retention: Retention, numbers: Mapping[int, tuple[int, int, int]]
) -> list[RetentionCoverage]:
    """Return the report for the rules of a retention, in order, the default, and all others.

    Args:
        numbers: by the number of the rule, the numbers of executions that are covered, that change,
            and that are deleted.
    """
    subject = "others" if retention.rules else "executions"
    described: list[tuple[int, RetentionRule | None, str]] = [
        *((number, rule, str(rule)) for number, rule in enumerate(retention.rules)),
        (len(retention.rules), None, f"keep {subject} {kept_for(retention.default)}"),
        (OWN, None, "keep executions with a retention of their own until it ends"),
    ]
    return [
        RetentionCoverage(rule, description, *numbers.get(number, (0, 0, 0)))
        for number, rule, description in described
    ]
