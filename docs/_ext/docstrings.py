"""What Sphinx needs to know about the docstrings of this project."""

from __future__ import annotations

import inspect
import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

# A default that is, or contains, a constant: `8 * _MIB`.
CONSTANT = re.compile(r"(?<= = )(?:(\d+) \* )?(_?[A-Z][A-Z_]{2,})\b")
SEVERAL_NAMES = re.compile(r"^( {4}\w+(?:, \w+)+): ")
FROM = re.compile(r"^( {4}from)_(?=: )")
# Sphinx takes the first of two words in front of a colon for a type, drops the underscore at the
# end of a name, and takes what is in front of a colon below "Returns:" for a type. These characters
# stand in for the space, the underscore and the colon.
JOINT = "\N{BRAILLE PATTERN BLANK}"
UNDERSCORE = "\N{FULLWIDTH LOW LINE}"
COLON = "\N{FULLWIDTH COLON}"
DASH = re.compile(r"^ -- ")  # what Sphinx writes behind the name of an argument
STAND_INS = str.maketrans({JOINT: " ", UNDERSCORE: "_", COLON: ":"})


def join_names(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Keep together names that one sentence describes, as in `job_id, worker_id: the ids`.

    Keep the sentence below "Returns:" a sentence, too.
    """
    for number, line in enumerate(lines):
        if lines[number - 1 : number] == ["Returns:"]:
            lines[number] = line.replace(":", COLON)
            continue
        lines[number] = FROM.sub(rf"\1{UNDERSCORE}", line)
        if names := SEVERAL_NAMES.match(line):
            lines[number] = (
                names[1][:4]
                + names[1][4:].replace(" ", JOINT)
                + line[names.end(1) :]
            )


def finish_names(app: Sphinx, tree: nodes.document) -> None:
    """Restore spaces and underscores, and replace two of Sphinx's own texts."""
    for text in list(tree.findall(nodes.Text)):
        new = "Attributes" if text == "Variables" else text.translate(STAND_INS)
        new = DASH.sub(" \N{EN DASH} ", new)
        if new != text:
            text.parent.replace(text, nodes.Text(new))


def shorten_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: Any,
    returns: Any,
) -> tuple[Any, Any]:
    """Leave out how to make what the library makes, and that a generic method returns `R_co`.

    A default that is a constant of the module is replaced with its value.
    """
    if signature and (
        what == "exception" or (what == "class" and signature == "()")
    ):
        return "", None
    if signature and what in ("class", "function", "method"):
        function = obj.__init__ if isinstance(obj, type) else obj
        values = getattr(inspect.unwrap(function), "__globals__", {})
        signature = CONSTANT.sub(
            lambda found: _shown(values[found[2]], int(found[1] or 1)), signature
        )
    return signature, None if returns and returns.endswith("R_co") else returns


def _shown(constant: Any, factor: int) -> str:
    return repr(constant) if isinstance(constant, str) else f"{factor * constant:_}"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the functions; the first one has to run before napoleon."""
    app.connect("autodoc-process-docstring", join_names, priority=100)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("doctree-read", finish_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
