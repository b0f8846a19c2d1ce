"""The book, built as one page, printed by Chromium: `python -m _extensions.pdf PAGE PDF`.

It is printed twice: the first time shows on which pages the chapters begin, for the table of contents.
"""

import sys
from pathlib import Path

from pypdf import PdfReader

from _extensions.chromium import Tab, started

# The chapters, each with the id by which the table of contents refers to it: a mark stands before each.
CHAPTERS = """[...document.querySelectorAll("[id^='document-'] + section")].map(({ id, firstElementChild }) => {
  const words = [...firstElementChild.childNodes].filter((node) => node.className !== "headerlink");
  return [id, words.map((node) => node.textContent).join("")];
})"""
# A title page and a table of contents before the first chapter.
CONTENTS = """([title, chapters, numbers]) => {
  document.querySelector(".print-contents")?.remove();
  const line = ([id, name]) => {
    const row = document.createElement("li"), link = document.createElement("a"), page = document.createElement("span");
    [link.href, link.textContent, page.textContent] = [`#${id}`, name, numbers[id] ?? ""];
    row.append(link, page);
    return row;
  };
  const nav = document.createElement("nav"), heading = document.createElement("p"), list = document.createElement("ol");
  [nav.className, heading.className, heading.textContent] = ["print-contents", "print-title", title];
  list.append(...chapters.map(line));
  nav.append(heading, list);
  document.querySelector(".bd-article").prepend(nav);
}"""
FOOT = "<div style='width: 100%; text-align: center; font-size: 8px'><span class='pageNumber'></span></div>"


def start_pages(pdf: Path, names: list[str]) -> dict[str, int]:
    """The page on which each named place of a PDF lies, counted from 1."""
    reader = PdfReader(pdf)
    places = reader.named_destinations
    return {name: reader.get_destination_page_number(places[f"/{name}"]) + 1 for name in names if f"/{name}" in places}


def print_book(page_path: Path, pdf: Path) -> None:
    """Print the book, which lies in one HTML page, with a title page, a table of contents and an outline."""
    with started() as browser:
        tab = Tab(browser, color_scheme="light")
        page = tab.open(page_path)
        page.wait_for_function("window.MathJax?.startup?.promise")
        page.evaluate("() => MathJax.startup.promise")
        chapters = page.evaluate(CHAPTERS)
        numbers = {}
        for _ in range(2):
            page.evaluate(CONTENTS, [page.title(), chapters, numbers])
            page.pdf(
                path=pdf, prefer_css_page_size=True, outline=True, tagged=True, print_background=True,
                display_header_footer=True, header_template="<span></span>", footer_template=FOOT,
            )  # fmt: skip
            numbers = start_pages(pdf, [name for name, _ in chapters])
        missing = [problem for problem in tab.problems if problem.startswith(("Failed to load", "request of"))]
        if missing:
            raise SystemExit(f"{page_path} cannot be printed whole: {missing}")
    print(f"{pdf}: {len(PdfReader(pdf).pages)} pages")


if __name__ == "__main__":
    print_book(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
