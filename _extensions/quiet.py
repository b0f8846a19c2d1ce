"""Sphinx extension: pages that open from the disk without an error in the browser's console."""

from pathlib import Path

from sphinx.application import Sphinx


def without_font_preloads(app: Sphinx, error: Exception | None) -> None:
    """Take the theme's preloading of its icon fonts out of every page.

    A browser refuses it for a page on the disk, and logs an error for each font; the fonts themselves load as usual.
    """
    if error or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.lstrip().startswith('<link rel="preload" as="font"')]
        if len(kept) < len(lines):
            page.write_text("".join(kept), encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.connect("build-finished", without_font_preloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
