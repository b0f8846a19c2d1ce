"""The built book as a whole: its links, numbers and references, its search, and the Mixer that computes in it."""

import json
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from pypdf import PdfReader

from _extensions.chromium import PAYLOAD, Tab, remember, wait_until_changed
from mixer import load_data
from mixer.widgets import TrainingLab
from mixer.widgets.figure import NO_SCRIPTS

ROOT = Path(__file__).parents[2]

KINDS = {  # of live figures, but for the laboratory, which has tests of its own; and the class of each in a page
    "PatchExplorer": "mx-patches",
    "FilterExplorer": "mx-filter",
    "TokenMixingExplorer": "mx-explorer",
    "ReachExplorer": "mx-reach",
    "MixerFlow": "mx-flow",
    "CostExplorer": "mx-cost",
    "ValleyExplorer": "mx-valley",
    "ConvolutionTwin": "mx-twin",
}


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


def test_only_the_result_of_a_search_has_its_words_marked(browser, home):
    tab = Tab(browser, home)
    for chosen in ("#search-results li a", "nav.bd-links a"):
        page = tab.open(f"{home}search.html?q=permutation")
        page.locator("#search-results li a").first.wait_for()
        page.locator(chosen, has_text="token-mixing MLP").first.click()
        page.wait_for_url("**/03_token_mixing.html*")
        page.wait_for_load_state()
        assert (page.locator("span.highlighted").count() > 0) == chosen.startswith("#search")
    page.close()


@pytest.fixture(scope="session")
def pages_with(pages, page_text):
    def make(kind):
        """The names of the pages that hold a live figure of a kind."""

        def modules(name):
            return [json.loads(payload)["module"] for payload in PAYLOAD.findall(page_text(name))]

        return [name for name in pages if any(f"// {kind}: " in module for module in modules(name))]

    return make


def test_the_introduction_holds_the_mixer_itself(book, toc, pages_with):
    assert toc["root"] in pages_with("MixerFlow")


# Whether the focus is at the foot of the page and whether in a live figure; the kind of what has it, and its name.
FOCUS = """(figure) => {
  const { activeElement: element } = document;
  return [!!element.closest(".prev-next-footer, footer"), !!element.closest(figure),
    (element.type ?? element.role) + (element.type === "range" && element.value === element.max ? " at its end" : ""),
    element.ariaPressed === "true",
    element.ariaLabel ?? element.labels?.[0]?.textContent ?? element.textContent];
}"""
KEYS = {"range": "ArrowRight", "range at its end": "ArrowLeft", "select-one": "ArrowUp ArrowDown ArrowDown",
        "radio": "ArrowRight", "checkbox": "Space", "group": "ArrowRight ArrowDown",
        "application": "Space ArrowRight"}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_keyboard_alone_walks_through_a_page_and_works_its_figure(tab, book, kind, pages_with):
    """Tab leads from the top to the foot, through every control of the figure; keys change what each one shows."""
    tab.page.emulate_media(reduced_motion="reduce")  # a figure that plays would change by itself
    page = tab.open(book / f"{pages_with(kind)[0]}.html")
    figure = page.locator(f".{KINDS[kind]}")
    waiting = figure.locator("input:not([type=radio]), select, button, summary, [tabindex='0'], input:checked").count()
    at_foot, worked = False, []
    while not at_foot:
        page.keyboard.press("Tab")
        at_foot, in_figure, what, is_chosen, name = page.evaluate(FOCUS, f".{KINDS[kind]}")
        if in_figure:
            remember(figure)
            for key in KEYS.get(what, "Enter").split():
                page.keyboard.press(key)
            if not is_chosen:
                wait_until_changed(figure, (what, name))
            worked.append((what, name))
    assert len(worked) == waiting, worked


def letters(text):
    """A text without its spaces; a PDF has others, and ligatures where the font has some: "fi" as one letter."""
    return "".join(unicodedata.normalize("NFKC", text).split())


# Code, and what it prints; of an exercise that would only be that nothing was written yet.
PRINTED = ".bd-article pre:not(.tag_exercise > .cell_output pre)"
CUT_OFF = "all => all.filter((el) => !el.clientWidth || el.scrollWidth > el.clientWidth).map((el) => el.textContent)"


def test_a_page_prints_whole(browser, book, tmp_path):
    """On paper: light, everything opened, still pictures for live figures, no line of code cut off; then as before."""
    tab = Tab(browser, color_scheme="dark")
    page = tab.open(book / "book" / "03_token_mixing.html")
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    printed = letters("".join(sheet.extract_text() for sheet in PdfReader(tmp_path / "page.pdf").pages))
    assert letters(NO_SCRIPTS) in printed
    assert letters(page.locator(".mx-explorer label").first.inner_text()) not in printed
    for words in page.locator(PRINTED).all_inner_texts():
        assert letters(words) in printed, words
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 672, "height": 900})  # of an A4 page without its margins
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(PRINTED).evaluate_all(CUT_OFF) == []
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]:not(.mx *)").count() == 0
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.close()
    assert tab.problems == []


def source(name):
    """The text of a page as it was written, without code."""
    if (path := ROOT / f"{name}.md").is_file():
        return path.read_text(encoding="utf-8")
    return "\n".join(
        cell.source for cell in nbformat.read(ROOT / f"{name}.ipynb", 4).cells if cell.cell_type == "markdown"
    )


def test_every_link_within_the_book_leads_somewhere(book, name, page_text):
    place = (book / f"{name}.html").parent
    for link in set(re.findall(r'(?:href|src)="([^"]*)"', page_text(name))):
        if re.match(r"\w+:", link):  # another host, or data
            continue
        path, _, anchor = link.partition("#")
        target = place / unquote(path.split("?")[0]) if path else book / f"{name}.html"
        assert target.is_file(), link
        if anchor.startswith("lab="):  # settings, which the laboratory on that page takes
            assert '<div class="mixer-figure">' in target.read_text(encoding="utf-8")
            TrainingLab(load_data("digits"), **json.loads(unquote(anchor.removeprefix("lab="))))
            continue
        assert not anchor or f'id="{anchor}"' in target.read_text(encoding="utf-8"), link


@pytest.fixture(scope="module")
def numbers(pages, page_text):
    """The numbers of all figures and equations that have a name, as the pages show them."""
    text = "".join(page_text(name) for name in pages)
    figures = re.findall(r'<figure[^>]* id="(fig-[^"]*)".*?<span class="caption-number">Fig. ([\d.]+)', text, re.DOTALL)
    equations = re.findall(r'id="equation-(eq-[^"]*)">\s*<span class="eqno">\(([\d.]+)\)', text)
    return {name: f"Figure {number}" for name, number in figures} | {name: f"({number})" for name, number in equations}


def test_figures_and_equations_have_the_numbers_that_the_text_gives_them(book, pages, numbers):
    shown = numbers
    links = [link for name in pages for link in re.findall(r"\[([^]]*)\]\(#((?:fig|eq)-[^)]*)\)", source(name))]
    assert [link for link in links if link[0] != shown.get(link[1])] == []
    assert {name for name in shown if name.startswith("fig-")} <= {
        target for _, target in links
    }  # none is left unnamed


def test_every_reference_is_cited_and_every_citation_has_one(book, page_text, pages):
    keys = re.findall(r"^@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    cited = {key for name in pages for key in re.findall(r"\]\(#([a-z]+\d{4})\)", source(name))}
    assert (sorted(cited - {*keys}), sorted({*keys} - cited)) == ([], [])
    entries = re.findall(r'class="citation" id="(\w+)"', page_text("book/references"))
    linked = {link for name in pages for link in re.findall(r'href="references.html#(\w+)"', page_text(name))}
    assert len(entries) == len(keys)
    assert {*entries} == linked


def chapters(toc):
    return next(part["chapters"] for part in toc["parts"] if part["caption"] == "Chapters")


def test_the_map_of_the_introduction_agrees_with_the_chapters(toc):
    rows = re.findall(r"\| \[(\d+)\. (.*?)\]\((.*?)\.ipynb\) \| (\d+) \|", source(toc["root"]))
    assert [f"book/{file}" for _, _, file, _ in rows] == [chapter["file"] for chapter in chapters(toc)]
    for i, (number, title, file, minutes) in enumerate(rows):
        assert int(number) == i + 1
        assert source(f"book/{file}").startswith(f"# {title}\n"), title
        assert f"*{minutes} minutes. " in source(f"book/{file}"), title
