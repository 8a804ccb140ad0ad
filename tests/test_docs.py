"""The documentation names what there is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_test_that_the_fault_table_names_exists():
    file, named = "", []
    for name, test in re.findall(
        r"`(\w+\.py)?(?:::([\w:]+))?`", (ROOT / "docs/faults.md").read_text()
    ):
        file = name or file
        if test:
            named.append((file, test.rpartition("::")[2]))

    missing = [
        f"{file}::{test}"
        for file, test in named
        if f"def {test}(" not in (ROOT / "tests" / file).read_text()
    ]
    assert missing == []
    assert len(named) > 40
