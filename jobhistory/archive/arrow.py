"""The functions of `pyarrow.compute`, most of which it makes when it is imported.

So type checkers do not find them there.
"""

from __future__ import annotations

from typing import Any

import pyarrow.compute

compute: Any = pyarrow.compute
