"""How Sphinx builds the documentation.

In a checkout with the extra `docs`::

    python -m sphinx -W --keep-going -b html docs docs/_build/html

Neither the build nor the pages need a network.
"""

import sys
from pathlib import Path

import jobhistory

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "jobhistory"
author = "the authors of jobhistory"
version = release = jobhistory.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "myst_parser",
    "command_line",
    "docstrings",
    "public_names",
]
exclude_patterns = ["_build", "images", "inventories"]
source_suffix = {".md": "markdown"}

# Docstrings mark names, arguments and values with single backticks. Those that name a documented
# object become links.
default_role = "py:obj"
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", "(?s).*"),
    ("py:class", r"jobhistory(\.\w+){2,}"),  # classes that only annotations name
    ("py:class", r"(opentelemetry|django)\..*"),  # they have no inventory here
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
maximum_signature_line_length = 60
add_module_names = False
toc_object_entries_show_parents = "hide"
smartquotes = False  # they would change options and arguments
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_param = False
napoleon_use_rtype = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# The inventories are files, so nothing is fetched. `inventories/make.py` makes them.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", str(HERE / "inventories/python.inv")),
    "sqlalchemy": (
        "https://docs.sqlalchemy.org/en/21",
        str(HERE / "inventories/sqlalchemy.inv"),
    ),
}

html_theme = "furo"
html_title = "jobhistory"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
pygments_style = "default"
pygments_dark_style = "github-dark"
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#0f6674",
        "color-brand-content": "#0f6674",
    },
    "dark_css_variables": {
        "color-brand-primary": "#5cc4d4",
        "color-brand-content": "#5cc4d4",
    },
}
