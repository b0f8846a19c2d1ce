"""Every page of the built book in Chromium, from the disk and from a server: nothing else is asked for."""

import pytest
import yaml

from tests.browser import PAYLOAD, Tab
from tests.conftest import ROOT

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]

# What each live figure of a page has drawn: the pixels of its canvases, and its elements with their colours.
DRAWN = """[...document.querySelectorAll(".mx")].map(
  (figure) => [...figure.querySelectorAll("canvas")].map((canvas) => canvas.toDataURL()).join() + figure.innerHTML
)"""

each_page = pytest.mark.parametrize("name", PAGES)


def page_text(book, name):
    return (book / f"{name}.html").read_text(encoding="utf-8")


def assert_alive(page):
    """Every live figure of the page has its controls, and none shows a sentence about what went wrong."""
    figures = page.locator(".mixer-figure")
    for i in range(figures.count()):
        assert figures.nth(i).locator(".mx canvas, .mx svg").count(), i
        assert figures.nth(i).locator("[role=alert]").count() == 0, i
        assert not figures.nth(i).locator(".mixer-still").is_visible()


@each_page
def test_it_opens_from_the_disk_and_from_a_server(browser, home, name):
    tab = Tab(browser, home)
    page = tab.open(f"{home}{name}.html")
    assert_alive(page)
    assert page.locator("span.math, div.math").count() == page.locator("mjx-container").count()  # mathematics is set
    page.close()
    assert tab.problems == []


@each_page
def test_it_fits_a_narrow_screen_light_and_dark(browser, book, name):
    tab = Tab(browser, viewport={"width": 390, "height": 800}, color_scheme="light")
    page = tab.open(book / f"{name}.html")
    pictures = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        pictures[scheme] = page.evaluate(DRAWN)
        assert_alive(page)
    changed = [light != dark for light, dark in zip(pictures["light"], pictures["dark"], strict=True)]
    assert all(changed) or "PatchExplorer" in page_text(book, name)  # it draws only the numbers of the image
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
def test_a_figure_with_damaged_state_leaves_the_others_alive(tab, book, name):
    html = (book / f"{name}.html").read_text(encoding="utf-8")
    payloads = PAYLOAD.findall(html)
    if not payloads:
        return
    broken = html.replace(payloads[0], payloads[0][: len(payloads[0]) // 2], 1)
    place = (book / name).with_name("broken.html")  # beside the page, as its links are relative
    place.write_text(broken, encoding="utf-8")
    page = tab.open(place)
    figures = page.locator(".mixer-figure")
    assert figures.nth(0).locator("[role=alert]").is_visible()
    assert figures.nth(0).locator(".mixer-still").is_visible()
    for i in range(1, figures.count()):
        assert figures.nth(i).locator(".mx canvas").count()


# What a live figure shows beside its controls: the pixels of its canvases, its elements with their colours and words.
SHOWN = """(figure) => {
  const rest = figure.cloneNode(true);
  rest.querySelectorAll(".mx-control").forEach((control) => control.remove());
  return [...figure.querySelectorAll("canvas")].map((canvas) => canvas.toDataURL()).join() + rest.innerHTML;
}"""


def work(control):
    """Work a control with the keyboard; a list is set, as its menu is the system's own. False if it has one value."""
    kind = control.evaluate("(control) => control.type")
    if kind == "range":
        low, value, high = control.evaluate("({ min, value, max }) => [min, value, max].map(Number)")
        control.press("ArrowLeft" if value == high else "ArrowRight")
        return low < high
    if kind == "select-one":
        control.select_option(index=control.evaluate("(list) => (list.selectedIndex + 1) % list.options.length"))
    else:
        control.press("Space")
    return control.get_attribute("aria-pressed") != "true" or kind != "button"


@each_page
def test_every_control_of_every_figure_changes_what_is_shown(tab, book, name):
    page = tab.open(book / f"{name}.html")
    for figure in page.locator(".mx").all():
        for control in figure.locator("input:not([type=radio]), select, button").all():
            before = figure.evaluate(SHOWN)
            if work(control):
                page.wait_for_timeout(100)
                assert figure.evaluate(SHOWN) != before, control.evaluate("(control) => control.outerHTML")
