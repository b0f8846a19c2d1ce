"""Sphinx extension: changes to finished pages, for fewer requests, for screen readers and for the reader's answers."""

import html as markup
import json
import re
from pathlib import Path

from sphinx.application import Sphinx

QUESTION = re.compile(r'<details class="predict"|<div class="answer"')
CELL, NAME = re.compile(r"<td\b.*?</td>", re.DOTALL), re.compile(r'(?<=<span class="pre">)[^<]+')
SIGNATURE = re.compile(r"<dl>\n((?:<dd>.*</dd>\n)+)</dl>")  # one argument a line


def without_font_preloads(html: str) -> str:
    """A browser refuses the theme's preloading of its icon fonts for a page on the disk, and logs an error for each.

    The fonts themselves load as usual.
    """
    return re.sub(r'\n\s*<link rel="preload" as="font".*', "", html)


def with_plain_roles(html: str) -> str:
    """Long signatures are no lists of definitions, and the role of an entry in the references was given up."""

    def lines(match: re.Match) -> str:
        arguments = match[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
        return f'<span class="sig-lines">\n{arguments}</span>'

    return SIGNATURE.sub(lines, html).replace('role="doc-biblioentry"', 'role="listitem"')


def with_breaks(html: str) -> str:
    """On a phone a name in a table ends a line after a dot, a slash or a low line, and not within a word."""

    def broken(cell: re.Match) -> str:
        return NAME.sub(lambda name: re.sub(r"(?<=\w)([./_])(?=\w)", r"\1<wbr>", name[0]), cell[0])

    return CELL.sub(broken, html)


def with_totals(html: str, totals: dict[str, int]) -> str:
    """The introduction says how many of each chapter's questions were answered: _static/questions.js."""
    marker, data = '<div class="reader-answers"', markup.escape(json.dumps(totals))
    return html.replace(f"{marker}>", f'{marker} data-totals="{data}">')


def finish(app: Sphinx, error: Exception | None) -> None:
    """Rewrite the pages that are not yet as they should be."""
    if error or app.builder.format != "html":
        return
    pages = {page: page.read_text(encoding="utf-8") for page in sorted(Path(app.outdir).rglob("*.html"))}
    counts = {page.stem: len(QUESTION.findall(html)) for page, html in pages.items()}
    totals = {name: count for name, count in counts.items() if count}
    for page, html in pages.items():
        finished = with_totals(with_breaks(with_plain_roles(without_font_preloads(html))), totals)
        if finished != html:
            page.write_text(finished, encoding="utf-8")


def load_all(app: Sphinx) -> None:
    """In the book as one page, load what any chapter needs: Sphinx asks the first alone whether it has mathematics."""
    if app.builder.name == "singlehtml":
        app.set_html_assets_policy("always")


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", load_all)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
