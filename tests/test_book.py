"""The built book in Chromium, from the disk and from a server: nothing else is asked for, nothing fails."""

import json
import re
from urllib.parse import unquote

import nbformat
import pytest
import torch.nn.functional as F
import yaml

from mixer import load_data, shipped_weights
from tests.browser import PAYLOAD, Tab
from tests.conftest import ROOT
from tests.test_flow import compare

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]

# What each live figure of a page has drawn: the pixels of its canvases, and its elements with their colours.
DRAWN = """[...document.querySelectorAll(".mx")].map(
  (figure) => [...figure.querySelectorAll("canvas")].map((canvas) => canvas.toDataURL()).join() + figure.innerHTML
)"""

each_page = pytest.mark.parametrize("name", PAGES)


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


def test_the_search_finds_a_word(browser, home):
    tab = Tab(browser, home)
    page = tab.open(f"{home}book/intro.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("permutation")
    page.keyboard.press("Enter")
    page.locator("#search-results li a", has_text="The token-mixing MLP").wait_for()
    page.wait_for_load_state("networkidle")
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


def test_the_book_holds_every_kind_of_figure(book):
    modules = [json.loads(payload)["module"] for name in PAGES for payload in PAYLOAD.findall(page_text(book, name))]
    for kind in ("PatchExplorer", "TokenMixingExplorer", "MixerFlow", "ConvolutionTwin"):
        assert any(f"// {kind}: " in module for module in modules), kind
    assert "MixerFlow" in page_text(book, TOC["root"])


def page_text(book, name):
    return (book / f"{name}.html").read_text(encoding="utf-8")


def test_the_mixer_of_the_introduction_computes_as_torch_does(tab, book):
    """In the built page: the logits of 200 images, and every step of three, within 1e-4."""
    page = tab.open(book / f"{TOC['root']}.html")
    compare(page, shipped_weights("mnist"), enlarged_digits()[:200], 3)


def enlarged_digits():
    """The test digits of scikit-learn as the introduction shows them, [n, 1, 28, 28]."""
    images = load_data("digits").test.images.float()
    return F.pad(F.interpolate(images, size=22, mode="bicubic", antialias=True).clamp(0, 255), (3, 3, 3, 3)).byte()


def source(name):
    """The text of a page as it was written, without code."""
    if (path := ROOT / f"{name}.md").is_file():
        return path.read_text(encoding="utf-8")
    return "\n".join(
        cell.source for cell in nbformat.read(ROOT / f"{name}.ipynb", 4).cells if cell.cell_type == "markdown"
    )


@each_page
def test_every_link_within_the_book_leads_somewhere(book, name):
    place = (book / f"{name}.html").parent
    for link in set(re.findall(r'(?:href|src)="([^"]*)"', page_text(book, name))):
        if re.match(r"\w+:", link):  # another host, or data
            continue
        path, _, anchor = link.partition("#")
        target = place / unquote(path.split("?")[0]) if path else book / f"{name}.html"
        assert target.is_file(), link
        assert not anchor or f'id="{anchor}"' in target.read_text(encoding="utf-8"), link


def numbers(book):
    """The numbers of all figures and equations that have a name, as the pages show them."""
    text = "".join(page_text(book, name) for name in PAGES)
    figures = re.findall(r'<figure[^>]* id="(fig-[^"]*)".*?<span class="caption-number">Fig. ([\d.]+)', text, re.DOTALL)
    equations = re.findall(r'id="equation-(eq-[^"]*)">\s*<span class="eqno">\(([\d.]+)\)', text)
    return {name: f"Figure {number}" for name, number in figures} | {name: f"({number})" for name, number in equations}


def test_figures_and_equations_have_the_numbers_that_the_text_gives_them(book):
    shown = numbers(book)
    links = [link for name in PAGES for link in re.findall(r"\[([^]]*)\]\(#((?:fig|eq)-[^)]*)\)", source(name))]
    assert [link for link in links if link[0] != shown.get(link[1])] == []
    assert {name for name in shown if name.startswith("fig-")} <= {
        target for _, target in links
    }  # none is left unnamed


def test_every_reference_is_cited_and_every_citation_has_one(book):
    keys = re.findall(r"^@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    cited = {key for name in PAGES for key in re.findall(r"\]\(#([a-z]+\d{4})\)", source(name))}
    assert (sorted(cited - {*keys}), sorted({*keys} - cited)) == ([], [])
    entries = re.findall(r'class="citation" id="(\w+)"', page_text(book, "book/references"))
    linked = {link for name in PAGES for link in re.findall(r'href="references.html#(\w+)"', page_text(book, name))}
    assert len(entries) == len(keys)
    assert {*entries} == linked


def test_the_map_of_the_introduction_agrees_with_the_chapters():
    rows = re.findall(r"\| \[(\d+)\. (.*?)\]\((.*?)\.ipynb\) \| (\d+) \|", source(TOC["root"]))
    assert [f"book/{file}" for _, _, file, _ in rows] == [chapter["file"] for chapter in TOC["parts"][0]["chapters"]]
    for i, (number, title, file, minutes) in enumerate(rows):
        assert int(number) == i + 1
        assert source(f"book/{file}").startswith(f"# {title}\n"), title
        assert f"*{minutes} minutes. " in source(f"book/{file}"), title


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
