"""Pieces of the HTML page. An argument named ``..._html`` is markup; every other text is escaped here."""

import re
from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Section(NamedTuple):
    """A part of the page that the list of contents leads to."""

    heading: str
    body_html: str


def section_html(section: Section) -> str:
    """The section with its heading, under a name that links find."""
    heading = escape(section.heading)
    return f'<section id="{anchor(section.heading)}"><h2>{heading}</h2>{section.body_html}</section>'


def contents_html(sections: Sequence[Section]) -> str:
    """Links to the sections."""
    links = "".join(
        f'<li><a href="#{anchor(section.heading)}">{escape(section.heading)}</a></li>' for section in sections
    )
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def anchor(heading: str) -> str:
    """A heading as the name of a place in the page."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def details_html(summary: str, body_html: str, is_open: bool = False) -> str:
    """Something to unfold."""
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>{body_html}</details>"


def figure_html(title: str, drawing_html: str) -> str:
    """A drawing under its title."""
    return f"<figure><figcaption>{escape(title)}</figcaption>{drawing_html}</figure>"


def charts_html(figures_html: Sequence[str]) -> str:
    """Figures beside each other, or nothing."""
    return f'<div class="charts">{"".join(figures_html)}</div>' if figures_html else ""


def table_html(headings: Sequence[str], rows_html: Sequence[str], caption: str) -> str:
    """A table that scrolls by itself where it is wider than the page; ``rows_html`` hold the cells."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(f"<tr>{row}</tr>" for row in rows_html)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def row_heading(text: str, note: str = "") -> str:
    """The first cell of a row, with a quiet line under it."""
    below = f"<small>{escape(note)}</small>" if note else ""
    return f'<th scope="row">{escape(text)}{below}</th>'


def unseen(text: str) -> str:
    """Text for those who hear the page."""
    return f'<span class="unseen">{escape(text)}</span>'
