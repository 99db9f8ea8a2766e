"""A page as one file: its style and script inside, and a policy that admits nothing else."""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template

from fieldcast.report.elements import Section, contents_html, section_html
from fieldcast.report.series import stroke_styles

SCRIPTS = ("player.js", "maps.js", "charts.js", "page.js")


def document_html(title: str, header_html: str, sections: Sequence[Section]) -> str:
    """The whole page: title, header, links to the sections that have a body, and these sections."""
    style = _asset("page.css") + _asset("maps.css") + stroke_styles()
    script = "".join(_asset(name) for name in SCRIPTS)
    shown = [section for section in sections if section.body_html]
    return Template(_asset("template.html")).substitute(
        title=escape(title),
        verdict=header_html,
        contents=contents_html(shown),
        sections="".join(section_html(section) for section in shown),
        style=style,
        script=script,
        style_hash=_content_hash(style),
        script_hash=_content_hash(script),
    )


def _asset(name: str) -> str:
    return (files("fieldcast.report") / name).read_text(encoding="utf-8")


def _content_hash(text: str) -> str:
    """The name that a content security policy knows an inline script or style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
