"""The built book, opened from the disk in Chromium: nothing leaves the disk, nothing fails, every figure is alive."""

import json
import re

import pytest
import yaml

from tests.browser import Tab
from tests.conftest import ROOT

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(chapter["file"] for chapter in TOC["chapters"])]
PAYLOAD = re.compile(r'<div class="mixer-figure">.*?<script type="application/json">(.*?)</script>', re.DOTALL)

each_page = pytest.mark.parametrize("name", PAGES)


def assert_alive(page):
    """Every live figure of the page has its controls, and none shows a sentence about what went wrong."""
    figures = page.locator(".mixer-figure")
    for i in range(figures.count()):
        assert figures.nth(i).locator(".mx canvas, .mx svg").count(), i
        assert figures.nth(i).locator("[role=alert]").count() == 0, i
        assert not figures.nth(i).locator(".mixer-still").is_visible()


@each_page
def test_it_opens_from_the_disk(tab, book, name):
    page = tab.open(book / f"{name}.html")
    page.wait_for_load_state("networkidle")
    assert_alive(page)
    assert page.locator("span.math, div.math").count() == page.locator("mjx-container").count()  # mathematics is set


@each_page
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_screen(browser, book, name, scheme):
    tab = Tab(browser, viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page = tab.open(book / f"{name}.html")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    assert_alive(page)
    page.close()
    assert tab.problems == []


@each_page
def test_without_scripts_it_shows_still_pictures(browser, book, name):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((book / f"{name}.html").as_uri())
    for still in page.locator(".mixer-still").all():
        assert still.is_visible()
        picture = still.locator("img")
        assert picture.bounding_box()["width"] > 100
        assert len(picture.get_attribute("alt").split()) >= 5
        assert "still picture" in still.inner_text()
    context.close()


@each_page
def test_it_is_light(book, name):
    """A page, beyond the theme's own files, and without its figures' files, weighs 1 MB at the most."""
    assert (book / f"{name}.html").stat().st_size <= 1_000_000


@each_page
def test_a_figure_with_damaged_state_leaves_the_others_alive(tab, book, tmp_path, name):
    html = (book / f"{name}.html").read_text(encoding="utf-8")
    payloads = PAYLOAD.findall(html)
    if not payloads:
        return
    broken = html.replace(payloads[0], payloads[0][: len(payloads[0]) // 2], 1)
    (book / "broken.html").write_text(broken, encoding="utf-8")
    page = tab.open(book / "broken.html")
    page.wait_for_load_state("networkidle")
    figures = page.locator(".mixer-figure")
    assert figures.nth(0).locator("[role=alert]").is_visible()
    assert figures.nth(0).locator(".mixer-still").is_visible()
    for i in range(1, figures.count()):
        assert figures.nth(i).locator(".mx canvas").count()
    (book / "broken.html").unlink()


def test_the_book_holds_every_kind_of_figure(book):
    modules = [json.loads(payload)["module"] for name in PAGES for payload in PAYLOAD.findall(page_text(book, name))]
    for kind in ("PatchExplorer", "TokenMixingExplorer", "MixerFlow", "ConvolutionTwin"):
        assert any(f"// {kind}: " in module for module in modules), kind
    assert "MixerFlow" in page_text(book, TOC["root"])


def page_text(book, name):
    return (book / f"{name}.html").read_text(encoding="utf-8")
