"""How Sphinx builds these pages."""

import re
from importlib import metadata

project = "fieldcast"
author = "The fieldcast developers"
release = metadata.version("fieldcast")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "decisions"]
html_theme = "furo"
html_title = f"fieldcast {release}"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

CODE = re.compile(r"(``[^`]+``|`[^`]+`)")
MARKUP = re.compile(r"[*_|\\]")


def escape_docstring(app, what, name, source, options, lines) -> None:
    """Docstrings are plain text: outside of ``code``, ``|e|`` and ``a_i`` mean themselves."""
    lines[:] = ["".join(_escape(part) for part in CODE.split(line)) for line in lines]


def _escape(part: str) -> str:
    if CODE.fullmatch(part):
        return f"``{part.strip('`')}``"
    return MARKUP.sub(r"\\\g<0>", part)


def setup(app) -> None:
    """Escape before napoleon adds markup of its own."""
    app.connect("autodoc-process-docstring", escape_docstring, priority=400)
