"""Every page of the built book in Chromium: wide and from the disk, narrow and from a server, and without scripts.

A page is opened once in each of these ways, and nothing but its home is asked for.
"""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from _extensions.chromium import PAYLOAD, Tab, remember, settle, wait_until_changed

# What each live figure of a page has drawn: the pixels of its canvases, and its elements with their colours.
DRAWN = """[...document.querySelectorAll(".mx")].map(
  (figure) => [...figure.querySelectorAll("canvas")].map((canvas) => canvas.toDataURL()).join() + figure.innerHTML
)"""

SEVERE = ("serious", "critical")


def assert_alive(page):
    """Every live figure of the page has its controls, and none shows a sentence about what went wrong."""
    figures = page.locator(".mixer-figure")
    for i in range(figures.count()):
        assert figures.nth(i).locator(".mx canvas, .mx svg").count(), i
        assert figures.nth(i).locator("[role=alert]").count() == 0, i
        assert not figures.nth(i).locator(".mixer-still").is_visible()


CODE_THAT_SCROLLS = """
  [...document.querySelectorAll("div.cell_input pre")]
    .filter((code) => code.scrollWidth > code.clientWidth + 1)
    .map((code) => code.textContent)
"""


@pytest.fixture(scope="module")
def on_disk(browser, book, name):
    """A page opened from the disk in a wide window."""
    tab = Tab(browser, color_scheme="light", reduced_motion="reduce")  # a figure that plays would change by itself
    yield tab.open(book / f"{name}.html")
    tab.page.close()
    assert tab.problems == []


@pytest.fixture(scope="module")
def on_server(browser, server, name):
    """A page opened from a web server in a narrow window."""
    tab = Tab(browser, server, viewport={"width": 390, "height": 800}, color_scheme="light")
    yield tab.open(f"{server}{name}.html")
    tab.page.close()
    assert tab.problems == []


# Ends all fading, and says whether there was none. To wait for its end is not enough: Chromium may never tell of it.
UNFADED = "() => document.getAnimations().map((fading) => fading.finish()).length === 0"


def set_theme(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
    settle(page)
    page.wait_for_function(UNFADED)


def assert_whole(page):
    assert_alive(page)
    assert page.locator("span.math, div.math").count() == page.locator("mjx-container").count()  # mathematics is set


def test_it_opens_from_the_disk(on_disk):
    assert_whole(on_disk)


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


def test_every_control_of_every_figure_changes_what_is_shown(on_disk):
    for figure in on_disk.locator(".mx:not(.mx-lab)").all():  # the laboratory has its own tests
        for control in figure.locator("summary, input:not([type=radio]), select, button").all():
            remember(figure)
            if work(control):
                wait_until_changed(figure, control.evaluate("(control) => control.outerHTML"))


# Of code and signatures, one span of each kind is enough: there are thousands, and a kind has one colour.
ONE_OF_A_KIND = """() => {
  const seen = new Set();
  for (const span of document.querySelectorAll(".highlight span, .sig span")) {
    const kind = `${span.parentElement.className} > ${span.className}`;
    if (seen.has(kind)) span.replaceWith(span.textContent);
    seen.add(kind);
  }
}"""


def test_it_is_accessible_light_and_dark(on_disk):
    """No rule of axe-core is broken in a serious or critical way; in the dark only the colours are others."""
    on_disk.evaluate(ONE_OF_A_KIND)
    for scheme, rules in [("light", {}), ("dark", {"runOnly": ["color-contrast"]})]:
        set_theme(on_disk, scheme)
        options = {"resultTypes": ["violations"], "preload": False, **rules}
        found = Axe().run(on_disk, options=options).response["violations"]
        severe = [(rule["id"], node["html"]) for rule in found for node in rule["nodes"] if node["impact"] in SEVERE]
        assert severe == []


def test_it_opens_from_a_server(on_server):
    assert_whole(on_server)


def test_it_fits_a_narrow_screen_light_and_dark(on_server, book, name, page_text):
    pictures = {}
    for scheme in ("light", "dark"):
        set_theme(on_server, scheme)
        assert on_server.evaluate("document.documentElement.scrollWidth") <= 390
        assert on_server.evaluate(CODE_THAT_SCROLLS) == []
        pictures[scheme] = on_server.evaluate(DRAWN)
        assert_alive(on_server)
    changed = [light != dark for light, dark in zip(pictures["light"], pictures["dark"], strict=True)]
    assert all(changed) or "PatchExplorer" in page_text(name)  # it draws only the numbers of the image


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


def test_it_is_light(book, name):
    """A page, beyond the theme's own files, and without its figures' files, weighs 1 MB at the most."""
    assert (book / f"{name}.html").stat().st_size <= 1_000_000


def test_the_number_under_the_pointer_is_read_at_the_edge_of_the_window(tab, book, toc):
    page = tab.open(book / f"{toc['root']}.html")
    page.get_by_text("Look inside", exact=True).first.click()
    settle(page)
    page.locator(".mx-inside canvas").nth(2).hover()
    reading = page.locator(".mx-inside .mx-reading").first
    expect(reading).to_contain_text("After layer")
    box, height = reading.bounding_box(), page.evaluate("innerHeight")
    assert box["y"] + box["height"] == pytest.approx(height, abs=1)


def test_a_figure_with_damaged_state_leaves_the_others_alive(tab, book, page_text, toc):
    """The figure of a page, damaged, before the same figure as it was."""
    html = page_text(toc["root"])
    figure = re.search(r'<div class="mixer-figure">.*?</script>\s*<script>.*?</script></div>', html, re.DOTALL)[0]
    payload = PAYLOAD.search(figure)[1]
    damaged = figure.replace(payload, payload[: len(payload) // 2])
    place = (book / toc["root"]).with_name("broken.html")  # beside the page, as its links are relative
    place.write_text(html.replace(figure, damaged + figure), encoding="utf-8")
    page = tab.open(place)
    first, second = page.locator(".mixer-figure").all()
    assert first.locator("[role=alert]").is_visible()
    assert first.locator(".mixer-still").is_visible()
    assert second.locator(".mx canvas").count()
